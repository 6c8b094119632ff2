"""Device X from t0 to t1 in g, from the database, as an Arrow table: one row per 10 ms value.

    table = read(Settings.from_env(), "0011223344556677", start, end)

Values are count x scale_g / decimation, uncalibrated. `calibration` names the one in force by its hash;
`triax_tools.calibrate.table` applies it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql
from triax_proto import names
from triax_proto.frame import NO_TEMPERATURE

from triax_backend.calibrations import Calibrations, load
from triax_backend.settings import Settings
from triax_backend.sinks import rows
from triax_backend.sinks.message_rows import signed
from triax_backend.sinks.runs import MOST_STEP_US

__all__ = ["SCHEMA", "NoSuchDevice", "read", "read_calibrations"]

Array = np.ndarray[Any, Any]

SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ns", tz="UTC"), nullable=False),  # centre of the value's samples
        pa.field("boot", pa.int64(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
        pa.field("x_g", pa.float64(), nullable=False),
        pa.field("y_g", pa.float64(), nullable=False),
        pa.field("z_g", pa.float64(), nullable=False),
        pa.field("flags", pa.int64(), nullable=False),  # of the frame
        pa.field("temperature_c", pa.float64()),
        pa.field("own_clock", pa.bool_(), nullable=False),  # false: the time is the receive time
        pa.field("scale_g", pa.float32(), nullable=False),  # per raw count
        pa.field("calibration", pa.dictionary(pa.int32(), pa.string())),  # SHA-256 of the one in force
        pa.field("calibration_flags", pa.uint8(), nullable=False),  # calibrations.EXPIRED, NOT_VALID
    ]
)
_RUN = timedelta(microseconds=rows.MOST_FRAMES * MOST_STEP_US)  # no run is longer


class NoSuchDevice(LookupError):
    """The database has no frame of the device at any time; the message says so."""


def read(settings: Settings, device: int | str, start: datetime, end: datetime) -> pa.Table:
    """Values of a device whose time lies in [start, end), in order of time. Times need a zone.

    Empty if the device was silent then. Raises NoSuchDevice, ValueError (no zone, no device), psycopg.Error.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("start and end need a time zone: datetime.fromisoformat('2026-01-31T12:00:00+00:00')")
    pieces = list(_pieces(settings, _number(device), start, end))
    table = pa.concat_tables(pieces) if pieces else SCHEMA.empty_table()
    first, behind = (pa.scalar(t, SCHEMA.field("time").type) for t in (start, end))
    times = table["time"]
    table = table.filter(pc.and_(pc.greater_equal(times, first), pc.less(times, behind)))
    return table.sort_by([("time", "ascending"), ("boot", "ascending"), ("sequence", "ascending")])


def read_calibrations(settings: Settings, device: int | str) -> Calibrations:
    """All that was ever pushed to a device, and its sensors. Raises ValueError (no device), psycopg.Error."""
    with psycopg.connect(settings.postgres) as connection:
        return load(connection, signed(_number(device)))


def _number(device: int | str) -> int:
    return names.device_id(device) if isinstance(device, str) else device


def _pieces(settings: Settings, device: int, start: datetime, end: datetime) -> Iterator[pa.Table]:
    columns = sql.SQL(", ").join(map(sql.Identifier, rows.COLUMNS))
    number = signed(device)
    with psycopg.connect(settings.postgres, options="-c timezone=UTC") as connection:
        calibrations = load(connection, number)
        query = sql.SQL(
            "COPY (SELECT {} FROM frames WHERE device = {} AND time >= {} AND time < {}) TO STDOUT (FORMAT binary)"
        ).format(columns, *map(sql.Literal, (number, start - _RUN, end)))
        with connection.cursor().copy(query) as copy:
            found = False
            for run, _, _ in rows.read(bytes(chunk) for chunk in copy):
                found = True
                if int(run["per_axis"][0]):
                    yield _values(run, calibrations)
        if not found and connection.execute("SELECT FROM frames WHERE device = %s LIMIT 1", (number,)).fetchone() is None:
            raise NoSuchDevice(f"no frame of {names.device_text(device)} is in the database")


def _values(runs: Array, calibrations: Calibrations) -> pa.Table:
    """Values of runs of one layout."""
    frames = rows.reassemble(runs)
    per_run = len(frames) // len(runs)
    width = int(runs["per_axis"][0])
    own = np.repeat(runs["own_clock"].astype(bool), per_run)
    # Where the node's clock could not be trusted its spacing still holds, from the receive time of the run's first frame.
    first = np.repeat(frames["time_us"][::per_run], per_run)
    start_us = np.where(
        own, frames["time_us"], np.repeat(runs["time"].astype(np.int64), per_run) + rows.EPOCH_US + frames["time_us"] - first
    )
    decimation, rate = frames["decimation"].astype(np.float64), frames["rate_hz"].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        after_s = (np.arange(width) * decimation[:, None] + (decimation[:, None] - 1) / 2) / rate[:, None]
        scale = frames["scale_g"].astype(np.float64) / decimation
    after_ns = np.rint(np.nan_to_num(after_s, posinf=0.0) * 1e9).astype(np.int64)
    time_ns = (start_us.astype(np.int64)[:, None] * 1000 + after_ns).reshape(-1)
    warm = np.where(frames["temperature_mc"] == NO_TEMPERATURE, np.nan, frames["temperature_mc"] / 1000.0)
    columns: list[Any] = [pa.array(time_ns.view("M8[ns]"), SCHEMA.field("time").type)]
    columns += [pa.array(np.repeat(frames[name].astype(np.int64), width)) for name in ("boot", "sequence")]
    columns += [pa.array((frames[axis] * scale[:, None]).reshape(-1)) for axis in "xyz"]
    columns.append(pa.array(np.repeat(frames["flags"].astype(np.int64), width)))
    columns += [pa.array(np.repeat(warm, width), from_pandas=True), pa.array(np.repeat(own, width))]
    columns.append(pa.array(np.repeat(frames["scale_g"], width)))
    which, flags = calibrations.in_force(start_us, frames["scale_g"], frames["boot"])
    columns += [_hashes(calibrations, np.repeat(which, width)), pa.array(np.repeat(flags, width))]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _hashes(calibrations: Calibrations, which: Array) -> pa.DictionaryArray:
    """Hash of the calibration in force by its number; the dictionary holds all of the device, so that pieces can be joined."""
    hashes = [one.hash for one in calibrations.pushed]
    known = list(dict.fromkeys(hashes))
    place = np.array([*map(known.index, hashes), -1], np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(place[which], mask=which < 0), pa.array(known, pa.string()))
