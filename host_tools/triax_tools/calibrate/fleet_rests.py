"""Rests of a fleet: from a table of rests, or from the database's minute features (a machine that stands still gives one).

Each device yields times (s, UTC), temperatures (C) and means (g, nominal). From the features, the quietest minute of each period is
taken, and of these the ones that are as quiet as the device's quietest: a period in which the machine never stood is left out.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from triax_backend.settings import Settings

from triax_tools.calibrate.errors import BadInput, DeviceError
from triax_tools.calibrate.model import Array

__all__ = ["Rests", "from_database", "from_table", "quiet"]

Rests = tuple[Array, Array, Array]

_COLUMNS = ("device", "time_s", "temperature_c", "x_g", "y_g", "z_g")
_QUIET = 2.0  # times the 20 % point of the device's own rms: noise at rest varies by less, a running machine by far more
_QUIET_PERCENTILE = 20.0

_QUERY = """
SELECT DISTINCT ON (device, period) lpad(to_hex(device), 16, '0'), extract(epoch FROM time)::float8, temperature_c,
       mean_x, mean_y, mean_z, sqrt(rms_x ^ 2 + rms_y ^ 2 + rms_z ^ 2)
FROM (SELECT *, date_bin(%(every)s * interval '1 second', time, '2000-01-01 00:00:00+00') AS period FROM features
      WHERE windows = 60 AND time >= %(start)s AND time < %(end)s AND glitches = 0) AS minute
ORDER BY device, period, rms_x ^ 2 + rms_y ^ 2 + rms_z ^ 2
"""


def from_table(path: Path) -> dict[str, Rests]:
    """A CSV with the columns device, time_s, temperature_c, x_g, y_g, z_g. A row that cannot be read spoils its device only."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames is None or set(_COLUMNS) - set(reader.fieldnames):
                raise BadInput(f"{path}: want the columns {', '.join(_COLUMNS)}")
            for row in reader:
                rows[row["device"]].append([_number(row[name]) for name in _COLUMNS[1:]])
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    if not rows:
        raise BadInput(f"{path}: holds no rests")
    return {device: _split(np.array(held)) for device, held in rows.items()}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _split(table: Array) -> Rests:
    return table[:, 0], table[:, 1], table[:, 2:5]


def quiet(rms_g: Array) -> Array:
    """True for the minutes that are as quiet as the device gets."""
    return np.asarray(rms_g <= _QUIET * np.percentile(rms_g, _QUIET_PERCENTILE))


def from_database(settings: Settings, start: datetime, end: datetime, every_s: float) -> Iterator[tuple[str, Rests]]:
    """Quietest minute of each `every_s` of each device. Raises DeviceError if the database does not answer."""
    import psycopg

    try:
        with psycopg.connect(settings.postgres) as connection, connection.cursor("rests") as cursor:
            cursor.itersize = 50_000
            cursor.execute(_QUERY, {"every": every_s, "start": start, "end": end})
            held: list[tuple[float, ...]] = []
            current = ""
            for device, *numbers in cursor:
                if device != current:
                    if held:
                        yield current, _of_minutes(held)
                    current, held = device, []
                held.append(tuple(float("nan") if n is None else float(n) for n in numbers))
            if held:
                yield current, _of_minutes(held)
    except psycopg.Error as error:
        raise DeviceError(f"The database does not answer as expected: {error}. TRIAX_POSTGRES says where it is.") from None


def _of_minutes(held: list[tuple[float, ...]]) -> Rests:
    table = np.array(held)
    return _split(table[quiet(table[:, 5])])
