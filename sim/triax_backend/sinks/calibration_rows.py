"""Calibrations of triax.config.v1 as rows: the numbers that the views use, beside the document and the bytes as they were pushed.

A calibration comes again whenever the bridge connects, since the broker retains it: one that is in force already is no new row.
"""

import json
from datetime import datetime
from typing import Any

import numpy as np
from triax_proto import calibration as container
from triax_proto import names

from triax_backend.frames import Record
from triax_backend.sinks.message_rows import signed

__all__ = ["PUT", "calibration", "concerns"]

_KIND = "/calibration"
_ORDER = 3  # of triax_terms in 006_calibrations.sql
_TYPES = {
    "hash": "bytea",
    "part": "text",
    "sensor_serial": "text",
    "scale_g": "real",
    "expires": "timestamptz",
    "offset_count": "float8[]",
    "matrix": "float8[]",
    "sensitivity": "float8[]",
    "reference_c": "float8",
    "low_c": "float8",
    "high_c": "float8",
    "offset_terms": "float8[]",
    "gain_terms": "float8[]",
    "document": "jsonb",
    "blob": "bytea",
}
# `since` is the date of the document. Not later than the row before: an older one is pushed again, and counts from now on.
PUT = f"""
INSERT INTO calibrations (device, since, received, {", ".join(_TYPES)})
SELECT %(device)s, CASE WHEN before.since >= made THEN greatest(arrived, before.since) ELSE made END, arrived,
       {", ".join(f"%({name})s::{kind}" for name, kind in _TYPES.items())}
FROM (SELECT triax_utc(%(received)s) AS arrived, least(%(created)s::timestamptz, triax_utc(%(received)s)) AS made) given
LEFT JOIN LATERAL (SELECT since, hash FROM calibrations WHERE device = %(device)s ORDER BY since DESC LIMIT 1) before ON true
WHERE before.hash IS DISTINCT FROM %(hash)s::bytea
ON CONFLICT (device, since) DO UPDATE SET received = excluded.received, {", ".join(f"{name} = excluded.{name}" for name in _TYPES)}
"""


def concerns(record: Record) -> bool:
    """Whether a record of triax.config.v1 is a calibration that is to stay, or the withdrawal of one."""
    return (record.key or b"").endswith(_KIND.encode())


def calibration(record: Record) -> dict[str, Any]:
    """Values of PUT. Raises ValueError: a damaged container, a document that is incomplete or of another device."""
    text = (record.key or b"").decode(errors="replace").removesuffix(_KIND)
    values: dict[str, Any] = dict.fromkeys(_TYPES)
    values |= {"device": signed(names.device_id(text)), "received": record.received_us, "created": None}
    if not record.value:
        return values
    content = json.loads(container.document(record.value), parse_constant=_no_number)
    try:
        sensor, found = content["sensor"], _numbers(content)
        owner = sensor["device"]
        times = {name: datetime.fromisoformat(content[name]) for name in ("created", "expires")}
        values |= {"part": str(sensor["part"]), "sensor_serial": str(sensor["sensor_serial"]), "scale_g": float(sensor["scale_g"])}
    except (KeyError, TypeError, AttributeError, np.linalg.LinAlgError) as error:
        raise ValueError(f"the calibration's document is incomplete ({error!r})") from None
    if owner and owner != text:
        raise ValueError(f"a calibration of device {owner}, pushed to {text}")
    if not 0 < np.float32(values["scale_g"]) < np.inf:
        raise ValueError(f"the calibration's scale is {values['scale_g']!r} g a count")
    values |= found | times
    document = json.dumps(content)
    if "\\u0000" in document:
        raise ValueError("the calibration's document holds a NUL")
    return values | {"hash": container.digest(record.value), "document": document, "blob": record.value}


def _no_number(text: str) -> float:
    raise ValueError(f"the calibration's document holds {text}")


def _numbers(content: dict[str, Any]) -> dict[str, Any]:
    """The columns of numbers. Raises KeyError, TypeError, ValueError, LinAlgError."""
    matrix = np.array(content["model"]["matrix_g_per_count"], float)
    offset = np.array(content["model"]["offset_count"], float)
    if matrix.shape != (3, 3) or offset.shape != (3,):
        raise ValueError(f"the calibration's matrix has shape {matrix.shape}, its offset {offset.shape}: want (3, 3) and (3,)")
    terms = content.get("temperature") or {"offset_count": [], "gain_relative": []}
    polynomials = [np.array(terms[name], float).reshape(-1, 3) for name in ("offset_count", "gain_relative")]
    if max(map(len, polynomials)) > _ORDER:
        raise ValueError(f"the calibration has temperature terms of order {max(map(len, polynomials))}: the views know {_ORDER}")
    range_c = {name: float(terms[name]) if name in terms else None for name in ("reference_c", "low_c", "high_c")}
    arrays = (offset, matrix, np.linalg.norm(np.linalg.inv(matrix), axis=1), *polynomials)
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("the calibration's numbers are not finite")
    named = ("offset_count", "matrix", "sensitivity", "offset_terms", "gain_terms")
    return {name: array.ravel().tolist() for name, array in zip(named, arrays, strict=True)} | range_c
