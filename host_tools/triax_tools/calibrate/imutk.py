"""imu_tk's own rules on a log (Tedaldi, Pretto, Menegatti, ICRA 2014), to show that we read it right; never the default.

Rests: norm of the three variances in a 101-sample window against k times that of the first 5001 samples, k = 2..10, at least 100
samples. Fit: |a| - g on each of the first 100 samples of every rest. The k with the smallest total cost wins (which favours fewer
rests).
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import STANDARD_G, Array, Model

__all__ = ["ImuTk", "imutk_fit"]

_WINDOW = 101
_SAMPLES = 100
_INITIAL = 5001  # 50 s untouched, as its test program sets
_MULTIPLIERS = range(2, 11)


@dataclass(frozen=True)
class ImuTk:
    """The winning run. Costs are half sums of squares in (m/s2)^2."""

    multiplier: int
    rests: int
    cost: float
    scale: Array  # 1 / K, counts per m/s2
    misalignment: Array  # mis_yz, mis_zy, mis_zx, rad
    offset: Array  # counts
    model: Model  # g per count


def _rests(limit: float, norm: Array) -> list[tuple[int, int]]:
    still = np.r_[False, norm < limit, False]
    change = np.flatnonzero(np.diff(still.astype(np.int8)))
    half = _WINDOW // 2
    spans = [(int(a) + half, int(b) + half) for a, b in zip(change[::2], change[1::2], strict=True)]
    return [span for span in spans if span[1] - span[0] >= _SAMPLES]


def _variance_norm(values: Array) -> Array:
    windows = np.lib.stride_tricks.sliding_window_view(values, _WINDOW, axis=0)
    return np.asarray(np.linalg.norm(windows.var(axis=-1, ddof=1), axis=1))


def _matrix(theta: Array) -> Array:
    yz, zy, zx = theta[:3]
    return np.asarray(np.array([[1, -yz, zy], [0, 1, -zx], [0, 0, 1.0]]) * theta[3:6])


def _solve(samples: Array, g: float) -> tuple[float, Array]:
    scale, level = 1 / 415, 32768.0

    def theta_of(part: Array) -> Array:
        return np.asarray(part * np.r_[np.ones(3), np.full(3, scale), np.ones(3)] + np.r_[np.zeros(6), np.full(3, level)])

    def residual(part: Array) -> Array:
        theta = theta_of(part)
        return np.asarray(g - np.linalg.norm((samples - theta[6:]) @ _matrix(theta).T, axis=1))

    found = scipy.optimize.least_squares(
        residual, np.r_[np.zeros(3), np.ones(3), np.zeros(3)], method="lm", x_scale="jac", xtol=1e-13
    )
    return float(found.cost), theta_of(found.x)


def imutk_fit(values: Array, g_m_s2: float) -> ImuTk:
    """Run the nine thresholds over counts (n, 3); raises Refused if none leaves twelve rests."""
    norm = _variance_norm(values)
    initial = float(np.linalg.norm(values[:_INITIAL].var(axis=0, ddof=1)))
    best: ImuTk | None = None
    for multiplier in _MULTIPLIERS:
        spans = _rests(multiplier * initial, norm)
        if len(spans) < 12:
            continue
        cost, theta = _solve(np.concatenate([values[a : a + _SAMPLES] for a, _ in spans]), g_m_s2)
        if best is None or cost < best.cost:
            model = Model(_matrix(theta) / STANDARD_G, theta[6:])
            best = ImuTk(multiplier, len(spans), cost, 1 / theta[3:6], theta[:3], theta[6:], model)
    if best is None:
        raise Refused("imu_tk's rule wants at least 12 rests of 100 samples after 50 s untouched; this recording has fewer.")
    return best
