"""`triax read` and `triax export`: one device's acceleration out of the database, in g.

The calibration in force, as it was pushed, is applied and named; a sensor that was changed since gets none, and that is said.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import typer
from triax_backend.calibrations import Calibrations
from triax_backend.read import NoSuchDevice, read_calibrations
from triax_backend.read import read as read_database
from triax_backend.settings import Settings, masked

from triax_tools.calibrate import apply
from triax_tools.calibrate.document import Document, parse
from triax_tools.calibrate.errors import CalibrateError
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.table import FLAGS, HASH, calibrate_in_force, calibrate_table, uncalibrated
from triax_tools.options import Json, failed, print_json, with_settings

__all__ = ["export", "moment", "read"]

Device = Annotated[str, typer.Argument(help="EUI-64, 16 hex digits.")]
Start = Annotated[str, typer.Option("--from", help="ISO 8601 with zone, or seconds back from now such as -60.")]
End = Annotated[str, typer.Option("--to", help="The same; `now`.")]
Calibration = Annotated[
    Path | None, typer.Option(help="File of `triax calibrate fit`, applied instead of what was pushed.", exists=True)
]
Uncalibrated = Annotated[bool, typer.Option("--uncalibrated", help="Count x scale, no calibration.")]

_WRITERS = {
    ".csv": pyarrow.csv.write_csv,
    ".parquet": pyarrow.parquet.write_table,
    ".arrow": pyarrow.feather.write_feather,
}


def moment(text: str, now: datetime) -> datetime:
    """A time of the command line: ISO 8601 with zone, `now`, or seconds back from now. Raises BadParameter."""
    if text == "now":
        return now
    try:
        return now + timedelta(seconds=float(text))
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-01-31T12:00:00+00:00, `now`, or -60 for a minute ago") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write {text}+00:00 for UTC")
    return found


def _table(settings: Settings, device: str, start: str, end: str, calibration: Path | None, plain: bool) -> pa.Table:
    """The values, calibrated as was asked for, and a word about it on standard error."""
    if calibration is not None and plain:
        raise typer.BadParameter("--calibration and --uncalibrated exclude each other")
    now = datetime.now(UTC)
    try:
        table = read_database(settings, device, moment(start, now), moment(end, now))
        if plain:
            return uncalibrated(table)
        pushed = read_calibrations(settings, device)
        if calibration is None:
            table = calibrate_in_force(table, pushed.blobs)
        else:
            document = parse(calibration.read_bytes(), str(calibration))
            _check(document, table, device, pushed, now)
            table = calibrate_table(table, document)
    except CalibrateError as error:
        raise failed(f"{error} Without it: --uncalibrated.") from None
    except NoSuchDevice as error:
        raise failed(str(error)) from None
    except psycopg.errors.UndefinedTable:
        raise failed("the database is older than this tool: `python -m triax_backend.sinks.schema` brings it up to date") from None
    except psycopg.OperationalError as error:
        raise failed(f"no database at {masked(settings.postgres)}: {str(error).strip().splitlines()[0]}") from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    for line in _remarks(table):
        typer.echo(line, err=True)
    return table


def _check(document: Document, table: pa.Table, device: str, pushed: Calibrations, now: datetime) -> None:
    """Raise BadDocument unless a file may be used for these values: device, sensor, each full scale, date."""
    part, serial = pushed.sensors[-1][1:] if pushed.sensors else ("", "")
    for scale_g in table["scale_g"].unique().to_pylist() or [0.0]:
        document.check(Identity(device=device, part=part, sensor_serial=serial, scale_g=scale_g), now)


def _remarks(table: pa.Table) -> list[str]:
    """What was applied, and for how many values it is less than it seems."""
    used = (table.schema.metadata or {}).get(HASH, b"").decode()
    lines = [f"calibration {digest}" for digest in used.split(",") if digest]
    flags = table[FLAGS].to_numpy()
    bare = int(pc.sum(pc.is_null(table["calibration"])).as_py() or 0) - int(((flags & apply.NOT_VALID) != 0).sum())
    remarks = {
        apply.NOT_VALID: "NOT VALID, left uncalibrated: of another sensor than the node carried. Calibrate the one that is there",
        apply.EXPIRED: "the calibration had expired. Calibrate again",
        apply.CLAMPED: "warmer or colder than was calibrated, the nearer end of the range was used",
        apply.NO_TEMPERATURE_MEASURED: "no temperature was measured, the reference was taken",
    }
    if bare:
        lines.append(f"{bare} values: uncalibrated, count x scale: no calibration is in force. triax calibrate push stores one")
    counts = {flag: int(((flags & flag) != 0).sum()) for flag in remarks}
    return lines + [f"{counts[flag]} values: {text}" for flag, text in remarks.items() if counts[flag]]


@with_settings
def read(
    settings: Settings,
    device: Device,
    start: Start = "-60",
    end: End = "now",
    calibration: Calibration = None,
    plain: Uncalibrated = False,
    json: Json = False,
) -> None:
    """Print a device's values in g: time, x, y, z; one line each, or one JSON object each with the hash of its calibration."""
    table = _table(settings, device, start, end, calibration, plain)
    for row in table.select(["time", "x_g", "y_g", "z_g", "own_clock", "calibration", "calibration_flags"]).to_pylist():
        if json:
            print_json(row)
        else:
            mark = "" if row["own_clock"] else "  (receive time)"
            typer.echo(f"{row['time'].isoformat()}  {row['x_g']:+.6f}  {row['y_g']:+.6f}  {row['z_g']:+.6f}{mark}")
    if not table.num_rows:
        typer.echo("nothing in that time", err=True)


@with_settings
def export(
    settings: Settings,
    device: Device,
    path: Annotated[Path, typer.Argument(help=f"Ends in {', '.join(_WRITERS)}.")],
    start: Start = "-3600",
    end: End = "now",
    calibration: Calibration = None,
    plain: Uncalibrated = False,
) -> None:
    """Write a device's values in g, with all columns, to a file; the hash of each value's calibration is one of them."""
    if path.suffix not in _WRITERS:
        raise typer.BadParameter(f"{path.name}: the format comes from the ending, one of {', '.join(_WRITERS)}")
    table = _table(settings, device, start, end, calibration, plain)
    try:
        _WRITERS[path.suffix](table, str(path))
    except OSError as error:
        raise failed(f"{path} cannot be written: {error.strerror or error}") from None
    typer.echo(f"{table.num_rows} values in {path}")
