"""Motion in physical units: acceleration in g on three axes at any times, vectorised and repeatable.

A motion is a function of time alone: `motion(t) -> (count, 3)`, t in seconds, the same t gives the same values whatever was
asked before. So any stretch of samples can be made without those before it, at any rate, with any clock error. What a sensor
makes of it (noise, offset, codes) is `triax_sim.sensor`; rotating machines are `triax_sim.machine`. Standing still on a table is
+1 g on the axis that points up.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "Array",
    "Motion",
    "after",
    "drift",
    "drop",
    "handling",
    "impacts",
    "mix",
    "shift",
    "shock",
    "sine",
    "spike",
    "still",
    "uniform",
]

Array = npt.NDArray[np.float64]
Motion = Callable[[Array], Array]
Axis = Sequence[float]

UP: Axis = (0.0, 0.0, 1.0)
GRAVITY_M_S2 = 9.80665


def uniform(numbers: npt.NDArray[np.int64], seed: int) -> Array:
    """A uniform value in [0, 1) for each number: random, but a function of (number, seed), so event n is the same for every caller.

    SplitMix64's finaliser (Steele, Lea, Flood 2014) on the number.
    """
    with np.errstate(over="ignore"):
        z = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed & 0xFFFFFFFF) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _along(values: Array, axis: Axis) -> Array:
    return values[:, None] * np.asarray(axis, dtype=np.float64)


def still(gravity: Axis = UP) -> Motion:
    """At rest: gravity alone, in g along the sensor's axes."""
    rest = np.asarray(gravity, dtype=np.float64)

    def motion(t: Array) -> Array:
        return np.broadcast_to(rest, (len(t), 3))

    return motion


def sine(amplitude_g: float, frequency_hz: float, axis: Axis = UP, phase_rad: float = 0.0) -> Motion:
    """A vibration of one frequency along an axis; `amplitude_g` is the peak."""

    def motion(t: Array) -> Array:
        return _along(amplitude_g * np.sin(2 * np.pi * frequency_hz * t + phase_rad), axis)

    return motion


def mix(*motions: Motion) -> Motion:
    """The sum of motions: gravity is in it only if one of them has it."""

    def motion(t: Array) -> Array:
        total = motions[0](t)
        for other in motions[1:]:
            total = total + other(t)
        return total

    return motion


def _half_sine(since: Array, duration_s: float) -> Array:
    inside = (since >= 0) & (since < duration_s)
    return np.where(inside, np.sin(np.pi * np.clip(since / duration_s, 0, 1)), 0.0)


def _ring(since: Array, frequency_hz: float, decay_s: float) -> Array:
    after = np.maximum(since, 0.0)
    return np.where(since >= 0, np.exp(-after / decay_s) * np.sin(2 * np.pi * frequency_hz * after), 0.0)


def impacts(
    per_second: float,
    peak_g: float,
    seed: int = 1,
    axis: Axis = UP,
    ring_hz: float = 800.0,
    decay_s: float = 0.004,
    spread: float = 0.5,
) -> Motion:
    """Shocks at random moments, `per_second` on average and at most one in each interval of 1/per_second; each rings and dies away.

    Peaks are uniform in peak_g x (1 +- spread).
    """

    def motion(t: Array) -> Array:
        cell = np.floor(t * per_second).astype(np.int64)
        total = np.zeros(len(t))
        for number in (cell, cell - 1):  # a shock late in the interval before may still ring
            at = (number + uniform(number, seed)) / per_second
            peak = peak_g * (1 + spread * (2 * uniform(number, seed + 1) - 1))
            total += peak * _ring(t - at, ring_hz, decay_s)
        return _along(total, axis)

    return motion


def drop(
    at_s: float, height_m: float, peak_g: float = 60.0, contact_s: float = 0.003, bounces: int = 3, gravity: Axis = UP
) -> Motion:
    """At rest, let go at `at_s`: free fall (0 g), impact, smaller bounces with free fall between them, rest. Contains gravity.

    A bounce has half the height of the one before; its impact scales with the speed.
    """
    phases = []  # (start of fall, impact, peak)
    fall_s = (2 * height_m / GRAVITY_M_S2) ** 0.5
    start, peak = at_s, peak_g
    for number in range(bounces + 1):
        flight = fall_s if number == 0 else 2 * fall_s * 0.5 ** (number / 2)
        phases.append((start, start + flight, peak))
        start = start + flight + contact_s
        peak *= 0.5**0.5
    rest = np.asarray(gravity, dtype=np.float64)

    def motion(t: Array) -> Array:
        level = np.ones(len(t))
        for begin, hit, top in phases:
            level = np.where((t >= begin) & (t < hit), 0.0, level)
            level = level + top * _half_sine(t - hit, contact_s)
        return level[:, None] * rest

    return motion


def handling(turn_deg: float = 60.0, tremor_g: float = 0.03, seed: int = 1) -> Motion:
    """Held and turned in a hand: gravity swings over the axes within `turn_deg`, with a tremor of 6 to 12 Hz. Contains gravity."""
    draws = uniform(np.arange(24), seed)
    turns = [(0.05 + 0.5 * draws[i], 2 * np.pi * draws[i + 4]) for i in range(4)]
    shakes = [(6.0 + 6.0 * draws[i], 2 * np.pi * draws[i + 6]) for i in range(8, 14)]

    def motion(t: Array) -> Array:
        angles = [
            np.deg2rad(turn_deg / 2) * (np.sin(2 * np.pi * f * t + p) + np.sin(2 * np.pi * 1.7 * f * t + 2 * p)) / 2
            for f, p in (turns[0], turns[2])
        ]
        tilt, roll = angles
        gravity = np.stack([np.sin(tilt), -np.cos(tilt) * np.sin(roll), np.cos(tilt) * np.cos(roll)], axis=1)
        for axis in range(3):
            for f, p in shakes[2 * axis : 2 * axis + 2]:
                gravity[:, axis] += tremor_g / 2 * np.sin(2 * np.pi * f * t + p)
        return gravity

    return motion


def spike(at_s: float, peak_g: float, width_s: float = 0.001, axis: Axis = UP) -> Motion:
    """One real, physical shock: half a sine of `width_s`. To be added to other motion."""

    def motion(t: Array) -> Array:
        return _along(peak_g * _half_sine(t - at_s, width_s), axis)

    return motion


def shock(at_s: float, peak_g: float, axis: Axis = UP, ring_hz: float = 1500.0, decay_s: float = 0.002) -> Motion:
    """One blow that rings and dies away; its first swing reaches `peak_g`. To be added to other motion."""
    swing_s = np.arctan(2 * np.pi * ring_hz * decay_s) / (2 * np.pi * ring_hz)  # of the largest value of exp(-t/d) sin(wt)
    largest = float(np.exp(-swing_s / decay_s) * np.sin(2 * np.pi * ring_hz * swing_s))

    def motion(t: Array) -> Array:
        return _along(peak_g / largest * _ring(t - at_s, ring_hz, decay_s), axis)

    return motion


def after(at_s: float, motion: Motion) -> Motion:
    """A motion that begins at `at_s` and is nothing before. To be added to other motion."""

    def begun(t: Array) -> Array:
        return np.where((t >= at_s)[:, None], motion(t), 0.0)

    return begun


def shift(at_s: float, step_g: Axis) -> Motion:
    """From `at_s` on everything stands elsewhere by `step_g` (a mount that slipped). To be added to other motion."""

    def motion(t: Array) -> Array:
        return _along((t >= at_s).astype(np.float64), step_g)

    return motion


def drift(from_s: float, g_per_s: Axis) -> Motion:
    """From `from_s` on the level walks away at a constant pace. To be added to other motion."""

    def motion(t: Array) -> Array:
        return _along(np.maximum(t - from_s, 0.0), g_per_s)

    return motion
