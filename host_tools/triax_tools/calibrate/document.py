"""The calibration file: JSON with identity, units, nine numbers and their covariance, temperature terms, gates, expiry, and a CRC.

Counts become g by  a = U ((m - b - b(T)) / (1 + k(T)))  as apply.py does it; U in g per count, b in counts.
`crc32` is over the canonical form (sorted keys, no spaces) without itself, so a file that was edited by hand is seen.
"""

import json
import math
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from triax_tools.calibrate.errors import BadDocument
from triax_tools.calibrate.fit import Fit
from triax_tools.calibrate.model import INTRINSIC_NAMES, Array, Model
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.rotation import CaseRotation
from triax_tools.calibrate.temperature import Temperature, none

__all__ = ["SCHEMA", "Gate", "Document", "build", "canonical", "dump", "parse", "tool_version", "with_temperature"]

SCHEMA = "triax-calibration/1"
VALID_DAYS = 365  # a year: what accelerometers are recalibrated at (TEDS' usual period)
_UNITS = ("count/g",) * 3 + ("count",) * 3 + ("rad",) * 3
_SCALE_TOLERANCE = 0.005  # ranges of a part are factors of two apart; a nominal scale is written with three digits


@dataclass(frozen=True)
class Gate:
    """One thing that was checked: `value` against `limit`, both in `unit`."""

    name: str
    value: float
    limit: float
    unit: str
    passed: bool
    note: str = ""


@dataclass(frozen=True)
class Document:
    """A calibration as it is stored. `content` is the JSON object without `crc32`."""

    content: dict[str, Any]

    @property
    def identity(self) -> Identity:
        """Which sensor it was made for."""
        return Identity(**self.content["sensor"])

    @property
    def model(self) -> Model:
        """U (g per count) and b (counts)."""
        model = self.content["model"]
        return Model(np.array(model["matrix_g_per_count"], float), np.array(model["offset_count"], float))

    @property
    def intrinsic(self) -> Array:
        """Nine numbers in the order of INTRINSIC_NAMES."""
        return np.array([self.content["intrinsic"][name]["value"] for name in INTRINSIC_NAMES])

    @property
    def covariance(self) -> Array:
        """Of the nine numbers, (9, 9), from the lower triangle that the file holds."""
        held = np.array(self.content["covariance_lower"], float)
        low = np.zeros((9, 9))
        low[np.tril_indices(9)] = held.reshape(45)
        return low + np.tril(low, -1).T

    @property
    def dof(self) -> int:
        """Degrees of freedom of the residual that the covariance came from."""
        return int(self.content["fit"]["degrees_of_freedom"])

    @property
    def temperature(self) -> Temperature:
        """Terms and the range they hold in; without terms any temperature is inside."""
        held = self.content.get("temperature")
        if held is None:
            return none()
        shape = (-1, 3)
        return Temperature(
            held["reference_c"],
            held["low_c"],
            held["high_c"],
            np.array(held["offset_count"], float).reshape(shape),
            np.array(held["gain_relative"], float).reshape(shape),
        )

    @property
    def rotation(self) -> Array | None:
        """R (3, 3) from the sensor to the case, if it was measured."""
        held = self.content.get("case_rotation")
        return np.array(held["matrix"], float) if held else None

    @property
    def expires(self) -> datetime:
        """UTC."""
        return datetime.fromisoformat(self.content["expires"])

    @property
    def passed(self) -> bool:
        """Did all gates pass when it was made?"""
        return all(gate["passed"] for gate in self.content["gates"])

    def check(self, sensor: Identity, now: datetime, *, allow_expired: bool = False) -> None:
        """Raise BadDocument unless it may be used for `sensor` at `now` (fields of the sensor that are not known are not held)."""
        own = self.identity
        if sensor.device and own.device and sensor.device != own.device:
            raise BadDocument(f"This calibration is of device {own.device}, not of {sensor.device}.")
        if sensor.part and own.part and sensor.part != own.part:
            raise BadDocument(f"This calibration is of a part {own.part}; the sensor is a {sensor.part}.")
        if sensor.sensor_serial and own.sensor_serial and sensor.sensor_serial != own.sensor_serial:
            raise BadDocument(
                f"This calibration is of the sensor with serial {own.sensor_serial}; the one here is {sensor.sensor_serial}. "
                "Calibrate the new sensor."
            )
        if sensor.scale_g and own.scale_g and abs(sensor.scale_g / own.scale_g - 1) > _SCALE_TOLERANCE:
            raise BadDocument(
                f"This calibration is of full scale +-{own.range_g:g} g ({own.scale_g * 1e3:.4g} mg a count); the sensor runs at "
                f"{sensor.scale_g * 1e3:.4g} mg a count. Set the range it was calibrated in, or calibrate this one."
            )
        if now > self.expires and not allow_expired:
            raise BadDocument(f"This calibration expired on {self.expires:%Y-%m-%d}. Calibrate again.")


def tool_version() -> str:
    """Version of this tool as installed."""
    try:
        return version("triax")
    except PackageNotFoundError:
        return "unknown"


def build(
    result: Fit,
    sensor: Identity,
    created: datetime,
    gates: list[Gate],
    data_sha256: str,
    *,
    temperature: Temperature | None = None,
    rotation: CaseRotation | None = None,
    offset_extra: Array | None = None,
    mean_temperature_c: float = math.nan,
    valid_days: int = VALID_DAYS,
) -> Document:
    """A document of a fit. `offset_extra`: counts that undithered means add to the error of each offset."""
    numbers = _numbers(result, np.zeros(3) if offset_extra is None else offset_extra)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": f"triax {tool_version()}",
        "created": created.astimezone(UTC).isoformat(timespec="seconds"),
        "expires": (created.astimezone(UTC) + timedelta(days=valid_days)).isoformat(timespec="seconds"),
        "sensor": dict(sensor.__dict__),
        "model": {
            "equation": "a = U (m - b), a in g of 9.80665 m/s2, m in raw counts",
            "matrix_g_per_count": result.model.matrix.tolist(),
            "offset_count": result.model.offset.tolist(),
        },
        "intrinsic": numbers,
        "covariance_lower": [_digits(v, 4) for v in result.covariance[np.tril_indices(9)]],
        "fit": {
            "poses": len(result.means),
            "degrees_of_freedom": result.dof,
            "residual_rms_local_g": _digits(result.rms_g, 6),
            "pose_sigma_local_g": _digits(result.sigma_g, 6),
            "condition": _digits(result.condition, 6),
            "mean_temperature_c": None if math.isnan(mean_temperature_c) else round(mean_temperature_c, 2),
        },
        "gravity": {"m_s2": result.gravity.m_s2, "sd_ppm": result.gravity.sd_ppm, "source": result.gravity.source},
        "temperature": None if temperature is None else temperature_content(temperature),
        "case_rotation": _rotation(rotation),
        "gates": [{**gate.__dict__, "value": _digits(gate.value, 6)} for gate in gates],
        "data_sha256": data_sha256,
    }
    # Through JSON and back: what is in memory is what a reader of the file will have.
    return Document(json.loads(canonical(content)))


def with_temperature(base: Document, terms: Temperature) -> Document:
    """A calibration with terms from a ramp: its offset, true at the temperature it was captured at, moved to the terms' reference.

    Raises BadDocument if it does not say at what temperature it was captured.
    """
    captured = base.content["fit"]["mean_temperature_c"]
    if captured is None:
        raise BadDocument(
            "The base calibration does not say how warm it was captured: use captures at several temperatures instead."
        )
    inside, outside = terms.clamp(np.array([captured]))
    if outside.any():
        raise BadDocument(
            f"The base calibration was captured at {captured:.1f} C, outside the ramp's {terms.low_c:.1f} to {terms.high_c:.1f} C: "
            "its offset there says nothing of the ramp. Let the ramp begin cooler or end warmer."
        )
    change, _ = terms.terms(inside)
    content = json.loads(canonical(base.content))
    offset = base.model.offset - change[0]
    content["model"]["offset_count"] = offset.tolist()
    for k, name in enumerate(INTRINSIC_NAMES[3:6]):
        content["intrinsic"][name]["value"] = float(offset[k])
    content["fit"]["mean_temperature_c"] = terms.reference_c
    content["temperature"] = temperature_content(terms)
    return Document(json.loads(canonical(content)))


def _digits(value: float, digits: int) -> float:
    """Significant digits: nobody knows an error bar to a part in a thousand, and the file must fit into the node's 4 KiB."""
    return float(f"{value:.{digits}g}")


def temperature_content(terms: Temperature) -> dict[str, Any]:
    """Terms as the file holds them."""
    return {
        "reference_c": terms.reference_c,
        "low_c": terms.low_c,
        "high_c": terms.high_c,
        "offset_count": terms.offset.tolist(),
        "gain_relative": terms.gain.tolist(),
    }


def _numbers(result: Fit, extra: Array) -> dict[str, dict[str, Any]]:
    """The nine numbers with their errors: of the residuals, of gravity (in the sensitivities), of rounding (in the offsets)."""
    sd, interval = result.standard_error, result.interval(0.95)
    gravity_part = np.r_[result.intrinsic[:3] * result.gravity.sd_ppm * 1e-6, np.zeros(6)]
    numbers = {}
    for k, name in enumerate(INTRINSIC_NAMES):
        added = extra[k - 3] if 3 <= k < 6 else 0.0
        numbers[name] = {
            "value": float(result.intrinsic[k]),
            "unit": _UNITS[k],
            "standard_error": _digits(math.hypot(sd[k], gravity_part[k]) + added, 4),
            "interval_95": _digits(math.hypot(interval[k], 1.96 * gravity_part[k]) + added, 4),
        }
    return numbers


def _rotation(turn: CaseRotation | None) -> dict[str, Any] | None:
    if turn is None:
        return None
    return {
        "matrix": turn.matrix.tolist(),
        "angle_deg": _digits(turn.angle_deg, 6),
        "sd_deg": [_digits(v, 4) for v in turn.sd_deg],
        "faces": list(turn.faces),
    }


def canonical(content: dict[str, Any]) -> bytes:
    """The one form of a content: sorted keys, no spaces, shortest digits that give the same doubles; never NaN."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def dump(document: Document) -> str:
    """The file's text, indented for reading, with its CRC."""
    content = {**document.content, "crc32": zlib.crc32(canonical(document.content))}
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def parse(text: str | bytes, name: str = "calibration") -> Document:
    """A document from a file's text. Raises BadDocument: empty, no JSON, another schema, NaN, changed, or incomplete."""

    def refuse(constant: str) -> float:
        raise BadDocument(f"{name}: holds {constant}: a calibration has numbers only. Fit again.")

    if not text.strip():
        raise BadDocument(f"{name}: the file is empty.")
    try:
        content = json.loads(text, parse_constant=refuse)
    except (ValueError, UnicodeDecodeError) as error:
        raise BadDocument(f"{name}: is no JSON ({error}): the file is damaged or no calibration.") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise BadDocument(f"{name}: schema is {found!r}, this tool reads {SCHEMA!r}.")
    crc = content.pop("crc32", None)
    if crc != zlib.crc32(canonical(content)):
        raise BadDocument(
            f"{name}: the checksum does not match: a byte was changed since it was written. Take the original or fit again."
        )
    document = Document(content)
    _complete(document, name)
    return document


def _complete(document: Document, name: str) -> None:
    """Touch everything that a reader will use; what is missing or of the wrong shape is said now."""
    try:
        shapes = (
            document.model.matrix.shape == (3, 3)
            and document.model.offset.shape == (3,)
            and document.covariance.shape == (9, 9)
            and document.intrinsic.shape == (9,)
        )
        finite = bool(np.isfinite(document.model.matrix).all() and np.isfinite(document.model.offset).all())
        _ = (document.identity, document.temperature, document.rotation, document.expires, document.dof, document.passed)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadDocument(f"{name}: is incomplete ({error!r}). Fit again.") from None
    if not (shapes and finite):
        raise BadDocument(f"{name}: its matrix or offset has the wrong shape or is not finite. Fit again.")
