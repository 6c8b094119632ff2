"""Nine intrinsic parameters from rests of |a| = local g, with the error that the data itself shows.

Start: the algebraic ellipsoid through the pose means. Answer: nonlinear least squares on |U(m - b)| - 1. How the human placed the
sensor never enters. The covariance comes from the residuals (pose means scatter by more than white noise), with Student's t for
n - 9 degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.gravity import Gravity
from triax_tools.calibrate.model import STANDARD_G, Array, Model, intrinsic, intrinsic_jacobian, pack, unpack
from triax_tools.calibrate.pose import CELLS, design, design_condition, missing, names

__all__ = ["CONDITION_WARN", "Fit", "ablation_g", "fit", "leave_one_out_g", "refusals", "weak_parameters"]

PARAMETERS = 9
# Three poses more than unknowns: with t(3) the 95 % interval is 1.6 times the normal's; with fewer the error bar itself is a guess.
MIN_POSES = 12
SAME_DEG = 5.0  # rests nearer than this are one pose
CONDITION_WARN = 50.0  # good pose sets are <= 12 (calibration.md 1.4)
# Worst standard error per unit sigma of a pose mean that is still called a calibration. 18 poses give 1.0, the Xsens operator's 38
# repeated ones 4.2; from 8 on, a parameter is told by a handful of near-equal poses and follows whichever of them drifted.
WEAKNESS_LIMIT = 8.0
SPAN_LIMIT = 0.5  # g: each axis must have been seen beyond this on both sides, else its gain and offset are one number
FLAT_LIMIT = 0.3  # of the largest span, before anything is fitted: sensitivities differ by 10 % at most
_DESIGN_NAMES = ("scale_x", "mis_yz", "mis_zy", "scale_y", "mis_zx", "scale_z", "offset_x", "offset_y", "offset_z")


@dataclass(frozen=True)
class Fit:
    """A fitted model and how far to trust it. g is standard g; residuals are in local g."""

    model: Model
    covariance: Array  # (9, 9) of `intrinsic(model)`, from the residuals, without the uncertainty of gravity
    residual_g: Array  # (n,) |a| - 1, local g
    dof: int
    condition: float
    gravity: Gravity
    means: Array  # (n, 3) counts
    weakness: Array  # (9,) standard error per unit sigma of a pose mean, canonical parameters

    @property
    def sigma_g(self) -> float:
        """Standard deviation of a pose mean as the residuals show it, local g."""
        return float(np.sqrt(self.residual_g @ self.residual_g / self.dof))

    @property
    def rms_g(self) -> float:
        """Root mean square of the residuals, local g; never quote it without `dof`."""
        return float(np.sqrt(np.mean(self.residual_g**2)))

    @property
    def intrinsic(self) -> Array:
        """Nine numbers: counts per standard g, counts, rad."""
        return intrinsic(self.model)

    @property
    def standard_error(self) -> Array:
        """Of each intrinsic number, from the residuals."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    def interval(self, level: float = 0.95) -> Array:
        """Half width of each intrinsic number's interval: Student's t with `dof` degrees of freedom."""
        return np.asarray(scipy.stats.t.ppf(0.5 + level / 2, self.dof) * self.standard_error)


def _ellipsoid(points: Array) -> Array:
    """Start of the iteration: the quadric through points near the unit sphere, as theta. Raises Refused if it is no ellipsoid."""
    x, y, z = points.T
    columns = np.c_[x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z, 2 * x, 2 * y, 2 * z]
    q, *_ = np.linalg.lstsq(columns, np.ones(len(points)), rcond=None)
    shape = np.array([[q[0], q[3], q[4]], [q[3], q[1], q[5]], [q[4], q[5], q[2]]])
    center = -np.linalg.lstsq(shape, q[6:], rcond=None)[0]
    level = 1 + center @ shape @ center
    try:
        matrix = np.linalg.cholesky(shape / level).T
    except np.linalg.LinAlgError:
        return pack(Model(np.eye(3), np.zeros(3)))  # noise made it a hyperboloid: a sphere is a start as good
    return pack(Model(matrix, center))


def _magnitude(theta: Array, points: Array) -> tuple[Array, Array]:
    """|U(m - b)| and its Jacobian (n, 9)."""
    model = unpack(theta)
    shifted = points - model.offset
    a = shifted @ model.matrix.T
    length = np.linalg.norm(a, axis=1)
    unit = a / length[:, None]
    rows, columns = np.triu_indices(3)
    return length, np.hstack([unit[:, rows] * shifted[:, columns], -unit @ model.matrix])


def _normalise(means: Array) -> tuple[Array, Array, float]:
    """Points near the unit sphere, and the centre and scale that bring them back."""
    center = (means.max(axis=0) + means.min(axis=0)) / 2
    scale = float(np.sqrt(np.mean(np.sum((means - center) ** 2, axis=1))))
    return (means - center) / scale, center, scale


def _solve(points: Array, free: Array, start: Array) -> Array:
    """Least squares of |U(m - b)| = 1 over the parameters where `free`."""

    def residual(part: Array) -> Array:
        theta = start.copy()
        theta[free] = part
        return _magnitude(theta, points)[0] - 1

    def jacobian(part: Array) -> Array:
        theta = start.copy()
        theta[free] = part
        return _magnitude(theta, points)[1][:, free]

    found = scipy.optimize.least_squares(residual, start[free], jac=jacobian, method="lm", xtol=1e-14, ftol=1e-14, gtol=1e-14)
    theta = start.copy()
    theta[free] = found.x
    return theta


def orientations(directions: Array) -> int:
    """How many of these directions differ by more than `SAME_DEG`: a pose measured twice shows repeatability, nothing else."""
    left = directions / np.linalg.norm(directions, axis=1)[:, None]
    count = 0
    while len(left):
        left = left[left @ left[0] < np.cos(np.radians(SAME_DEG))]
        count += 1
    return count


def refusals(means: Array, directions: Array) -> list[str]:
    """Why a set of poses cannot carry nine parameters; empty if it can. `directions`: their upward directions, any length."""
    absent = missing(directions)
    hint = f"Still missing: {names(absent)}." if absent else "Add rests in other orientations than those there are."
    count = orientations(directions)
    distinct = len(CELLS) - len(absent)
    reasons = []
    if count < MIN_POSES:
        rests = f" ({len(means)} rests)" if count < len(means) else ""
        reasons.append(
            f"{count} pose{'s' if count != 1 else ''}{rests} for {PARAMETERS} parameters: at least {MIN_POSES} are needed before a "
            f"residual says anything. {hint}"
        )
    if count < PARAMETERS:
        return reasons
    reasons += _unseen_sides(directions / np.linalg.norm(directions, axis=1)[:, None], SPAN_LIMIT)
    condition = design_condition(directions)
    if not np.isfinite(condition) and not reasons:
        reasons.append(f"These {count} poses leave at least one parameter free ({distinct} of 18 directions seen). {hint}")
    if np.isfinite(condition):
        weakness = _weakness(directions)
        worst = int(np.argmax(weakness))
        if weakness[worst] > WEAKNESS_LIMIT:
            reasons.append(
                f"The poses are ill-conditioned (condition {condition:.0f}): {_DESIGN_NAMES[worst]} would be uncertain by "
                f"{weakness[worst]:.1f} times the scatter of a pose, where 18 poses give 1.0. {hint}"
            )
    return reasons


def _unseen_sides(unit: Array, limit: float) -> list[str]:
    """A sentence for each half axis that no direction reaches."""
    reasons = []
    for axis in range(3):
        for sign, side in ((1, "+"), (-1, "-")):
            reach = float(np.max(sign * unit[:, axis]))
            if reach < limit:
                reasons.append(
                    f"{side}{'XYZ'[axis]} never pointed up (furthest {max(reach, 0.0):.2f} g): gain and offset of that axis cannot "
                    f"be told apart. Rest the sensor with {side}{'XYZ'[axis]} up."
                )
    return reasons


def _weakness(directions: Array) -> Array:
    matrix = design(directions)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix))))


def weak_parameters(result: Fit) -> list[str]:
    """Names of parameters over twice as uncertain as the 18 poses would make them for as many rests, weakest first."""
    reference = _weakness(CELLS) * np.sqrt(len(CELLS) / len(result.means))
    ratio = result.weakness / reference
    order = np.argsort(-result.weakness)
    return [_DESIGN_NAMES[k] for k in order if ratio[k] > 2]


def fit(means: Array, gravity: Gravity, *, force: bool = False) -> Fit:
    """Fit offset, scale and misalignment to means (n, 3) in counts of rests where |a| is local gravity.

    Raises Refused naming what is missing; `force` fits whatever is not singular (for the ablation of a report, never for a file).
    """
    if not np.isfinite(means).all():
        raise Refused("A pose mean is not a number: the recording holds damaged samples. Record that pose again.")
    if len(means) < PARAMETERS:
        raise Refused(*refusals(means, means))  # too few for a centre: as measured
    points, center, scale = _normalise(means)
    # An axis that hardly moved would let the fit stretch it at will, and the directions with it: seen before, in what was measured.
    if flat := _unseen_sides(points, FLAT_LIMIT):
        raise Refused(f"{len(means)} poses were given.", *flat)
    theta = _solve(points, np.ones(PARAMETERS, bool), _ellipsoid(points))
    directions = unpack(theta).apply(points)
    reasons = refusals(means, directions)
    if reasons and not (force and np.isfinite(design_condition(directions)) and len(means) > PARAMETERS):
        raise Refused(*reasons)
    residual, jacobian = _magnitude(theta, points)
    residual = residual - 1
    dof = len(means) - PARAMETERS
    information = jacobian.T @ jacobian
    # Back to counts and standard g: U = (local / standard) U' / scale, b = center + scale b'.
    ratio = gravity.m_s2 / STANDARD_G
    back = np.r_[np.full(6, ratio / scale), np.full(3, scale)]
    full = theta * back + np.r_[np.zeros(6), center]
    covariance = (residual @ residual / dof) * np.linalg.inv(information) * np.outer(back, back)
    change = intrinsic_jacobian(full)
    return Fit(
        model=unpack(full),
        covariance=change @ covariance @ change.T,
        residual_g=residual,
        dof=dof,
        condition=design_condition(directions),
        gravity=gravity,
        means=means,
        weakness=_weakness(directions),
    )


def ablation_g(means: Array) -> Array:
    """Residuals in local g of the six-parameter fit (offset and scale only): what misalignment is worth on this data."""
    points, _, _ = _normalise(means)
    free = np.array([True, False, False, True, False, True, True, True, True])
    theta = _solve(points, free, pack(Model(np.eye(3), np.zeros(3))))
    return np.asarray(_magnitude(theta, points)[0] - 1)


def leave_one_out_g(means: Array) -> Array:
    """|a| - 1 in local g of each pose, predicted by a fit to all the others."""
    points, _, _ = _normalise(means)
    start = _solve(points, np.ones(PARAMETERS, bool), _ellipsoid(points))
    out = np.empty(len(means))
    for index in range(len(means)):
        theta = _solve(np.delete(points, index, axis=0), np.ones(PARAMETERS, bool), start)
        out[index] = _magnitude(theta, points[index : index + 1])[0][0] - 1
    return out
