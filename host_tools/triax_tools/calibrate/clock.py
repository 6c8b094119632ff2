"""The true sample rate, its drift, and what was lost, from when each block of samples arrived.

arrival = start + count / rate + delay, delay >= 0: delays are one-sided, so the line lies under the points. Its slope is that of
the edge of the lower convex hull over the middle of the window. Least squares follows the stalls: 50 ppm where the hull is 0.9
ppm off. `count` must be the device's own running sample count, so that a lost frame does not look like a slow clock.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import Array

__all__ = ["Clock", "Loss", "envelope", "holes", "lost_against", "measure_clock"]

MIN_BLOCKS = 24
_SUBSETS = 8
_PARTS = 3
DRIFT_FLOOR_PPM = 2.0  # what the hull itself is off by in the best case; smaller changes are not called drift
DRIFT_SIGMAS = 3.0  # of a stated error that is itself twice the true one


@dataclass(frozen=True)
class Clock:
    """Rate of the raw samples as measured. `drift_ppm` is the change from the first to the last third."""

    rate_hz: float
    error_ppm: float
    start_s: float  # arrival of count 0 without delay
    parts_hz: tuple[float, ...]
    drift_ppm: float
    drift_error_ppm: float
    drifts: bool
    delay_median_s: float
    delay_worst_s: float
    least_squares_hz: float


@dataclass(frozen=True)
class Loss:
    """Samples that a recording lost, with the bound of that number."""

    samples: int
    bound: int
    share: float


def envelope(count: Array, arrival_s: Array) -> tuple[float, float]:
    """Slope (s per sample) and intercept (s) of the hull's lower edge over the middle of the counts."""
    order = np.argsort(count, kind="stable")
    x, y = count[order] - count[order[0]], arrival_s[order] - arrival_s[order[0]]
    hull: list[int] = []
    for k in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[k] - x[a]) >= (y[k] - y[a]) * (x[b] - x[a]):
                hull.pop()
            else:
                break
        hull.append(k)
    middle = (x[0] + x[-1]) / 2
    right = int(np.searchsorted(x[hull], middle, side="left"))
    right = min(max(right, 1), len(hull) - 1)
    a, b = hull[right - 1], hull[right]
    slope = float((y[b] - y[a]) / (x[b] - x[a]))
    start = float(arrival_s[order[0]] + y[a] - slope * (x[a] + count[order[0]]))
    return slope, start


def _rate(count: Array, arrival_s: Array) -> tuple[float, float]:
    """Rate in Hz and its standard error in ppm: the scatter of interleaved subsets, each with an eighth of the data."""
    slope, _ = envelope(count, arrival_s)
    subsets = [envelope(count[k::_SUBSETS], arrival_s[k::_SUBSETS])[0] for k in range(_SUBSETS)]
    # A hull gains more than the root of the number of points: this is a bound, not an estimate.
    return 1 / slope, float(np.std(subsets, ddof=1) / np.sqrt(_SUBSETS) / slope * 1e6)


def measure_clock(count: Array, arrival_s: Array) -> Clock:
    """True rate of samples whose running count was `count` when a block arrived at `arrival_s` (equal lengths).

    Raises Refused if there are too few blocks or they do not advance.
    """
    if len(count) < MIN_BLOCKS:
        raise Refused(f"{len(count)} blocks are too few for a rate: record at least {MIN_BLOCKS} of them.")
    if np.ptp(count) <= 0 or np.ptp(arrival_s) <= 0 or not (np.isfinite(count).all() and np.isfinite(arrival_s).all()):
        raise Refused("The sample count or the arrival times do not advance: this recording has no clock to measure.")
    count, arrival_s = np.asarray(count, float), np.asarray(arrival_s, float)
    rate, error = _rate(count, arrival_s)
    slope, start = envelope(count, arrival_s)
    delay = arrival_s - start - slope * count
    edges = np.linspace(count.min(), count.max(), _PARTS + 1)
    parts = []
    for low, high in itertools.pairwise(edges):
        chosen = (count >= low) & (count <= high)
        if chosen.sum() < MIN_BLOCKS // _PARTS * 2:
            parts.append((rate, float("inf")))
        else:
            parts.append(_rate(count[chosen], arrival_s[chosen]))
    drift = (parts[-1][0] / parts[0][0] - 1) * 1e6
    drift_error = float(np.hypot(parts[0][1], parts[-1][1]))
    return Clock(
        rate_hz=rate,
        error_ppm=error,
        start_s=start,
        parts_hz=tuple(part[0] for part in parts),
        drift_ppm=drift,
        drift_error_ppm=drift_error,
        drifts=bool(np.isfinite(drift_error) and abs(drift) > max(DRIFT_FLOOR_PPM, DRIFT_SIGMAS * drift_error)),
        delay_median_s=float(np.median(delay)),
        delay_worst_s=float(delay.max()),
        least_squares_hz=float(1 / scipy.stats.linregress(count, arrival_s).slope),
    )


def holes(sequence: Array) -> int:
    """Numbers that are missing between the first and the last of a boot's frame numbers; repeats do not count."""
    seen = np.unique(sequence)
    return int(seen[-1] - seen[0] + 1 - len(seen)) if len(seen) else 0


def lost_against(rate_hz: float, count: Array, arrival_s: Array, rate_error_ppm: float = 0.0) -> Loss:
    """Samples lost in a recording whose count has only what arrived, against the rate that the sensor is known to run at.

    For recordings without a device's own count. The bound holds the rate's error and two blocks' arrival jitter: fewer are none.
    """
    span_s = float(arrival_s[-1] - arrival_s[0])
    due = rate_hz * span_s
    held = float(count[-1] - count[0])
    jitter = float(np.std(np.diff(arrival_s) - span_s * np.diff(count) / held)) * rate_hz
    lost = due - held
    bound = int(np.ceil(due * rate_error_ppm * 1e-6 + 2 * jitter + 1))
    return Loss(max(0, round(lost)), bound, max(0.0, lost / due))
