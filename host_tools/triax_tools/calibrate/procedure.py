"""From a recording to a calibration or a verdict: rests, fit, gates, warnings. No files, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate import fit as fitting
from triax_tools.calibrate import rest
from triax_tools.calibrate.document import Document, Gate
from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.fit import Fit
from triax_tools.calibrate.gravity import Gravity
from triax_tools.calibrate.model import Array, intrinsic_jacobian, pack
from triax_tools.calibrate.pose import CELLS, NAMES, cell_of, missing, names
from triax_tools.calibrate.recording import Recording
from triax_tools.calibrate.rotation import CaseRotation, case_rotation

__all__ = ["LIMITS", "Calibration", "Check", "Rests", "calibrate", "case_of", "check", "find_rests"]

# What a fit must reach to be written without --force: ten times worse than 18 hand poses of a 300 ug/rtHz part give.
LIMITS = {"offset": 1e-3, "scale": 1000e-6, "angle": 2e-3, "left out": 1e-3}
CHECK_LIMIT_G = 1e-3
_TEMPERATURE_SPAN_C = 3.0  # 1 mg/C is what parts drift by: a wider capture mixes temperature into the residuals
_SCALE_WARN = 0.10  # nominal against fitted: beyond, the range or the scale is another one than believed
_ROUGH = 2.0  # scatter of the poses over what the noise of the rests predicts


@dataclass(frozen=True)
class Rests:
    """Rests of a recording, and the still stretches that are none."""

    kept: tuple[rest.Rest, ...]
    rejected: tuple[rest.Rejected, ...]
    sigma_raw: Array  # counts (3,), of a raw sample at rest

    @property
    def means(self) -> Array:
        """(n, 3) counts."""
        return np.array([r.mean for r in self.kept]).reshape(-1, 3)


def find_rests(recording: Recording) -> Rests:
    """The rests that the guide accepted, or, without marks, those that the detector finds."""
    scale = recording.identity.scale_g
    found: list[rest.Rest | rest.Rejected] = []
    if recording.marks:
        for mark in recording.marks:
            part = recording.counts[mark.start : mark.stop]
            moved, _ = rest.half_test(part * scale, recording.rate_hz)
            duration = len(part) / recording.rate_hz
            found.append(rest.Rest(mark.start, mark.stop, part.mean(axis=0), part.std(axis=0, ddof=1), moved, duration))
    else:
        spans = rest.find(recording.values_g, recording.rate_hz, starts=recording.starts, lsb_g=scale)
        found = [rest.measure(recording.counts, span, recording.rate_hz, scale) for span in spans]
    kept = tuple(r for r in found if isinstance(r, rest.Rest))
    return Rests(kept, tuple(r for r in found if isinstance(r, rest.Rejected)), _raw_sigma(recording, kept))


def _raw_sigma(recording: Recording, kept: Sequence[rest.Rest]) -> Array:
    """Noise of one raw sample before rounding, counts: mean variance of the rests less a twelfth for rounding."""
    if not kept:
        return np.full(3, np.nan)
    if recording.raw_sigma is None:
        variances = np.array([r.sigma**2 for r in kept])
    else:
        variances = np.array([np.nanmean(recording.raw_sigma[r.start : r.stop] ** 2, axis=0) for r in kept])
    return np.asarray(np.sqrt(np.maximum(np.nanmean(variances, axis=0) - 1 / 12, 0)))


@dataclass(frozen=True)
class Calibration:
    """A fit of a recording, what was checked, and what to know about it."""

    rests: Rests
    fit: Fit
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...]
    left_out_g: Array
    six_g: Array
    offset_extra: Array  # counts, for undithered means
    mean_temperature_c: float

    @property
    def passed(self) -> bool:
        """All gates."""
        return all(gate.passed for gate in self.gates)

    @property
    def directions(self) -> Array:
        """Upward direction of each pose, unit length."""
        a = self.fit.model.apply(self.rests.means)
        return np.asarray(a / np.linalg.norm(a, axis=1)[:, None])

    @property
    def pose_names(self) -> list[str]:
        """Nearest cell of each pose."""
        return [NAMES[cell_of(d)[0]] for d in self.directions]


def calibrate(recording: Recording, gravity: Gravity) -> Calibration:
    """Fit the rests of a recording. Raises Refused with the reasons and what is missing."""
    rests = find_rests(recording)
    if not rests.kept:
        raise Refused(_no_rest(rests))
    try:
        result = fitting.fit(rests.means, gravity)
    except Refused as refusal:
        raise Refused(*refusal.reasons, *_of_rejected(rests)) from None
    weak, extra = rest.undithered(rests.sigma_raw)
    left_out = fitting.leave_one_out_g(rests.means)
    celsius = recording.temperature_c
    return Calibration(
        rests=rests,
        fit=result,
        gates=gates(result, recording.identity.scale_g, extra, left_out),
        warnings=tuple(_warnings(recording, rests, result, weak, extra)),
        left_out_g=left_out,
        six_g=fitting.ablation_g(rests.means),
        offset_extra=extra,
        mean_temperature_c=float(np.nanmean(celsius)) if np.isfinite(celsius).any() else float("nan"),
    )


def _no_rest(rests: Rests) -> str:
    if rests.rejected:
        return f"No rest could be used: {len(rests.rejected)} still stretches, the first was {rests.rejected[0].reason}."
    return "No second of this recording is still: lay the sensor down, let go, and hold each pose for 10 s."


def _of_rejected(rests: Rests) -> list[str]:
    if not rests.rejected:
        return []
    reasons = "; ".join(sorted({r.reason.split(":")[0] for r in rests.rejected})[:3])
    return [f"{len(rests.rejected)} more still stretches were not used ({reasons})."]


def gates(result: Fit, scale_g: float, extra: Array, left_out: Array) -> tuple[Gate, ...]:
    """What a fit has to keep to be a calibration. `extra`: counts that rounding adds to each offset's error; `left_out`: g."""
    half = result.interval(0.95)
    offset = float(np.max(half[3:6] + extra)) * scale_g
    scale = float(np.max(half[:3] / result.intrinsic[:3]))
    angle = float(np.max(half[6:]))
    worst = float(np.max(np.abs(left_out)))
    dof = f"Student's t with {result.dof} degrees of freedom"
    return (
        Gate("offset, 95 % interval", offset * 1e6, LIMITS["offset"] * 1e6, "ug", offset <= LIMITS["offset"], dof),
        Gate("scale, 95 % interval", scale * 1e6, LIMITS["scale"] * 1e6, "ppm", scale <= LIMITS["scale"], dof),
        Gate("axis angle, 95 % interval", angle * 1e6, LIMITS["angle"] * 1e6, "urad", angle <= LIMITS["angle"], dof),
        Gate("worst pose, predicted from the others", worst * 1e6, LIMITS["left out"] * 1e6, "ug", worst <= LIMITS["left out"]),
    )


def _warnings(recording: Recording, rests: Rests, result: Fit, weak_axes: list[int], extra: Array) -> list[str]:
    scale = recording.identity.scale_g
    out = []
    weak = fitting.weak_parameters(result)
    if result.condition > fitting.CONDITION_WARN or weak:
        named = ", ".join(weak) or "none twice as uncertain as it could be"
        absent = missing(result.model.apply(rests.means))
        hint = f" Poses not seen: {names(absent)}." if absent else ""
        out.append(f"The pose set has condition {result.condition:.0f}; 18 poses have 6. Weak: {named}.{hint}")
    for axis in weak_axes:
        out.append(
            f"Axis {'xyz'[axis]} is undithered ({rests.sigma_raw[axis]:.2f} counts of noise): rounding adds "
            f"{extra[axis] * scale * 1e6:.0f} ug to the error of its offset. Use a smaller range or a higher rate."
        )
    celsius = recording.temperature_c
    if np.isfinite(celsius).any() and np.nanmax(celsius) - np.nanmin(celsius) > _TEMPERATURE_SPAN_C:
        span = np.nanmax(celsius) - np.nanmin(celsius)
        out.append(f"The temperature changed by {span:.1f} C during the capture: let the unit settle, or run `temp`.")
    ratio = result.intrinsic[:3] * scale
    if np.max(np.abs(ratio - 1)) > _SCALE_WARN:
        out.append(
            f"Sensitivity is {ratio.min():.3f} to {ratio.max():.3f} of nominal: the range or the scale is another one than the "
            "file says."
        )
    white = float(np.sqrt(np.mean([np.sum(r.sigma**2) / 3 / (r.duration_s * recording.rate_hz) for r in rests.kept]))) * scale
    if white > 0 and result.sigma_g > _ROUGH * white:
        out.append(
            f"Poses scatter by {result.sigma_g * 1e6:.0f} ug where the noise at rest predicts {white * 1e6:.0f} ug: something "
            "moves or drifts between poses. The stated errors include it."
        )
    if recording.lost_samples:
        out.append(f"{recording.lost_samples} samples were lost during the recording; no rest spans a loss.")
    return out


def case_of(calibration: Calibration, faces: dict[str, str]) -> CaseRotation:
    """R from rests with named faces of the case up. `faces`: case face -> cell of the sensor, {"+Z": "+Z", "+X": "-Y"}."""
    ups, wanted, used = [], [], []
    where = calibration.pose_names
    accelerations = calibration.fit.model.apply(calibration.rests.means)
    for face, cell in faces.items():
        chosen = [k for k, name in enumerate(where) if name == cell]
        if not chosen:
            raise Refused(f"No rest has {cell} of the sensor up, which case face {face} was said to be. Rests: {', '.join(where)}.")
        ups.append(accelerations[chosen].mean(axis=0))
        wanted.append(CELLS[NAMES.index(face)])
        used.append(face)
    return case_rotation(np.array(ups), np.array(wanted), tuple(used))


@dataclass(frozen=True)
class Check:
    """Held-out data against a calibration: |a| - 1 of each rest in local g, and how likely that is if nothing changed."""

    rests: Rests
    residual_g: Array
    expected_g: Array  # standard deviation that the calibration predicts for each
    probability: float
    gates: tuple[Gate, ...]
    directions: Array

    @property
    def passed(self) -> bool:
        """All gates."""
        return all(gate.passed for gate in self.gates)


def check(document: Document, recording: Recording, gravity: Gravity | None = None, limit_g: float = CHECK_LIMIT_G) -> Check:
    """Rests of other data under a calibration. `gravity`: where these were recorded, None: where the calibration was made."""
    from triax_tools.calibrate.apply import calibrate_counts

    rests = find_rests(recording)
    if not rests.kept:
        raise Refused(_no_rest(rests))
    celsius = [recording.temperature_c[r.start : r.stop] for r in rests.kept]
    warm = np.array([np.nanmean(c) if np.isfinite(c).any() else np.nan for c in celsius])
    a, _ = calibrate_counts(document, rests.means, warm)
    local = (gravity.m_s2 if gravity else document.content["gravity"]["m_s2"]) / 9.80665
    length = np.linalg.norm(a, axis=1)
    residual = length / local - 1
    sigma = float(document.content["fit"]["pose_sigma_local_g"])
    expected = np.sqrt(sigma**2 + _prediction_variance(document, rests.means))
    statistic = float(np.mean((residual / expected) ** 2))
    probability = float(scipy.stats.f.sf(statistic, len(residual), document.dof))
    rms, worst = float(np.sqrt(np.mean(residual**2))), float(np.max(np.abs(residual)))
    note = f"{len(residual)} rests, {len(residual)} degrees of freedom"
    gates = (
        Gate("| |a| - 1 |, rms", rms * 1e6, limit_g * 1e6, "ug", rms <= limit_g, note),
        Gate("| |a| - 1 |, worst rest", worst * 1e6, 2 * limit_g * 1e6, "ug", worst <= 2 * limit_g),
    )
    return Check(rests, residual, expected, probability, gates, a / length[:, None])


def _prediction_variance(document: Document, means: Array) -> Array:
    """Variance of |a| (g^2) that the calibration's own uncertainty gives at each mean."""
    model = document.model
    change = intrinsic_jacobian(pack(model))
    theta = np.linalg.solve(change, np.linalg.solve(change, document.covariance).T).T  # of the nine fitted parameters
    shifted = means - model.offset
    unit = model.apply(means)
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    rows, columns = np.triu_indices(3)
    jacobian = np.hstack([unit[:, rows] * shifted[:, columns], -unit @ model.matrix])
    return np.asarray(np.maximum(np.einsum("ij,jk,ik->i", jacobian, theta, jacobian), 0))
