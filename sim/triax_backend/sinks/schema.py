"""Migrations of the database: SQL files applied in order, each once, each in a transaction of its own.

python -m triax_backend.sinks.schema          applies what is missing to TRIAX_POSTGRES
"""

import argparse
import hashlib
from pathlib import Path

import psycopg

import triax_backend
from triax_backend.settings import Settings
from triax_backend.shipped import shipped

__all__ = ["MIGRATIONS", "SchemaChanged", "migrate"]

MIGRATIONS = shipped(triax_backend.__file__, "deploy/migrations")
_LOCK = 0x7472696178  # "triax": one migrator at a time


class SchemaChanged(RuntimeError):
    """A file that was applied has other contents now; the database cannot be what the files say."""


def migrate(connection: psycopg.Connection, folder: Path = MIGRATIONS) -> list[str]:
    """Apply the files of `folder` that this database does not have yet; return their names. Raises SchemaChanged, psycopg.Error.

    The connection must be outside a transaction.
    """
    files = sorted(folder.glob("*.sql"))
    if not files:
        raise FileNotFoundError(f"no migrations in {folder}")
    applied: list[str] = []
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS triax_migrations "
            "(name text PRIMARY KEY, sha256 text NOT NULL, applied timestamptz NOT NULL DEFAULT now())"
        )
    for file in files:
        text = file.read_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            found = connection.execute("SELECT sha256 FROM triax_migrations WHERE name = %s", (file.name,)).fetchone()
            if found and found[0] != digest:
                raise SchemaChanged(f"{file.name} was applied with other contents; write a new migration instead of changing one")
            if not found:
                connection.execute(text.encode())
                connection.execute("INSERT INTO triax_migrations (name, sha256) VALUES (%s, %s)", (file.name, digest))
                applied.append(file.name)
    return applied


def main() -> None:
    """Apply what is missing, say what was applied."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with psycopg.connect(Settings.from_env().postgres, autocommit=True) as connection:
        for name in migrate(connection):
            print(name)


if __name__ == "__main__":
    main()
