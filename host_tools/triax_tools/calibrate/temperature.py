"""Offset and gain against temperature, of the lowest order that an F-test at 1 % asks for.

    m = D(T) S a + b(T)       D = diag(1 + k1 dT + ..), b = b0 + b1 dT + .., dT = T - T0, T clamped to what was measured

A ramp in one pose cannot tell offset from gain on the axis along gravity: they are the same number there, and it says so. Full pose
sets at two temperatures or more separate them.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.fit import Fit, fit
from triax_tools.calibrate.gravity import Gravity
from triax_tools.calibrate.model import STANDARD_G, Array, Model, pack, unpack

__all__ = ["Ramp", "Temperature", "fit_ramp", "fit_temperatures", "none"]

MIN_RISE_C = 10.0
POSE_DEG = 5.0  # more than any offset turns what is measured between -40 and 85 C: 50 mg are 3 deg
F_LEVEL = 0.01
MAX_ORDER = 3
BIN_C = 0.5  # means of this width: a reading of the sensor's thermometer is good to about that
_ALONG_G = 0.2  # an axis that carries more of gravity than this cannot tell offset from gain


@dataclass(frozen=True)
class Temperature:
    """Polynomials in (T - reference): offset in counts (order, 3), gain relative (order, 3); T is clamped to [low, high]."""

    reference_c: float
    low_c: float
    high_c: float
    offset: Array
    gain: Array

    def clamp(self, temperature_c: Array) -> tuple[Array, Array]:
        """Temperatures inside the range, and True where one had to be clamped (NaN: not measured, the reference is taken)."""
        known = np.where(np.isfinite(temperature_c), temperature_c, self.reference_c)
        inside = np.clip(known, self.low_c, self.high_c)
        return inside, (inside != known) | ~np.isfinite(temperature_c)

    def terms(self, temperature_c: Array) -> tuple[Array, Array]:
        """Offset change in counts and relative gain change, (n, 3) each, at temperatures (n,) inside the range."""
        warm = np.asarray(temperature_c, float)[:, None] - self.reference_c
        return _polynomial(self.offset, warm), _polynomial(self.gain, warm)


@dataclass(frozen=True)
class Ramp:
    """Slopes of one pose: counts per C with standard errors at the reference, and what each axis's slope may be called."""

    temperature: Temperature
    slope: Array  # counts / C (3,)
    slope_sd: Array
    meaning: tuple[str, str, str]  # "offset" or "offset or gain"
    bins: int


def none(reference_c: float = 25.0) -> Temperature:
    """No temperature terms, any temperature is inside."""
    return Temperature(reference_c, -np.inf, np.inf, np.zeros((0, 3)), np.zeros((0, 3)))


def _polynomial(coefficients: Array, warm: Array) -> Array:
    total = np.zeros((len(warm), 3))
    for row in coefficients[::-1]:
        total = (total + row) * warm
    return total


def _enough(temperature_c: Array) -> None:
    rise = float(np.ptp(temperature_c)) if len(temperature_c) else 0.0
    if not np.isfinite(temperature_c).all():
        raise Refused("This recording has no temperature: the part or the file does not measure it.")
    if rise < MIN_RISE_C:
        raise Refused(
            f"The temperature rose by {rise:.1f} C: at least {MIN_RISE_C:g} C are needed. Cool the unit first (freezer, bag with "
            "silica gel), then let it warm in a foam box."
        )


def _bins(temperature_c: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Mean temperature, mean counts and number of values of each BIN_C."""
    index = np.floor(temperature_c / BIN_C).astype(int)
    index -= index.min()
    weight = np.bincount(index).astype(float)
    used = weight > 0
    warm = np.bincount(index, temperature_c)[used] / weight[used]
    means = np.array([np.bincount(index, counts[:, axis])[used] / weight[used] for axis in range(3)]).T
    return warm, means, weight[used]


def _one_pose(means_g: Array) -> None:
    """Raise Refused if the unit was turned: offsets that change turn what is measured too, but by less."""
    unit = means_g / np.linalg.norm(means_g, axis=1)[:, None]
    turned = float(np.degrees(np.arccos(np.clip(unit @ unit[0], -1, 1))).max())
    if turned > POSE_DEG:
        raise Refused(
            f"The unit was turned by {turned:.0f} deg during the ramp: it has to lie still in one pose, and captures of all poses "
            "need two or more temperatures, each in a recording of its own."
        )


def fit_ramp(temperature_c: Array, counts: Array, scale_g: float) -> Ramp:
    """Slopes from a slow ramp in one pose: temperatures (n,) and counts (n, 3). Raises Refused under 10 C of rise."""
    _enough(temperature_c)
    warm, means, weight = _bins(temperature_c, counts)
    _one_pose(means * scale_g)
    reference = float((warm.min() + warm.max()) / 2)
    delta = warm - reference
    root = np.sqrt(weight / weight.mean())

    def solve(order: int) -> tuple[Array, float, Array]:
        columns = np.vander(delta, order + 1, increasing=True)
        weights, *_ = np.linalg.lstsq(columns * root[:, None], means * root[:, None], rcond=None)
        rest = (means - columns @ weights) * root[:, None]
        return weights, float(np.sum(rest**2)), np.linalg.inv((columns * root[:, None]).T @ (columns * root[:, None]))

    order, best = 0, solve(0)
    for higher in range(1, MAX_ORDER + 1):
        trial = solve(higher)
        freedom = 3 * (len(warm) - higher - 1)
        if freedom <= 0 or not _better(best[1], trial[1], 3 * (higher - order), freedom):
            continue
        order, best = higher, trial
    weights, _, inverse = best
    freedom = max(1, len(warm) - order - 1)
    columns = np.vander(delta, order + 1, increasing=True)
    sigma = np.sqrt(np.sum(((means - columns @ weights) * root[:, None]) ** 2, axis=0) / freedom)
    slope = weights[1] if order else np.zeros(3)
    slope_sd = sigma * np.sqrt(inverse[1, 1]) if order else sigma / np.sqrt(np.sum(weight / weight.mean() * delta**2))
    up = np.abs(means.mean(axis=0)) * scale_g
    first, second, third = ("offset or gain" if carried > _ALONG_G else "offset" for carried in up)
    temperature = Temperature(reference, float(warm.min()), float(warm.max()), weights[1:], np.zeros((0, 3)))
    return Ramp(temperature, slope, slope_sd, (first, second, third), len(warm))


def _better(before: float, after: float, added: int, freedom: int) -> bool:
    """F-test: do `added` parameters lower the sum of squares by more than chance would in one of a hundred?"""
    if after <= 0:
        return False
    return bool((before - after) / added / (after / freedom) > scipy.stats.f.ppf(1 - F_LEVEL, added, freedom))


def fit_temperatures(
    means: Array, temperature_c: Array, gravity: Gravity, max_order: int | None = None
) -> tuple[Fit, Temperature, dict[str, Array]]:
    """Joint fit of pose means (n, 3) taken at several temperatures (n,), full pose sets at two or more of them.

    Returns the fit at the middle temperature, the terms, and their standard errors {"offset": (p, 3), "gain": (q, 3)}.
    """
    _enough(temperature_c)
    reference = float((temperature_c.min() + temperature_c.max()) / 2)
    delta = temperature_c - reference
    levels = len(np.unique(np.rint(temperature_c / 2)))  # sets closer than 2 C are one temperature
    most = min(MAX_ORDER, levels - 1) if max_order is None else max_order
    base = fit(means, gravity)  # refuses what cannot carry nine parameters; start of the joint fit
    ratio = gravity.m_s2 / STANDARD_G
    center, scale = means.mean(axis=0), float(1 / np.abs(base.model.matrix[0, 0]))
    points = (means - center) / scale
    start = pack(Model(base.model.matrix * scale / ratio, (base.model.offset - center) / scale))

    def solve(p: int, q: int) -> tuple[Array, float, Array, Array]:
        def residual(theta: Array) -> Array:
            warm = delta[:, None] / 10
            offset = _polynomial(theta[9 : 9 + 3 * p].reshape(p, 3), warm)
            gain = _polynomial(theta[9 + 3 * p :].reshape(q, 3), warm)
            model = unpack(theta[:9])
            a = ((points - model.offset - offset) / (1 + gain)) @ model.matrix.T
            return np.asarray(np.linalg.norm(a, axis=1) - 1)

        found = scipy.optimize.least_squares(residual, np.r_[start, np.zeros(3 * (p + q))], method="lm", xtol=1e-13, ftol=1e-13)
        return found.x, float(2 * found.cost), found.jac, np.asarray(found.fun)

    orders, best = (0, 0), solve(0, 0)
    while True:
        grown = None
        for trial in ((orders[0] + 1, orders[1]), (orders[0], orders[1] + 1)):
            freedom = len(means) - 9 - 3 * sum(trial)
            if max(trial) > most or freedom < 3:
                continue
            found = solve(*trial)
            if _better(best[1], found[1], 3, freedom) and (grown is None or found[1] < grown[1][1]):
                grown = (trial, found)
        if grown is None:
            break
        orders, best = grown
    return _joint_result(means, best, orders, reference, temperature_c, center, scale, gravity, base)


def _joint_result(
    means: Array,
    best: tuple[Array, float, Array, Array],
    orders: tuple[int, int],
    reference: float,
    temperature_c: Array,
    center: Array,
    scale: float,
    gravity: Gravity,
    base: Fit,
) -> tuple[Fit, Temperature, dict[str, Array]]:
    theta, squares, jacobian, residual = best
    p, q = orders
    freedom = len(means) - len(theta)
    covariance = squares / freedom * np.linalg.inv(jacobian.T @ jacobian)
    sd = np.sqrt(np.diag(covariance))[9:]
    tens = 10.0 ** -np.arange(1, 1 + max(p, q))[:, None]
    offset = theta[9 : 9 + 3 * p].reshape(p, 3) * tens[:p] * scale
    gain = theta[9 + 3 * p :].reshape(q, 3) * tens[:q]
    errors = {"offset": sd[: 3 * p].reshape(p, 3) * tens[:p] * scale, "gain": sd[3 * p :].reshape(q, 3) * tens[:q]}
    terms = Temperature(reference, float(temperature_c.min()), float(temperature_c.max()), offset, gain)
    # The same poses, taken back to the reference temperature, give the nine numbers and their covariance in the usual form.
    shift, stretch = terms.terms(temperature_c)
    nine = unpack(theta[:9])
    ratio = gravity.m_s2 / STANDARD_G
    model = Model(nine.matrix / scale * ratio, nine.offset * scale + center)
    flat = (means - model.offset - shift) / (1 + stretch) + model.offset
    again = fit(flat, gravity)
    ratio_dof = np.sqrt(again.dof / freedom)  # the terms cost degrees of freedom that the second fit does not know of
    corrected = Fit(again.model, again.covariance * ratio_dof**2, residual, freedom, base.condition, gravity, means, again.weakness)
    return corrected, terms, errors
