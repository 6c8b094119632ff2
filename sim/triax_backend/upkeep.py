"""The daily job: what is older than it is kept leaves the database and the lake.

    python -m triax_backend.upkeep [--keep-days N] [--budget-gib N] [--sweep]

The database's tables say themselves how long they keep (migrations/001_over_time.sql); the options are the lake's.
"""

import argparse

import psycopg

from triax_backend.settings import Settings
from triax_backend.sinks import iceberg
from triax_backend.sinks.lake_upkeep import drop_days, forget, sweep
from triax_backend.sinks.schema import migrate

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Look after the database and both tables of the lake, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-days", type=int, help="drop the lake's days of receipt older than this")
    parser.add_argument("--budget-gib", type=float, help="drop the lake's oldest days until the files fit")
    parser.add_argument("--sweep", action="store_true", help="remove the lake's files that belong to no table")
    options = parser.parse_args(arguments)
    settings = Settings.from_env()
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        migrate(connection)
        (dropped,) = connection.execute("SELECT triax_drop_old()").fetchone() or (0,)
    print(f"database: {dropped} partitions dropped")
    where = iceberg.catalog(settings)
    budget = None if options.budget_gib is None else int(options.budget_gib * (1 << 30))
    for name in iceberg.TABLES:
        table = iceberg.open_table(where, name)
        print(f"{name}: {forget(table)} snapshots forgotten, days dropped: {drop_days(table, options.keep_days, budget) or 'none'}")
        if options.sweep:
            print(f"{name}: {len(sweep(settings, table))} files removed")


if __name__ == "__main__":
    main()
