"""Frames of many machines by numpy, and faults planted in them at the raw samples.

A machine is white noise plus two rotating lines, in counts; its blocks of 1,600 raw samples come from a pool, and its frames are
these blocks' exact sums, extremes and squares plus a whole-count level. A fault is put into the raw block before it is summed.
"""

from dataclasses import dataclass, field

import numpy as np
from triax_proto.frame import empty

RATE_HZ, DECIMATION, SAMPLES = 16_000, 160, 1_600
SCALE_G = 0.000488
START_US = 1_760_000_000_000_000
KINDS = ("spike", "glitch", "level_shift", "drift", "bearing", "dead_axis")
POOL, CLASSES = 160, 8


@dataclass
class Fault:
    kind: str
    row: int
    frame: int
    axis: int
    size: float = 0.0


@dataclass
class Fleet:
    """Frames (devices, frames) of one layout, not yet encoded, and what was planted."""

    frames: np.ndarray
    faults: list[Fault] = field(default_factory=list)


def block_statistics(raw):
    """Sums (.., 3, 10), minimum, maximum, sum of squares (.., 3) of raw counts (.., 1600, 3)."""
    raw = raw.astype(np.int64)
    sums = raw.reshape(*raw.shape[:-2], 10, DECIMATION, 3).sum(axis=-2)
    return np.moveaxis(sums, -1, -2), raw.min(axis=-2), raw.max(axis=-2), (raw * raw).sum(axis=-2)


def pools(rng):
    """Raw counts (classes, POOL, 1600, 3) and the usual standard deviation of each class."""
    time_s = np.arange(SAMPLES) / RATE_HZ
    out = np.empty((CLASSES, POOL, SAMPLES, 3), np.int16)
    sigma = np.geomspace(6, 60, CLASSES)
    for index in range(CLASSES):
        raw = rng.normal(0, sigma[index], (POOL, SAMPLES, 3))
        for line in range(2):
            hertz = (24.3 + 13.7 * index) * (line + 1)
            phase = rng.uniform(0, 2 * np.pi, (POOL, 1, 3))
            raw += sigma[index] * (index % 4) * 0.7 / (line + 1) * np.sin(2 * np.pi * hertz * time_s[:, None] + phase)
        out[index] = np.rint(raw)
    return out, sigma


def _put(frames, row, index, raw, offset):
    sums, low, high, squares = block_statistics(raw + offset)
    cell = frames[row, index : index + 1]
    for axis, name in enumerate("xyz"):
        cell[name] = sums[axis]
    cell["minimum"], cell["maximum"], cell["sum_squares"] = low, high, squares


def _ring(rng, size, at):
    """A shock: a decaying oscillation of 0.5 to 3 ms at 0.8 to 3 kHz, largest value `size`."""
    time_s = np.arange(SAMPLES - at) / RATE_HZ
    wave = np.exp(-time_s / rng.uniform(0.0005, 0.003)) * np.sin(2 * np.pi * rng.uniform(800, 3000) * time_s + rng.uniform(0.3, 1))
    return size * wave / np.abs(wave).max()


def fleet(devices=200, frames=1500, per_kind=8, seed=1):
    """`per_kind` faults of each kind, one a device, on the first devices; the others are healthy."""
    rng = np.random.default_rng(seed)
    raw, sigma = pools(rng)
    sums, low, high, squares = block_statistics(raw)
    out = empty(devices * frames).reshape(devices, frames)
    which = rng.integers(0, POOL, (devices, frames))
    kind = np.arange(devices) % CLASSES
    offset = np.rint(rng.normal([0, 0, 1 / SCALE_G], 60, (devices, 3))).astype(np.int64)
    level = np.broadcast_to(offset[:, None], (devices, frames, 3)).copy()
    result = Fleet(out)
    for index in range(per_kind * len(KINDS)):
        fault = Fault(KINDS[index % len(KINDS)], index, int(rng.integers(frames // 3, frames // 2)), int(rng.integers(0, 3)))
        result.faults.append(fault)
        if fault.kind == "level_shift":
            fault.size = float(rng.uniform(0.03, 0.2) * rng.choice([-1, 1]))
            level[index, fault.frame :, fault.axis] += round(fault.size / SCALE_G)
        if fault.kind == "drift":
            fault.size = float(rng.uniform(0.0005, 0.002) * rng.choice([-1, 1]))  # g/s
            ramp = np.arange(frames - fault.frame) * fault.size / 10 / SCALE_G
            level[index, fault.frame :, fault.axis] += np.rint(ramp).astype(np.int64)
    _fill(out, kind, which, level, (sums, low, high, squares))
    for fault in result.faults:
        _plant(rng, out, fault, raw[kind[fault.row]], which[fault.row], level[fault.row], sigma[kind[fault.row]])
    _head(out, devices, frames)
    return result


def _fill(out, kind, which, level, statistics):
    sums, low, high, squares = (values[kind[:, None], which] for values in statistics)
    for axis, name in enumerate("xyz"):
        out[name] = sums[:, :, axis] + level[:, :, axis, None] * DECIMATION
    out["minimum"], out["maximum"] = low + level, high + level
    out["sum_squares"] = squares + 2 * level * sums.sum(axis=-1) + SAMPLES * level * level


def _plant(rng, out, fault, raw, which, level, sigma):
    row, first = fault.row, fault.frame
    clean = raw[which[first]].astype(np.int64)
    usual = np.abs(raw[:, :, fault.axis] - raw[:, :, fault.axis].mean()).max(axis=1).mean()
    if fault.kind == "spike":
        fault.size = float(max(rng.uniform(2.5, 8) * usual, 14 * sigma))
        at = int(rng.integers(0, SAMPLES - 200))
        clean[at:, fault.axis] += np.rint(_ring(rng, fault.size, at)).astype(np.int64)
        _put(out, row, first, clean, level[first])
    elif fault.kind == "glitch":
        fault.size = float(max(rng.uniform(3, 40) * usual, 30 * sigma))
        clean[int(rng.integers(0, SAMPLES)), fault.axis] = round(fault.size * rng.choice([-1, 1]))
        _put(out, row, first, clean, level[first])
    elif fault.kind == "bearing":
        fault.size = float(rng.uniform(1.5, 3) * usual)
        period = int(RATE_HZ / rng.uniform(60, 140))
        for index in range(first, out.shape[1]):
            block = raw[which[index]].astype(np.int64)
            for at in range(int(rng.integers(0, period)), SAMPLES - 60, period):
                block[at:, fault.axis] += np.rint(_ring(rng, fault.size * rng.uniform(0.7, 1.1), at)).astype(np.int64)
            _put(out, row, index, block, level[index])
    elif fault.kind == "dead_axis":
        for index in range(first, out.shape[1]):
            block = raw[which[index]].astype(np.int64)
            block[:, fault.axis] = -level[index, fault.axis]
            _put(out, row, index, block, level[index])


def _head(out, devices, frames):
    sequence = np.arange(frames)
    out["device"] = (0x0200_0000_0000_0000 + np.arange(devices, dtype=np.uint64))[:, None]
    out["boot"], out["sequence"], out["samples"] = 7, sequence, SAMPLES
    out["first_sample"] = sequence * SAMPLES
    out["time_us"] = START_US + sequence * 100_000
    out["rate_hz"], out["decimation"], out["scale_g"] = RATE_HZ, DECIMATION, SCALE_G
    out["temperature_mc"] = 25_000
