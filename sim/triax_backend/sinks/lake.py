"""Frames and raw captures into Iceberg tables on S3, verbatim; each Kafka offset range is in its table once.

python -m triax_backend.sinks.lake [--metrics-port N] [--flush-s S] [--group G]

Repeats are archived too and removed on reading (hops.once). Killed between the upload of a file and the commit, the file stays on
S3 and is in no table: `sweep` of lake_upkeep.py removes such files.
"""

import argparse
import logging
import sys
from functools import partial

import pyarrow as pa
from pyiceberg.exceptions import RESTError
from pyiceberg.table import Table
from sqlalchemy.exc import SQLAlchemyError
from triax_proto import names

from triax_backend import consume, crash
from triax_backend.consume import Batch, Part
from triax_backend.deadletter import UNREADABLE, DeadLetter, DeadLetters
from triax_backend.frames import Bad, Record, unpack
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.sinks import iceberg, lake_rows, lake_upkeep
from triax_backend.sinks.errors import SinkDown

__all__ = ["STAGE", "Lake"]

log = logging.getLogger("triax.lake")

STAGE = "lake"
FLUSH_S = 5.0  # a commit costs 0.3 s whatever it holds
_TABLE_OF = {names.FRAMES: "frames", names.RAW: "raw"}


class Lake:
    """The sink that the loop in consume.py drives."""

    stage = STAGE
    topics: tuple[str, ...] = tuple(_TABLE_OF)

    def __init__(self, settings: Settings) -> None:
        self.account = Account(STAGE)
        self._settings = settings
        self._dead = DeadLetters(settings, STAGE, self.account)
        self._tables: dict[str, Table] = {}

    def start(self, parts: list[Part]) -> dict[Part, int | None]:
        """Own these partitions: where the tables' properties say they are."""
        try:
            catalog = iceberg.catalog(self._settings)
            self._tables = {topic: iceberg.open_table(catalog, name) for topic, name in _TABLE_OF.items()}
        except (SQLAlchemyError, OSError, RESTError) as error:
            raise SinkDown(_explain(error)) from error
        stored = {topic: iceberg.next_offsets(table, topic) for topic, table in self._tables.items()}
        return {(topic, partition): stored[topic].get(partition) for topic, partition in parts}

    def write(self, batch: Batch) -> None:
        """One commit for each table that the flush has rows for."""
        for topic in self.topics:
            records = [r for r in batch.records if r.topic == topic]
            if records:
                self._write(topic, records, batch)

    def _write(self, topic: str, records: list[Record], batch: Batch) -> None:
        rows, bad = _rows(topic, records)
        self.account.took(len(rows) + len(bad))
        for one in bad:
            self._dead.put(_letter(records[one.record], one))
        dead = self._dead.flush()
        first = {number: at for (name, number), at in batch.first.items() if name == topic}
        behind = {number: at for (name, number), at in batch.next.items() if name == topic}
        try:
            iceberg.append(self._tables[topic], topic, rows, first, behind, partial(crash.point, in_flight=self.account.in_flight))
        except (SQLAlchemyError, OSError, RESTError) as error:
            raise SinkDown(_explain(error)) from error
        crash.point("after_table_commit", self.account.in_flight)
        self._forget(topic)
        self.account.settled(out=len(rows))
        for cause, count in dead.items():
            self.account.dead(cause, count)

    def _forget(self, topic: str) -> None:
        try:
            lake_upkeep.forget(self._tables[topic])
        except (SQLAlchemyError, OSError, RESTError) as error:  # the flush is in the table; this can wait
            log.warning("old snapshots stay for now: %s", _explain(error))

    def close(self) -> None:
        """Nothing is held between commits."""
        self._tables = {}


def _rows(topic: str, records: list[Record]) -> tuple[pa.Table, list[Bad]]:
    if topic == names.RAW:
        return lake_rows.raw_table(records)
    unpacked = unpack(records)
    return lake_rows.frames_table(unpacked, records), unpacked.bad


def _letter(record: Record, bad: Bad) -> DeadLetter:
    source = f"{record.topic}/{record.partition}/{record.offset}"
    form = "frame" if bad.place >= 0 and record.topic == names.FRAMES else "record"
    return DeadLetter(bad.data, UNREADABLE, STAGE, source, 0, record.topic, form, bad.why, record.key)


# What Amazon's client says, in lower case, and what it means for whoever reads our log.
_MEANS = (
    (("network_connection", "connect to server", "timeout", "timed out"), "S3 is away"),
    (("no_such_bucket", "nosuchbucket"), "the lake's bucket is missing: create it, or mend TRIAX_S3"),
    (("access_denied", "signature", "invalid_access_key", "forbidden"), "S3 does not accept the key of TRIAX_S3"),
    (
        ("internal_failure", "no space", "insufficient", "quota", "507", "slow_down", "service_unavailable"),
        "S3 is there and does not take the write, as when its disk is full: free space there (SeaweedFS wants a restart then)",
    ),
)


def _explain(error: Exception) -> str:
    """What happened and what helps, in one line; nothing is lost, the offsets have not moved."""
    text = " ".join(str(error).split())[:400]
    if isinstance(error, SQLAlchemyError):
        return f"the lake's catalog in PostgreSQL is away; nothing is lost meanwhile ({text})"
    for words, meaning in _MEANS:
        if any(word in text.lower() for word in words):
            return f"{meaning}; nothing is lost meanwhile ({text})"
    return f"S3 does not take the write; nothing is lost meanwhile ({text})"


def main() -> int:
    """Run as a process until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flush-s", type=float, default=FLUSH_S, help="seconds between commits")
    return consume.main(lambda settings, _: Lake(settings), "triax-lake", parser)


if __name__ == "__main__":
    sys.exit(main())
