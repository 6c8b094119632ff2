"""Frames of thousands of devices, built by numpy in whole batches, byte for byte what the node's own code makes of the same
samples.

A frame is a template of its motion (values, extremes, squares: computed once from raw samples by `reduce_counts`) with the
device's own header: identity, boot, sequence, sample index, time, rate. Any frame can be made again from (device, number), so a
spool or a window of unacknowledged frames is two numbers a device and never a store of bytes.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from triax_proto.frame import CHECKSUM_START, VALUES, empty, frame_dtype, wire_size

from triax_sim.crc import Patch

__all__ = ["OLD_SCHEMA_CUT", "PARTS", "Bank", "Layout", "Part", "device_ids", "reduce_counts"]

Array = np.ndarray[Any, Any]
Source = Callable[[int, int], Array]  # (first sample, count) -> int32 raw counts (count, 3)

# Bytes of the last field, temperature_mc (two of tag, four of value): a frame without it is one of an older schema.
OLD_SCHEMA_CUT = 6

_SATURATED = 8  # FrameFlag


@dataclass(frozen=True)
class Part:
    """What a frame shows of an accelerometer type. Sensitivities are the typical ones of the data sheets."""

    name: str
    odr_hz: float
    decimation: int
    range_g: float
    scale_g: float  # g per count
    clip_low: int
    clip_high: int

    @property
    def samples(self) -> int:
        """Raw samples of an ordinary frame."""
        return self.decimation * VALUES


PARTS = {
    part.name: part
    for part in (
        Part("adxl382", 16_000.0, 160, 15.0, 1 / 2000, -32768, 32767),
        Part("iis3dwb", 26_667.0, 267, 16.0, 0.000488, -32768, 32767),
    )
}


def device_ids(seed: int, index: Array) -> Array:
    """Locally administered EUI-64s (bit 1 of the first octet set): 0x02, 32 bits of the seed, 24 bits of the index."""
    if index.size and not 0 <= int(index.min()) <= int(index.max()) < 1 << 24:
        raise ValueError("a fleet has at most 2^24 devices")
    return np.asarray(np.uint64(0x02 << 56 | (seed & 0xFFFFFFFF) << 24) | index.astype(np.uint64))


def reduce_counts(counts: Array, part: Part) -> Array:
    """Ordinary frames of raw counts (frames x samples, 3): sums, extremes, squares, scale and decimation set, the header zero."""
    whole = counts.reshape(-1, part.samples, 3)
    frames = empty(len(whole))
    sums = whole.reshape(-1, VALUES, part.decimation, 3).sum(axis=2, dtype=np.int64)
    frames["x"], frames["y"], frames["z"] = sums[..., 0], sums[..., 1], sums[..., 2]
    frames["minimum"], frames["maximum"] = whole.min(axis=1), whole.max(axis=1)
    frames["sum_squares"] = (whole.astype(np.int64) ** 2).sum(axis=1)
    clipped = (frames["minimum"] <= part.clip_low).any(axis=1) | (frames["maximum"] >= part.clip_high).any(axis=1)
    frames["flags"] = np.where(clipped, _SATURATED, 0)
    frames["samples"], frames["decimation"], frames["scale_g"] = part.samples, part.decimation, part.scale_g
    return frames


class Bank:
    """Successive frames of one motion on one part, repeated end to end for as long as a run lasts."""

    def __init__(self, part: Part, source: Source, frames: int) -> None:
        self.part = part
        self.frames = reduce_counts(source(0, frames * part.samples), part)


# Bytes that differ between frames of one device, and those that differ between devices.
_CHANGING = (("boot", 4), ("sequence", 4), ("first_sample", 8), ("time_us", 8))
_OWN = (("device", 8), ("time_error_us", 4), ("rate_hz", 4), ("config", 4), ("temperature_mc", 4))


def _places(fields: Sequence[tuple[str, int]], size: int) -> list[int]:
    offsets = {name: int(item[1]) for name, item in (frame_dtype().fields or {}).items()}
    return [place for name, width in fields for place in range(offsets[name], offsets[name] + width) if place < size]


class Layout:
    """Templates of several banks and the header fields that each device sets once, in one wire form.

    `cut` bytes are missing at the end (0, or OLD_SCHEMA_CUT).
    """

    def __init__(self, banks: Sequence[Bank], cut: int = 0) -> None:
        self.size = wire_size() - cut
        # Rows of bytes, not structured arrays: copying those leaves out the bytes between their fields, which are the tags.
        self.templates = np.concatenate([_rows(bank.frames) for bank in banks])
        self.first = np.cumsum([0] + [len(bank.frames) for bank in banks])[:-1]
        self.count = np.array([len(bank.frames) for bank in banks])
        self._changing = Patch(self.size, CHECKSUM_START, _places(_CHANGING, self.size))
        self._own = Patch(self.size, CHECKSUM_START, _places(_OWN, self.size))
        covered = self.templates[:, CHECKSUM_START : self.size]
        self._base = np.array([zlib.crc32(row.tobytes()) for row in covered], np.uint32)

    def own(self, fields: dict[str, Array]) -> Array:
        """What the fields that a device sets once (_OWN) add to a checksum, one row a device."""
        heads = empty(len(fields["device"]))
        for name, _ in _OWN:
            heads[name] = fields[name]
        return self._own.of(_rows(heads))

    def build(self, template: Array, own_sum: Array, fields: dict[str, Array]) -> tuple[Array, Array]:
        """Frames with `fields` (those of _OWN and _CHANGING) set: wire bytes (count, size) and checksums."""
        rows = self.templates.take(template, axis=0)
        frames = rows.view(frame_dtype()).ravel()
        for name, values in fields.items():
            frames[name] = values
        checksum = self._base.take(template) ^ own_sum ^ self._changing.of(rows)
        frames["checksum"] = checksum
        return rows[:, : self.size], checksum


def _rows(frames: Array) -> Array:
    return frames.view(np.uint8).reshape(len(frames), -1)
