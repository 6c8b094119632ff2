"""Calibrations on what `triax_backend.read` gives: the same Arrow table in calibrated g, with flags per row and the hashes used.

table = calibrate_in_force(read(settings, device, start, end), read_calibrations(settings, device).blobs)
table["calibration"], table["calibration_flags"], table.schema.metadata[b"calibration_sha256"]
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from triax_tools.calibrate import compact
from triax_tools.calibrate.apply import calibrate_counts
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.model import Array

__all__ = ["FLAGS", "HASH", "calibrate_in_force", "calibrate_table", "uncalibrated"]

FLAGS, HASH = "calibration_flags", b"calibration_sha256"
_USED = "calibration"
_AXES = ("x_g", "y_g", "z_g")


def calibrate_table(table: pa.Table, document: Document) -> pa.Table:
    """All rows of an uncalibrated table with one calibration, whatever is in force.

    Whether it belongs to the device and full scale is `Document.check`'s to say.
    """
    digest = compact.digest(compact.encode(document)).hex()
    return _apply(_marked(table, [digest]), {digest: document})


def calibrate_in_force(table: pa.Table, blobs: Mapping[str, bytes]) -> pa.Table:
    """Each row with the calibration in force; rows without one stay count x scale. Raises BadDocument.

    x_g, y_g, z_g become calibrated g (9.80665 m/s2, full matrix, temperature terms); `calibration_flags` gains apply.CLAMPED and
    NO_TEMPERATURE_MEASURED; the SHA-256 of what was used stand in the table's metadata.
    """
    used = [digest for digest in table[_USED].unique().to_pylist() if digest is not None]
    return _apply(table, {digest: compact.decode(blobs[digest]) for digest in used})


def uncalibrated(table: pa.Table) -> pa.Table:
    """The table as it is, and no calibration named."""
    return _apply(_marked(table, []), {})


def _marked(table: pa.Table, known: list[str]) -> pa.Table:
    """One calibration, or none, for all rows, no flags."""
    which = pa.array(np.zeros(table.num_rows, np.int32), mask=np.full(table.num_rows, not known))
    table = _set(table, _USED, pa.DictionaryArray.from_arrays(which, pa.array(known, pa.string())))
    return _set(table, FLAGS, pa.array(np.zeros(table.num_rows, np.uint8)))


def _apply(table: pa.Table, documents: Mapping[str, Document]) -> pa.Table:
    values = np.stack([table[name].to_numpy() for name in _AXES], axis=1)
    flags = table[FLAGS].to_numpy().copy()
    scale = table["scale_g"].to_numpy().astype(np.float64)[:, None]
    warm = table["temperature_c"].to_numpy(zero_copy_only=False).astype(np.float64)
    for digest, document in documents.items():
        rows = _equal(table[_USED], digest)
        values[rows], more = calibrate_counts(document, values[rows] / scale[rows], warm[rows])
        flags[rows] |= more
    for k, name in enumerate(_AXES):
        table = _set(table, name, pa.array(values[:, k]))
    table = _set(table, FLAGS, pa.array(flags))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), HASH: ",".join(documents).encode()})


def _equal(column: pa.ChunkedArray, text: str) -> Array:
    return np.asarray(pc.fill_null(pc.equal(column.cast(pa.string()), text), False))


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)
