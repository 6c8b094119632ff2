"""Frames into TimescaleDB or plain PostgreSQL: rows of runs, repeats removed, offsets and dedup state in the same transaction.

python -m triax_backend.sinks.timescale [--metrics-port N] [--flush-s S] [--group G]
"""

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from triax_proto import names
from triax_proto.v1.event_pb2 import Event

from triax_backend import consume, crash
from triax_backend.consume import Batch, Part
from triax_backend.deadletter import CONFLICT, UNREADABLE, DeadLetter, DeadLetters
from triax_backend.dedup import BadState, Seen, Verdict
from triax_backend.frames import Flat, Record, flat, unpack
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.sinks import rows, runs
from triax_backend.sinks.errors import SinkDown
from triax_backend.sinks.postgres import Database

__all__ = ["STAGE", "Timescale"]

STAGE = "timescale"
_DAY_US = 86_400_000_000
_COPY = sql.SQL("COPY frames ({}) FROM STDIN (FORMAT binary)").format(sql.SQL(", ").join(map(sql.Identifier, rows.COLUMNS)))
# Checksums of frames that may be in the table already. A run holds at most 10 frames, so its first number is at most 9 lower.
_LOOKUP = """
SELECT k.i, f.checksum[k.sequence - f.first_sequence + 1]
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) WITH ORDINALITY AS k (device, boot, sequence, i)
JOIN frames f ON f.device = k.device AND f.boot = k.boot
 AND f.first_sequence BETWEEN k.sequence - 9 AND k.sequence AND k.sequence < f.first_sequence + f.frames
"""

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _Flush:
    """Frames of one flush with their verdicts."""

    frames: Flat
    verdict: Array


class Timescale:
    """The sink that the loop in consume.py drives."""

    stage = STAGE
    topics: tuple[str, ...] = (names.FRAMES,)

    def __init__(self, settings: Settings) -> None:
        self.account = Account(STAGE)
        self._database = Database(settings.postgres, STAGE)
        self._dead = DeadLetters(settings, STAGE, self.account)
        self._seen = Seen()
        self._days: set[int] = set()

    def start(self, parts: list[Part]) -> dict[Part, int | None]:
        """Own these partitions: load what has been seen of them."""
        with self._database.transaction() as connection:
            stored = self._database.stored(connection, parts)
        self._seen = Seen()
        self._days = set()
        for (_, partition), (_, state) in stored.items():
            try:
                self._seen.load(partition, state)
            except BadState as error:
                raise SinkDown(f"partition {partition}: {error}") from None
        return {part: stored[part][0] if part in stored else None for part in parts}

    def write(self, batch: Batch) -> None:
        """One transaction: rows, dedup state, offsets."""
        frames = flat(unpack(batch.records), batch.records)
        self.account.took(len(frames.unpacked))
        columns = (frames.partition, frames.device, frames.boot, frames.sequence, frames.checksum)
        flush = _Flush(frames, self._seen.judge(*columns).verdict)
        self._bury(frames)
        with self._database.transaction() as connection:
            self._database.claim(connection, batch.first)
            self._look_up(connection, flush, Verdict.DOUBTFUL)
            kept = (flush.verdict == Verdict.NEW) | (flush.verdict == Verdict.DOUBTFUL)
            self._copy(connection, flush, kept)
            crash.point("after_copy", self.account.in_flight)
            self._look_up(connection, flush, Verdict.STALE)
            conflicts = np.flatnonzero(flush.verdict == Verdict.CONFLICT)
            self._report(frames, conflicts, self._stored(connection, flush, conflicts))
            dead = self._dead.flush()
            seen = {part: self._seen.dump(part[1]) for part in batch.next}
            self._database.advance(connection, batch.next, seen)
            crash.point("before_commit", self.account.in_flight)
        crash.point("after_commit", self.account.in_flight)
        out = int(kept.sum())
        for cause, count in dead.items():
            self.account.dead(cause, count)
        repeats = len(flush.verdict) - out - len(conflicts)
        self.account.settled(out=out, repeats=repeats, conflicts=len(conflicts))

    def _copy(self, connection: psycopg.Connection, flush: _Flush, kept: Array) -> None:
        """Write the rows of the frames that `kept` selects."""
        frames = flush.frames
        received = np.array([r.received_us for r in frames.records], np.int64)
        doubtful = flush.verdict == Verdict.DOUBTFUL
        placed = []
        for number, group in enumerate(frames.unpacked.groups):
            chosen = kept if len(frames.unpacked.groups) == 1 else kept & (frames.group == number)
            if chosen.any():
                whole = len(frames) == len(group) and bool(chosen.all())  # the ordinary flush: in arrival order as it is
                mine = group if whole else group.take(frames.at[chosen])
                placed.append(runs.place(mine, received[mine.record], doubtful[chosen]))
        if not placed:
            return
        days = set(np.unique(np.concatenate([p.time_us for p in placed]) // _DAY_US).tolist())
        if days - self._days:
            self._database.make_room(connection, "frames", [day * _DAY_US for day in days])
        with connection.cursor().copy(_COPY) as copy:
            copy.write(rows.COPY_HEAD)
            for one in placed:
                for piece, _ in runs.copy_bytes(one):
                    copy.write(piece)
            copy.write(rows.COPY_END)
        self._days = days

    def _look_up(self, connection: psycopg.Connection, flush: _Flush, verdict: Verdict) -> None:
        """Let the table decide on frames whose checksum, or whose having been seen, is forgotten."""
        for i, stored in self._stored(connection, flush, np.flatnonzero(flush.verdict == verdict)).items():
            flush.verdict[i] = Verdict.REPEAT if int(flush.frames.checksum[i]) in stored else Verdict.CONFLICT

    def _stored(self, connection: psycopg.Connection, flush: _Flush, asked: Array) -> dict[int, list[int]]:
        """Checksums that the table has under the identities of the frames `asked`, for those it has."""
        found: dict[int, list[int]] = {}
        if not asked.size:
            return found
        frames = flush.frames
        keys = (frames.device[asked].view(np.int64).tolist(), frames.boot[asked].tolist(), frames.sequence[asked].tolist())
        for number, checksum in connection.execute(_LOOKUP, keys).fetchall():
            found.setdefault(int(asked[number - 1]), []).append(checksum & 0xFFFFFFFF)
        return found

    def _bury(self, frames: Flat) -> None:
        for bad in frames.unpacked.bad:
            record = frames.records[bad.record]
            self._dead.put(_letter(record, bad.data, UNREADABLE, bad.why, "record" if bad.place < 0 else "frame"))

    def _report(self, frames: Flat, conflicts: Array, stored: dict[int, list[int]]) -> None:
        """Dead-letter frames whose identity is taken, and say so in an event."""
        for i in conflicts.tolist():
            record = frames.record_of(i)
            device, boot, sequence = int(frames.device[i]), int(frames.boot[i]), int(frames.sequence[i])
            why = f"{names.device_text(device)} boot {boot} sequence {sequence} was seen with another checksum"
            self._dead.put(_letter(record, frames.wire(i), CONFLICT, why, "frame"))
            frame = frames.unpacked.groups[frames.group[i]].frames[frames.at[i]]
            event = Event(
                device=device,
                boot=boot,
                kind=Event.KIND_IDENTITY_CONFLICT,
                time_us=int(frame["time_us"]),
                time_error_us=int(frame["time_error_us"]),
                number=sequence,
            )
            event.conflict.sequence = sequence
            event.conflict.checksum_seen = stored.get(i, [0])[0]
            event.conflict.checksum_new = int(frames.checksum[i])
            self._dead.event(event.SerializeToString(deterministic=True), record.partition)

    def close(self) -> None:
        self._database.close()


def _letter(record: Record, data: bytes, cause: str, detail: str, form: str) -> DeadLetter:
    source = f"{record.topic}/{record.partition}/{record.offset}"
    return DeadLetter(data, cause, STAGE, source, 0, record.topic, form, detail, record.key)


def main() -> int:
    """Run as a process until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    return consume.main(lambda settings, _: Timescale(settings), "triax-timescale", parser)


if __name__ == "__main__":
    sys.exit(main())
