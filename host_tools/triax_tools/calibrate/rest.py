"""Static detector: where a recording is at rest, with no option to tune.

A second is still if its variance is small on two scales: sample by sample (tremor, taps) and between 0.1 s means (slow rolling,
which noise hides on the first scale). "Small" is relative to the quietest twentieth of the recording itself. A rest loses its
first second (settling) and its last half second (the hand arriving), and its two halves must agree.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triax_tools.calibrate.model import Array

__all__ = [
    "Rejected",
    "Rest",
    "Stillness",
    "dithering_error",
    "find",
    "half_test",
    "measure",
    "stillness",
    "thresholds",
    "undithered",
]

WINDOW_S = 1.0
BLOCK_S = 0.1  # means over this hide no roll of 0.5 deg/s and leave a fifth of the noise of a 1 kHz sample
SETTLE_S = 1.0
HAND_S = 0.5
MIN_HOLD_S = 1.0
LONG_S, LAST_S = 30.0, 20.0
FLOOR_PERCENTILE = 5.0  # a recording with less rest than this is no calibration
FACTOR = 6.0  # over the floor: imu_tk's winning multiplier on the Xsens log
SLOW_FACTOR = 12.0  # ten blocks a second: chi-square with 27 degrees of freedom reaches 4 times its 5 % point once in 10^6
# 1.5 s of 13 mg (GGIR's threshold) is a hand, however quiet the rest of the recording is.
CEILING_G2 = 3 * 0.013**2
UNDITHERED = 0.5  # of a count: below, the mean of rounded samples is off by more than 0.2 % of one
MOVED_LIMIT_G = 0.3e-3  # between halves: what a table sags; a creep of 2 mg in 10 s shows as 1 mg
MOVED_SIGMAS = 4.0  # of the scatter of a mean over all three axes: seven of one axis


@dataclass(frozen=True)
class Rest:
    """A stretch of values [start, stop) that was still, trimmed."""

    start: int
    stop: int
    mean: Array  # counts (3,)
    sigma: Array  # counts (3,), of one value
    moved_g: float  # creep over the whole rest that its halves show
    duration_s: float


@dataclass(frozen=True)
class Rejected:
    """A still stretch that is no rest, and why."""

    start: int
    stop: int
    moved_g: float
    reason: str


@dataclass(frozen=True)
class Stillness:
    """Variances (g^2, summed over the axes) of each window of WINDOW_S, by the window's first value."""

    fast: Array
    slow: Array
    window: int


def _moving_variance(values: Array, width: int) -> Array:
    """Variance summed over axes of each window of `width` rows."""
    centred = values - values.mean(axis=0)
    zero = np.zeros((1, values.shape[1]))
    first = np.cumsum(np.vstack([zero, centred]), axis=0)
    second = np.cumsum(np.vstack([zero, centred**2]), axis=0)
    mean = (first[width:] - first[:-width]) / width
    return np.asarray(np.maximum(((second[width:] - second[:-width]) / width - mean**2).sum(axis=1), 0.0))


def stillness(values_g: Array, rate_hz: float) -> Stillness | None:
    """Both variances of one contiguous stretch (n, 3) in g; None if it is shorter than a window."""
    block = max(1, round(BLOCK_S * rate_hz))
    per_window = round(WINDOW_S / BLOCK_S)
    window = max(block * per_window, 10)
    if len(values_g) < window:
        return None
    fast = _moving_variance(values_g, window)
    zero = np.zeros((1, 3))
    means = np.cumsum(np.vstack([zero, values_g - values_g.mean(axis=0)]), axis=0)
    smooth = (means[block:] - means[:-block]) / block
    # Variance of the per_window block means that tile each window.
    count = len(fast)
    tiles = np.stack([smooth[k * block : k * block + count] for k in range(window // block)])
    slow = tiles.var(axis=0).sum(axis=1)
    return Stillness(fast, slow, window)


def thresholds(parts: Sequence[Stillness], lsb_g: float) -> tuple[float, float]:
    """Limits (g^2) of the fast and the slow variance. `lsb_g`: one count, whose rounding alone is a twelfth of its square."""
    fast = np.concatenate([part.fast for part in parts])
    slow = np.concatenate([part.slow for part in parts])
    rounding = 3 * lsb_g**2 / 12
    floor = max(float(np.percentile(fast, FLOOR_PERCENTILE)), rounding)
    slow_floor = max(float(np.percentile(slow, FLOOR_PERCENTILE)), rounding / 10)
    # Raw samples of a noisy part are louder than any hand: then the ceiling follows the floor.
    return min(FACTOR * floor, max(CEILING_G2, 2 * floor)), min(SLOW_FACTOR * slow_floor, CEILING_G2)


def find(values_g: Array, rate_hz: float, *, starts: Sequence[int] = (0,), lsb_g: float = 0.0) -> list[tuple[int, int]]:
    """Still stretches [start, stop) of at least WINDOW_S, untrimmed; none crosses a gap.

    `starts`: first value of each contiguous stretch.
    """
    edges = [*starts, len(values_g)]
    found = []
    parts = [(low, stillness(values_g[low:high], rate_hz)) for low, high in itertools.pairwise(edges)]
    usable = [(low, part) for low, part in parts if part is not None]
    if not usable:
        return []
    fast, slow = thresholds([part for _, part in usable], lsb_g)
    for low, part in usable:
        still = (part.fast < fast) & (part.slow < slow)
        change = np.flatnonzero(np.diff(np.r_[0, still.astype(np.int8), 0]))
        for begin, end in zip(change[::2], change[1::2], strict=True):
            found.append((low + int(begin), low + int(end) - 1 + part.window))
    return _without_fragments(found, rate_hz)


def _without_fragments(found: list[tuple[int, int]], rate_hz: float) -> list[tuple[int, int]]:
    """Drop pieces too short to use that overlap a neighbour: a rest that settled in steps is one rest."""
    least = (SETTLE_S + HAND_S + MIN_HOLD_S) * rate_hz
    out = []
    for index, (low, high) in enumerate(found):
        before = index > 0 and found[index - 1][1] > low
        after = index + 1 < len(found) and found[index + 1][0] < high
        if high - low >= least or not (before or after):
            out.append((low, high))
    return out


def half_test(values_g: Array, rate_hz: float) -> tuple[float, float]:
    """Creep over the stretch (g) as its halves show it, and the limit above which it is motion."""
    half = len(values_g) // 2
    moved = float(np.linalg.norm(values_g[-half:].mean(axis=0) - values_g[:half].mean(axis=0)))
    block = max(1, min(round(BLOCK_S * rate_hz), half // 4))
    means = values_g[: len(values_g) // block * block].reshape(-1, block, 3).mean(axis=1)
    # Von Neumann: neighbours differ by noise, not by the creep.
    noise = float(np.sqrt((np.diff(means, axis=0) ** 2).mean(axis=0).sum() / 2))
    limit = max(MOVED_LIMIT_G, MOVED_SIGMAS * noise * np.sqrt(2 / max(1, len(means) // 2)))
    return 2 * moved, 2 * limit


def measure(values: Array, span: tuple[int, int], rate_hz: float, scale_g: float) -> Rest | Rejected:
    """Trim a still stretch of counts (n, 3), test its halves, take its mean.

    A rest whose halves disagree gets up to 2 s more to settle; a long one (a unit that warms itself) is its last 20 s. Else it is
    rejected.
    """
    stop = span[1] - round(HAND_S * rate_hz)
    first: Rejected | None = None
    starts = [span[0] + round((SETTLE_S + more_s) * rate_hz) for more_s in (0, 0.5, 1.0, 1.5, 2.0)]
    if span[1] - span[0] > LONG_S * rate_hz:
        starts.append(stop - round(LAST_S * rate_hz))
    for start in starts:
        if stop - start < MIN_HOLD_S * rate_hz:
            break
        part = values[start:stop]
        moved, limit = half_test(part * scale_g, rate_hz)
        if moved <= limit:
            return Rest(start, stop, part.mean(axis=0), part.std(axis=0, ddof=1), moved, len(part) / rate_hz)
        reason = f"moved by {moved * 1e3:.1f} mg in {len(part) / rate_hz:.0f} s: hold again"
        first = first or Rejected(start, stop, moved, reason)
    return first or Rejected(*span, 0.0, f"still for only {(span[1] - span[0]) / rate_hz:.1f} s: hold at least 2.5 s")


def dithering_error(sigma_counts: Array) -> Array:
    """Error of a mean (counts) that rounding leaves where the noise of a raw sample is `sigma_counts` before rounding.

    The first harmonic of the rounding error, exp(-2 pi^2 sigma^2) / pi of a count (0.2 % of one at half a count of noise): the
    worst case from a fifth of a count on; with less noise than that the worst case tends to half a count.
    """
    return np.asarray(np.exp(-2 * np.pi**2 * np.square(sigma_counts)) / np.pi)


def undithered(sigma_counts: Array) -> tuple[list[int], Array]:
    """Axes whose noise is below half a count, and what that adds to the error of their offset (counts, 0 for the others)."""
    weak = np.asarray(sigma_counts) < UNDITHERED
    return [int(axis) for axis in np.flatnonzero(weak)], np.where(weak, dithering_error(sigma_counts), 0.0)
