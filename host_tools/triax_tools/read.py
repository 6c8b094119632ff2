"""`triax read` and `triax export`: one device's acceleration out of the database, in g."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import typer
from triax_backend.read import NoSuchDevice
from triax_backend.read import read as read_database
from triax_backend.settings import Settings, masked

from triax_tools.calibrate.document import parse
from triax_tools.calibrate.errors import CalibrateError
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.table import calibrate_table
from triax_tools.options import Json, failed, print_json, with_settings

__all__ = ["export", "moment", "read"]

Device = Annotated[str, typer.Argument(help="EUI-64, 16 hex digits.")]
Start = Annotated[str, typer.Option("--from", help="ISO 8601 with zone, or seconds back from now such as -60.")]
End = Annotated[str, typer.Option("--to", help="The same; `now`.")]

Calibration = Annotated[Path | None, typer.Option(help="File of `triax calibrate fit`, applied to the values.", exists=True)]

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
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; write 2026-01-31T12:00:00+00:00, `now`, or -60 for a minute ago") from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; write {text}+00:00 for UTC")
    return found


def _table(settings: Settings, device: str, start: str, end: str, calibration: Path | None) -> pa.Table:
    now = datetime.now(UTC)
    try:
        table = read_database(settings, device, moment(start, now), moment(end, now))
        if calibration is None:
            return table
        document = parse(calibration.read_bytes())
        document.check(Identity(device=device), now)
        return calibrate_table(table, document)
    except CalibrateError as error:
        raise failed(f"{calibration}: {error}") from None
    except NoSuchDevice as error:
        raise failed(str(error)) from None
    except psycopg.OperationalError as error:
        raise failed(f"no database at {masked(settings.postgres)}: {str(error).strip().splitlines()[0]}") from None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@with_settings
def read(
    settings: Settings, device: Device, start: Start = "-60", end: End = "now", calibration: Calibration = None, json: Json = False
) -> None:
    """Print a device's values in g: time, x, y, z; one line each, or one JSON object each."""
    table = _table(settings, device, start, end, calibration)
    for row in table.select(["time", "x_g", "y_g", "z_g", "own_clock"]).to_pylist():
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
) -> None:
    """Write a device's values in g, with all columns, to a file."""
    if path.suffix not in _WRITERS:
        raise typer.BadParameter(f"{path.name}: the format comes from the ending, one of {', '.join(_WRITERS)}")
    table = _table(settings, device, start, end, calibration)
    try:
        _WRITERS[path.suffix](table, str(path))
    except OSError as error:
        raise failed(f"{path} cannot be written: {error.strerror or error}") from None
    typer.echo(f"{table.num_rows} values in {path}")
