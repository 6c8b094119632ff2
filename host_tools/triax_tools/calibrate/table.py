"""A calibration on what `triax_backend.read` gives: the same Arrow table in calibrated g, with flags per row and the hash used.

table = calibrate_table(read(settings, device, start, end), document)
table["calibration_flags"], table.schema.metadata[b"calibration_sha256"]
"""

import numpy as np
import pyarrow as pa

from triax_tools.calibrate import compact
from triax_tools.calibrate.apply import calibrate_counts
from triax_tools.calibrate.document import Document

__all__ = ["FLAGS", "HASH", "calibrate_table"]

FLAGS, HASH = "calibration_flags", b"calibration_sha256"
_AXES = ("x_g", "y_g", "z_g")


def calibrate_table(table: pa.Table, document: Document) -> pa.Table:
    """x_g, y_g, z_g of an uncalibrated table in calibrated g (9.80665 m/s2, full matrix, temperature terms).

    Adds the column `calibration_flags` (apply.CLAMPED, apply.NO_TEMPERATURE_MEASURED) and the SHA-256 of the calibration to the
    table's metadata. Whether it belongs to the device and range is `Document.check`'s to say.
    """
    counts = np.stack([table[name].to_numpy() for name in _AXES], axis=1) / document.identity.scale_g
    warm = table["temperature_c"].to_numpy(zero_copy_only=False).astype(np.float64)
    values, flags = calibrate_counts(document, counts, warm)
    for k, name in enumerate(_AXES):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values[:, k]))
    table = table.append_column(pa.field(FLAGS, pa.uint8(), nullable=False), pa.array(flags))
    digest = compact.digest(compact.encode(document)).hex().encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), HASH: digest})
