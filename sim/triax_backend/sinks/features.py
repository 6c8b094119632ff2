"""Features, events, what devices say of themselves and their calibrations, from Kafka into the database.

python -m triax_backend.sinks.features [--metrics-port N] [--flush-s S] [--group G]

A feature row that comes again (a late frame completed its window, a stream job went back to its checkpoint) replaces the one
that is there unless that one saw more frames; an event that comes again, the same bytes, is left out. Offsets are in the same
transaction.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from google.protobuf.message import DecodeError
from triax_proto import names

from triax_backend import consume, crash
from triax_backend.consume import Batch, Part
from triax_backend.deadletter import UNREADABLE, DeadLetter, DeadLetters
from triax_backend.frames import Record
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.sinks import calibration_rows, feature_rows, message_rows
from triax_backend.sinks.postgres import Database

__all__ = ["STAGE", "Features"]

_Row = TypeVar("_Row")

STAGE = "features"
_DAY_US = 86_400_000_000
_STAGE_TABLE = (
    "CREATE TEMP TABLE IF NOT EXISTS features_in (LIKE features) ON COMMIT DELETE ROWS; "
    "ALTER TABLE features_in ADD COLUMN IF NOT EXISTS arrival bigint"
)
# A window's time moves by less than its length when a late frame completes it; a day also covers a clock that was set meanwhile.
_REPLACE = """
DELETE FROM features f USING features_in n
WHERE f.device = n.device AND f.boot = n.boot AND f.windows = n.windows AND f.number = n.number
  AND f.time BETWEEN triax_utc(%s) AND triax_utc(%s) AND n.frames >= f.frames
"""
_INSERT = """
INSERT INTO features ({columns}) SELECT {columns} FROM (
    SELECT DISTINCT ON (device, boot, windows, number) * FROM features_in
    ORDER BY device, boot, windows, number, frames DESC, arrival DESC
) n
WHERE NOT EXISTS (
    SELECT FROM features f WHERE f.device = n.device AND f.boot = n.boot AND f.windows = n.windows AND f.number = n.number
    AND f.time BETWEEN triax_utc(%s) AND triax_utc(%s)
)
"""
_EVENT = """
INSERT INTO events (time, received, device, boot, kind, number, own_clock, axis, score, detail, message, digest)
SELECT triax_utc(%(time)s), triax_utc(%(received)s), %(device)s, %(boot)s, %(kind)s, %(number)s, %(own_clock)s, %(axis)s, %(score)s,
       %(detail)s::jsonb, %(message)s, %(digest)s
WHERE NOT EXISTS (SELECT FROM events e WHERE e.digest = %(digest)s AND e.message = %(message)s)
"""


class Features:
    """The sink that the loop in consume.py drives."""

    stage = STAGE
    topics: tuple[str, ...] = (names.FEATURES, names.EVENTS, names.DEVICES, names.CONFIG)

    def __init__(self, settings: Settings) -> None:
        self.account = Account(STAGE)
        self._database = Database(settings.postgres, STAGE)
        self._dead = DeadLetters(settings, STAGE, self.account)
        self._days: dict[str, set[int]] = {}

    def start(self, parts: list[Part]) -> dict[Part, int | None]:
        """Own these partitions."""
        self._days = {}
        with self._database.transaction() as connection:
            stored = self._database.stored(connection, parts)
        return {part: stored[part][0] if part in stored else None for part in parts}

    def write(self, batch: Batch) -> None:
        """One transaction for what came in of all topics."""
        by_topic: dict[str, list[Record]] = {topic: [] for topic in self.topics}
        for record in batch.records:
            by_topic[record.topic].append(record)
        happened = by_topic[names.EVENTS]
        told = [record for record in by_topic[names.DEVICES] if record.value]  # a tombstone: the device is gone, its row stays
        pushed = [record for record in by_topic[names.CONFIG] if calibration_rows.concerns(record)]
        features, bad = feature_rows.parse(by_topic[names.FEATURES])
        events = self._parsed(happened, message_rows.event)
        states = self._parsed(told, message_rows.state)
        calibrations = self._parsed(pushed, calibration_rows.calibration)
        self.account.took(len(features) + len(bad) + len(happened) + len(told) + len(pushed))
        for record, why in bad:
            self._bury(record, why)
        with self._database.transaction() as connection:
            self._database.claim(connection, batch.first)
            self._features(connection, features)
            repeats = self._events(connection, events)
            for query, values in states:
                connection.execute(query, values)
            repeats += sum(1 - connection.execute(calibration_rows.PUT, values).rowcount for values in calibrations)
            crash.point("after_copy", self.account.in_flight)
            dead = self._dead.flush()
            self._database.advance(connection, batch.next)
            crash.point("before_commit", self.account.in_flight)
        self.account.settled(out=len(features) + len(events) + len(states) + len(calibrations) - repeats, repeats=repeats)
        for cause, count in dead.items():
            self.account.dead(cause, count)

    def _parsed(self, records: list[Record], parse: Callable[[Record], _Row]) -> list[_Row]:
        """Rows of the messages that can be read."""
        found = []
        for record in records:
            try:
                found.append(parse(record))
            except (DecodeError, ValueError) as error:
                self._bury(record, str(error))
        return found

    def _room(self, connection: psycopg.Connection, table: str, times_us: list[int]) -> None:
        days = {time // _DAY_US for time in times_us}
        if days - self._days.get(table, set()):
            self._database.make_room(connection, table, [day * _DAY_US for day in days])
            self._days[table] = days

    def _features(self, connection: psycopg.Connection, features: feature_rows.Rows) -> None:
        if not len(features):
            return
        times = features.time_us
        self._room(connection, "features", sorted({int(t) for t in (times // _DAY_US) * _DAY_US}))
        connection.execute(_STAGE_TABLE)
        with connection.cursor().copy(feature_rows.COPY) as copy:
            for piece in features.copy_bytes():
                copy.write(piece)
        near = int(times.min()) - _DAY_US, int(times.max()) + _DAY_US
        connection.execute(_REPLACE, near)
        connection.execute(_INSERT.format(columns=", ".join(feature_rows.COLUMNS)).encode(), near)

    def _events(self, connection: psycopg.Connection, events: list[dict[str, Any]]) -> int:
        """Insert events; number of those that were there already."""
        if not events:
            return 0
        self._room(connection, "events", [row["time"] for row in events])
        cursor = connection.cursor()
        cursor.executemany(_EVENT, events)
        return len(events) - max(0, cursor.rowcount)

    def _bury(self, record: Record, why: str) -> None:
        source = f"{record.topic}/{record.partition}/{record.offset}"
        self._dead.put(DeadLetter(record.value, UNREADABLE, STAGE, source, 0, record.topic, "record", why, record.key))

    def close(self) -> None:
        self._database.close()


def main() -> int:
    """Run as a process until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    return consume.main(lambda settings, _: Features(settings), "triax-features", parser)


if __name__ == "__main__":
    sys.exit(main())
