"""Results of batch jobs in PostgreSQL, one table each: written again they replace what they said before.

python -m triax_backend.batch.results          makes the tables, so that dashboards find them before the first job has run
"""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, LiteralString

import psycopg
import pyarrow as pa
from psycopg import sql

from triax_backend.settings import Settings

__all__ = ["TABLES", "create", "main", "store", "store_rows"]

_AXES = ("x", "y", "z")
_FLAGS = ("overrun", "bus_error", "axis_resync", "saturated", "clock_stepped", "rate_suspect", "test_pattern")
_REAL, _INTEGER, _TIME = "double precision", "bigint", "timestamptz"


def _axis(*names: str) -> dict[str, str]:
    return {name.format(axis): _REAL for axis in _AXES for name in names}


# table: key columns, all columns with their types. Columns ending in _us of a result are stored as timestamptz without the ending.
TABLES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "batch_hourly": (
        ("device", "hour"),
        {"device": _INTEGER, "hour": _TIME, "frames": _INTEGER, "samples": _INTEGER}
        | _axis("mean_{}_g", "rms_{}_g", "minimum_{}_g", "maximum_{}_g", "peak_{}_g")
        | {"temperature_c": _REAL},
    ),
    "batch_trend": (
        ("device",),
        {"device": _INTEGER, "until": _TIME, "hours": _INTEGER} | _axis("rms_{}_g_per_day", "explained_{}"),
    ),
    "batch_ranking": (
        ("device",),
        {"device": _INTEGER, "until": _TIME, "hours": _INTEGER, "rise": _REAL, "rms_g": _REAL, "peak_g": _REAL, "place": _INTEGER},
    ),
    "batch_quality": (
        ("device", "day"),
        {"device": _INTEGER, "day": _TIME}
        | dict.fromkeys(
            ("boots", "rows", "frames", "missing", "samples", "lost_samples", "conflicts", "late", "own_clock"), _INTEGER
        )
        | dict.fromkeys(_FLAGS, _INTEGER)
        | {"repeats": _INTEGER, "latency_s": _REAL},
    ),
    "batch_spectra": (
        ("device", "boot", "capture", "start", "axis", "kind"),
        {
            "device": _INTEGER,
            "boot": _INTEGER,
            "capture": _INTEGER,
            "start": _INTEGER,  # number of the stretch without a hole
            "axis": "text",
            "kind": "text",  # amplitude, envelope
            "time": _TIME,
            "rate_hz": _REAL,
            "step_hz": _REAL,
            "amplitude_g": "real[]",  # from 0 Hz, every step_hz
            "lines_hz": f"{_REAL}[]",  # highest first
            "lines_g": f"{_REAL}[]",
        },
    ),
    "batch_unusual": (
        ("device", "model"),
        {"device": _INTEGER, "model": "text", "until": _TIME, "score": _REAL, "share_above": _REAL},
    ),
    "batch_scores": (
        ("device", "boot", "capture", "start", "model"),
        {
            "device": _INTEGER,
            "boot": _INTEGER,
            "capture": _INTEGER,
            "start": _INTEGER,
            "model": "text",
            "time": _TIME,
            "label": "text",
            "probability": _REAL,
        },
    ),
}


def create(connection: psycopg.Connection[Any]) -> None:
    """Make the tables that are not there."""
    for name, (key, columns) in TABLES.items():
        parts = [sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(_literal(kind))) for column, kind in columns.items()]
        parts.append(sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(map(sql.Identifier, key))))
        connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(sql.Identifier(name), sql.SQL(", ").join(parts)))


def _literal(kind: str) -> LiteralString:
    return kind  # from TABLES above, never from outside


def store_rows(connection: psycopg.Connection[Any], table: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert or replace rows by the table's key; `_us` columns become times. Returns how many. The caller commits."""
    key, columns = TABLES[table]
    values: list[sql.Composable] = []
    for column, kind in columns.items():
        if kind == _TIME:
            values.append(sql.SQL("timestamptz 'epoch' + {} * interval '1 microsecond'").format(sql.Placeholder(f"{column}_us")))
        else:
            values.append(sql.Placeholder(column))
    other = [column for column in columns if column not in key]
    update = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(column)) for column in other)
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(values),
        sql.SQL(", ").join(map(sql.Identifier, key)),
        update,
    )
    batch = [dict(row) for row in rows]
    with connection.cursor() as cursor:
        cursor.executemany(statement, batch)
    return len(batch)


def store(settings: Settings, results: Mapping[str, pa.Table]) -> dict[str, int]:
    """Results by table name into PostgreSQL, all in one transaction. Rankings of devices that are gone go too."""
    counts = {}
    with psycopg.connect(settings.postgres) as connection:
        create(connection)
        for name, rows in results.items():
            if name == "batch_ranking":  # a place makes sense among the others of its run only
                connection.execute("DELETE FROM batch_ranking")
            counts[name] = store_rows(connection, name, rows.to_pylist())
    return counts


def main() -> int:
    """Make the tables. Returns the exit code."""
    with psycopg.connect(Settings.from_env().postgres) as connection:
        create(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main())
