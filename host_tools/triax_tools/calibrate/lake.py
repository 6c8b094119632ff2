"""A recording out of the lake: `lake:<device>@<start>/<end>`, times in ISO 8601 with a zone. Servers from TRIAX_POSTGRES, TRIAX_S3.

The archive is verbatim: every frame that came, to the byte, repeats included; times of arrival are those at the way into Kafka.
"""

from datetime import datetime

import numpy as np
from triax_backend.settings import Settings
from triax_proto.names import device_text

from triax_tools.calibrate.broker import parse_device
from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.readers import Hints
from triax_tools.calibrate.recording import Identity, Recording, from_frames

__all__ = ["LAKE", "read_lake"]

LAKE = "lake:"


def _parts(source: str) -> tuple[int, list[datetime]]:
    """Device, start and end. Raises BadInput."""
    text, _, span = source.removeprefix(LAKE).partition("@")
    try:
        start, end = (datetime.fromisoformat(part) for part in span.split("/"))
    except ValueError:
        start = end = datetime.min
    if not start < end or start.tzinfo is None or end.tzinfo is None:
        raise BadInput(f"{source!r}: want {LAKE}<device>@<start>/<end>, such as 2026-01-31T12:00:00Z/2026-01-31T12:10:00Z")
    return parse_device(text), [start, end]


def read_lake(source: str, hints: Hints, settings: Settings | None = None) -> Recording:
    """Frames of a device whose time lies in [start, end). Raises BadInput, DeviceError (the lake does not answer)."""
    # Here, not above: a host that only calibrates files needs no Iceberg.
    from pyiceberg.exceptions import RESTError
    from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan
    from sqlalchemy.exc import SQLAlchemyError
    from triax_backend.sinks import iceberg, lake_rows
    from triax_backend.sinks.message_rows import signed

    device, (start, end) = _parts(source)
    chosen = And(
        EqualTo("device", signed(device)),  # type: ignore[call-arg, arg-type]
        GreaterThanOrEqual("time", start.isoformat()),  # type: ignore[call-arg, arg-type]
        LessThan("time", end.isoformat()),  # type: ignore[call-arg, arg-type]
    )
    try:
        table = iceberg.open_table(iceberg.catalog(settings or Settings.from_env()), "frames")
        found = table.scan(row_filter=chosen).to_arrow()
    except (OSError, SQLAlchemyError, RESTError) as error:
        raise DeviceError(f"The lake does not answer ({error}). TRIAX_POSTGRES and TRIAX_S3 say where it is.") from None
    if not len(found):
        raise BadInput(f"The lake has no frame of {device_text(device)} in that time: is it the frame's own time, in UTC?")
    received = found["received"].cast("int64").to_numpy() / 1e6
    pieces: list[bytes] = []
    arrivals: list[Array] = []
    for frames, originals, rows in lake_rows.groups_of(found):
        pieces += originals if originals is not None else [row.tobytes() for row in frames]
        arrivals.append(received[rows])
    identity = hints.identity if hints.identity.device else Identity(**{**hints.identity.__dict__, "device": device_text(device)})
    return from_frames(pieces, np.concatenate(arrivals), identity, source=f"{device_text(device)} in the lake")
