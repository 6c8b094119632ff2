"""Did it change? Two calibrations of one unit (Hotelling), and a fleet of bolted sensors from their own rests.

A bolted sensor has one pose. Its own temperature regression comes first. Then a change along gravity is drift (a tilt by a degree
moves that component by 0.15 mg, a drift of 5 mg by 5); a change across gravity is "offset or tilt" (the same degree is 17 mg there)
and never called drift.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import INTRINSIC_NAMES, Array

__all__ = ["Difference", "DeviceDrift", "difference", "device_drift", "fleet"]

LEVEL = 0.99  # of the statistic: one pair of a hundred unchanged ones is flagged
PARAMETERS = 9

MIN_RESTS = 12
# Along gravity. Half of the 5 mg that matters: a tilt of one degree of an uncalibrated unit (80 mg of offset across gravity) fakes
# 2 mg there, a drift of 5 mg is found with 2.5 mg to spare. Calibrated counts allow 1 mg.
DRIFT_G = 3.0e-3
TILT_G = 3.0e-3  # across gravity: 0.17 degrees
SIGMAS = 5.0  # of the difference of the two means
_SHARE = 0.1  # a change must leave this share of the rests on either side, at least four


@dataclass(frozen=True)
class Difference:
    """second - first in the nine intrinsic numbers. `statistic` is F(9, dof) if nothing changed."""

    change: Array
    sigmas: Array  # each change over its own standard error
    statistic: float
    limit: float
    probability: float  # of a statistic this large without a change
    changed: bool
    worst: str  # name of the number that changed by most sigmas


def difference(first: Array, first_cov: Array, first_dof: int, second: Array, second_cov: Array, second_dof: int) -> Difference:
    """Compare nine intrinsic numbers (values, covariance from residuals, degrees of freedom) of two calibrations.

    Both covariances are scaled by their own residual variance; pooled, the quadratic form over 9 is F with both freedoms added.
    """
    change = second - first
    total = first_cov + second_cov
    sd = np.sqrt(np.diag(total))
    # Correlation form: the numbers' units differ by eight powers of ten.
    correlation = total / np.outer(sd, sd)
    sigmas = change / sd
    statistic = float(sigmas @ np.linalg.solve(correlation, sigmas) / PARAMETERS)
    freedom = first_dof + second_dof
    limit = float(scipy.stats.f.ppf(LEVEL, PARAMETERS, freedom))
    return Difference(
        change=change,
        sigmas=sigmas,
        statistic=statistic,
        limit=limit,
        probability=float(scipy.stats.f.sf(statistic, PARAMETERS, freedom)),
        changed=statistic > limit,
        worst=INTRINSIC_NAMES[int(np.argmax(np.abs(sigmas)))],
    )


@dataclass(frozen=True)
class DeviceDrift:
    """What a device's rests say. `along_g`, `across_g`: the largest lasting changes, the regression on temperature removed."""

    device: str
    rests: int
    along_g: float
    along_sd_g: float
    across_g: float
    across_sd_g: float
    at_s: float  # time of the change along gravity (of the one across it, if that is the only one)
    slope_g_per_c: Array  # (3,)
    verdict: str  # "steady", "drift", "offset or tilt", "drift, and offset or tilt", "unusable"
    note: str = ""


def _candidates(count: int) -> Array:
    margin = max(4, int(np.ceil(_SHARE * count)))
    return np.arange(margin, count - margin + 1)


def _step(signal: Array, warm: Array) -> tuple[float, float, int]:
    """Largest step (value, standard error, index) of one component, fitted together with its own temperature slope.

    Joint, for each place: a regression before it would put part of the step into the slope.
    """
    count = len(signal)
    base = np.column_stack([np.ones(count), warm])
    q, _ = np.linalg.qr(base)
    left = signal - q @ (q.T @ signal)
    places = _candidates(count)
    steps = (np.arange(count)[None, :] >= places[:, None]).astype(float)
    steps -= (steps @ q) @ q.T
    power = np.einsum("ij,ij->i", steps, steps)
    gain = (steps @ left) ** 2 / power
    best = int(np.argmax(gain))
    value = float(steps[best] @ left / power[best])
    variance = max(float(left @ left - gain[best]), 0.0) / max(1, count - 3)
    return value, float(np.sqrt(variance / power[best])), int(places[best])


def device_drift(
    device: str, time_s: Array, temperature_c: Array, rests_g: Array, *, drift_g: float = DRIFT_G, tilt_g: float = TILT_G
) -> DeviceDrift:
    """Judge one device from its rests: times (n,), temperatures (n,), means (n, 3) in g, calibrated or nominal.

    Raises Refused for data that cannot be judged.
    """
    if rests_g.ndim != 2 or rests_g.shape[1] != 3 or not len(rests_g) == len(time_s) == len(temperature_c):
        raise Refused("its rests do not have one time, one temperature and three axes each.")
    good = np.isfinite(rests_g).all(axis=1) & np.isfinite(time_s)
    if good.sum() < MIN_RESTS:
        raise Refused(f"{int(good.sum())} usable rests, at least {MIN_RESTS} are needed: wait for more.")
    order = np.argsort(time_s[good], kind="stable")
    time, rests = time_s[good][order], rests_g[good][order]
    warm = temperature_c[good][order]
    warm = np.where(np.isfinite(warm), warm, np.nanmean(warm) if np.isfinite(warm).any() else 0.0)
    warm = warm - warm.mean()
    if np.ptp(warm) < 0.5:
        warm = np.linspace(-1, 1, len(warm)) * 0  # no slope can be told, none is removed
    magnitude = float(np.median(np.linalg.norm(rests, axis=1)))
    if not 0.5 < magnitude < 1.5:
        raise Refused(f"its rests have a magnitude of {magnitude:.2f} g: that is no accelerometer at rest.")
    up = np.median(rests, axis=0)
    up /= np.linalg.norm(up)
    left, right = _across(up)
    along, along_sd, where = _step(rests @ up, warm)
    sides = [_step(rests @ axis, warm) for axis in (left, right)]
    across = float(np.hypot(sides[0][0], sides[1][0]))
    across_sd = float(np.hypot(sides[0][1], sides[1][1]))
    # The median direction lies between the two of a tilt; the change of |a| does not depend on it.
    length, length_sd, where_length = _step(np.linalg.norm(rests, axis=1), warm)
    if abs(length) < abs(along):
        along, along_sd, where = length, length_sd, where_length
    drifted = abs(along) > drift_g and abs(along) > SIGMAS * along_sd
    tilted = across > tilt_g and across > SIGMAS * across_sd
    verdict = {
        (False, False): "steady",
        (True, False): "drift",
        (False, True): "offset or tilt",
        (True, True): "drift, and offset or tilt",
    }[drifted, tilted]
    at = where if drifted or not tilted else max(sides)[2]
    slope = np.polyfit(warm, rests, 1)[0] if warm.any() else np.zeros(3)
    return DeviceDrift(device, len(rests), along, along_sd, across, across_sd, float(time[min(at, len(time) - 1)]), slope, verdict)


def _across(up: Array) -> tuple[Array, Array]:
    """Two unit vectors that make a right-handed set with `up`."""
    first = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    first /= np.linalg.norm(first)
    return first, np.cross(up, first)


def fleet(
    devices: Mapping[str, tuple[Array, Array, Array]] | Iterable[tuple[str, tuple[Array, Array, Array]]],
) -> list[DeviceDrift]:
    """Judge each device; one that cannot be judged is reported as such and stops nothing."""
    pairs = devices.items() if isinstance(devices, Mapping) else devices
    out = []
    for device, (time_s, temperature_c, rests_g) in pairs:
        try:
            arrays = [np.asarray(part, float) for part in (time_s, temperature_c, rests_g)]
            out.append(device_drift(device, *arrays))
        except (Refused, ValueError, TypeError, FloatingPointError, np.linalg.LinAlgError) as error:
            nan = float("nan")
            out.append(DeviceDrift(device, 0, nan, nan, nan, nan, nan, np.full(3, nan), "unusable", str(error)))
    return out
