"""The lake's frames as the table that the expressions take: in DuckDB out of the Iceberg files, or in Spark out of its catalog."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from triax_backend.batch.expressions import COLUMNS
from triax_backend.settings import Settings

__all__ = ["duckdb_frames", "lake_tables", "plain"]


def plain(rows: pa.Table) -> pa.Table:
    """Rows of the lake's `frames` with their times as microseconds, and only what the expressions need."""
    times = {"at_us": "time", "received_us": "received"}
    arrays = [rows[times[name]].cast(pa.int64()) if name in times else rows[name] for name in COLUMNS]
    return pa.table(arrays, names=list(COLUMNS))


def lake_tables(settings: Settings, name: str = "frames", since_us: int | None = None) -> Iterator[pa.Table]:
    """Rows of each data file of a table of the lake."""
    from triax_backend.sinks import iceberg  # pyiceberg is not in Spark's environment

    for rows, _ in iceberg.files(iceberg.open_table(iceberg.catalog(settings), name), since_us):
        yield rows


def duckdb_frames(tables: Iterable[pa.Table], path: Path | None = None, memory: str = "1GB") -> Any:
    """The `frames` table (Ibis) in a DuckDB database: in memory, or in a file where the lake is larger than that.

    DuckDB's own reader of S3 cannot be had everywhere, so files are read by pyiceberg and handed over one at a time.
    """
    import ibis

    from triax_backend.sinks.lake_rows import FRAMES

    connection = ibis.duckdb.connect(str(path) if path else ":memory:", memory_limit=memory)
    raw = connection.con
    raw.register("part", plain(FRAMES.empty_table()))
    raw.execute("CREATE OR REPLACE TABLE frames AS SELECT * FROM part")
    for rows in tables:
        raw.register("part", plain(rows))
        raw.execute("INSERT INTO frames SELECT * FROM part")
    raw.unregister("part")
    return connection.table("frames")
