"""What each hop holds, for verification: every frame as a row of `triax_proto.hop.HOP`, its checksum proved against its bytes.

    for rows in hops.postgres(settings): ...        kafka, postgres, lake: arrays of HOP
    hops.redis(settings)                            {device: (boot, sequence)}
    hops.kafka_events(settings, since), hops.events(settings, since)     the bytes of each Event in Kafka, in the database
    hops.dead(settings)                             (cause, stage, HOP row or None) of each dead frame

A hop repeats a frame that it holds more than once. The lake is read verbatim; `once` removes what was stored twice.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from triax_proto import names
from triax_proto.errors import FrameError
from triax_proto.frame import checksums_ok, decode, parse, values_of
from triax_proto.hop import HOP

from triax_backend import deadletter, scan
from triax_backend.frames import Group, Record, unpack
from triax_backend.settings import Settings
from triax_backend.sinks import iceberg, lake_rows, rows
from triax_backend.sinks import redis as latest

__all__ = ["dead", "events", "kafka", "kafka_events", "kafka_records", "lake", "once", "postgres", "redis"]

Array = np.ndarray[Any, Any]


def _hop(frames: Array, proved: Array, at_us: Array | int, order: Array | int) -> Array:
    out = np.empty(len(frames), HOP)
    for name in ("device", "boot", "sequence", "checksum"):
        out[name] = frames[name]
    out["proved"], out["at_us"], out["order"] = proved, at_us, order
    return out


def _proved(group: Group) -> Array:
    """Frames of another shape were proved against their own bytes when they were parsed."""
    return checksums_ok(group.frames) if group.original is None else np.ones(len(group), bool)


def kafka(settings: Settings, start: Mapping[int, int] | None = None, since_us: int | None = None) -> Iterator[Array]:
    """Frames in triax.frames.v1 up to its end as of now; `order` is offset x 2^20 + place in the record's batch.

    `start`: first offset by partition; else `since_us`: UTC of the record; else everything. What cannot be read is not a frame and
    is left out. Raises scan.KafkaSilent.
    """
    for found in scan.records(settings, names.FRAMES, start, since_us):
        yield from kafka_records(found)


def kafka_records(found: list[Record]) -> Iterator[Array]:
    """As `kafka`, of records at hand. Kafka cuts times to milliseconds: `at_us` is the end of the record's, when it was there."""
    received = np.array([r.received_us + 999 for r in found], np.int64)
    offsets = np.array([r.offset for r in found], np.int64)
    for group in unpack(found).groups:
        yield _hop(group.frames, _proved(group), received[group.record], (offsets[group.record] << 20) + group.place)


def kafka_events(settings: Settings, since_us: int) -> set[bytes]:
    """Messages in triax.events.v1 up to its end as of now. Raises scan.KafkaSilent."""
    return {record.value for found in scan.records(settings, names.EVENTS, None, since_us) for record in found}


def events(settings: Settings, since_us: int) -> list[bytes]:
    """Messages of the table `events`, received since. Raises psycopg.Error."""
    with psycopg.connect(settings.postgres) as connection:
        query = "SELECT message FROM events WHERE received >= triax_utc(%s) ORDER BY time"
        return [bytes(row[0]) for row in connection.execute(query, (since_us,))]


def postgres(settings: Settings, since_us: int | None = None) -> Iterator[Array]:
    """Frames in the table `frames`, encoded again from its columns; `at_us` is the commit time where the server keeps it.

    `since_us`: only runs received since. Raises psycopg.Error.
    """
    with psycopg.connect(settings.postgres, options="-c timezone=UTC") as connection:
        committed = _commit_times(connection)
        chosen = sql.SQL(", ").join(map(sql.Identifier, rows.COLUMNS))
        condition = (
            sql.SQL("WHERE received >= triax_utc({})").format(sql.Literal(since_us)) if since_us is not None else sql.SQL("")
        )
        query = sql.SQL("COPY (SELECT {}, xmin::text::bigint FROM frames {}) TO STDOUT (FORMAT binary)")
        if not committed:
            query = sql.SQL("COPY (SELECT {}, 0::bigint FROM frames {}) TO STDOUT (FORMAT binary)")
        with connection.cursor().copy(query.format(chosen, condition)) as copy:
            for found, originals, xmin in rows.read((bytes(chunk) for chunk in copy), extra=True):
                yield _stored(found, originals, committed, xmin)


def _commit_times(connection: psycopg.Connection) -> dict[int, int]:
    """UTC microseconds of the commit of each transaction that wrote frames, by id; empty where the server does not keep them."""
    on = connection.execute("SELECT current_setting('track_commit_timestamp')::boolean").fetchone()
    if on is None or not on[0]:
        return {}
    try:
        with connection.transaction():
            found = connection.execute(
                "SELECT x, (extract(epoch FROM pg_xact_commit_timestamp(x::text::xid)) * 1000000)::bigint "
                "FROM (SELECT DISTINCT xmin::text::bigint AS x FROM frames) t WHERE x > 2"
            ).fetchall()
    except psycopg.Error:  # the columnstore keeps no transaction of a row
        return {}
    return {x: at for x, at in found if at is not None}


def _stored(found: Array, originals: list[bytes] | None, committed: dict[int, int], xmin: Array) -> Array:
    frames = rows.reassemble(found)
    per_run = len(frames) // len(found)
    at_us = np.repeat(np.array([committed.get(x, 0) for x in xmin.tolist()], np.int64), per_run)
    return _hop(frames, checksums_ok(frames) if originals is None else _prove(frames, originals), at_us, 0)


def lake(settings: Settings, since_us: int | None = None) -> Iterator[Array]:
    """Frames in the table triax.frames as archived, repeats and all, encoded again from its columns; `at_us` is the commit time.

    `since_us`: only files with frames received since. Raises OSError, sqlalchemy's errors.
    """
    table = iceberg.open_table(iceberg.catalog(settings), "frames")
    for found, at_us in iceberg.files(table, since_us):
        order = (found["kafka_offset"].to_numpy() << 20) + found["place"].to_numpy()
        for frames, originals, where in lake_rows.groups_of(found):
            proved = checksums_ok(frames) if originals is None else _prove(frames, originals)
            yield _hop(frames, proved, at_us, order[where])


def _prove(frames: Array, originals: list[bytes]) -> Array:
    """Whether each frame's own bytes give their checksum, and the columns beside them."""
    proved = np.zeros(len(frames), bool)
    for i, data in enumerate(originals):
        with contextlib.suppress(FrameError):
            proved[i] = parse(data).tobytes() == frames[i].tobytes()
    return proved


def redis(settings: Settings) -> dict[int, tuple[int, int]]:
    """Boot and sequence of the latest frame of each device in Redis. Raises redis.RedisError."""
    client = latest.connect(settings)
    try:
        return {device: (boot, sequence) for device, (boot, sequence, _, _) in latest.latest(client).items()}
    finally:
        client.close()


def dead(settings: Settings, since_us: int | None = None) -> Iterator[tuple[str, str, Array | None]]:
    """Cause, stage and, where its bytes still name one, the frame of each dead letter. `proved` says whether its checksum holds."""
    for letter in deadletter.letters(settings, since_us=since_us):
        yield letter.cause, letter.stage, _identity(letter)


def _identity(letter: deadletter.DeadLetter) -> Array | None:
    values = values_of(len(letter.data))
    plain = decode(letter.data, values) if values is not None else None
    if plain is not None:
        return _hop(plain, checksums_ok(plain), letter.time_us, 0)
    try:
        return _hop(parse(letter.data), np.array([True]), letter.time_us, 0)
    except FrameError:
        return None


def once(found: Array) -> Array:
    """Rows without repeats: the first of each (device, boot, sequence, checksum)."""
    order = np.lexsort((found["checksum"], found["sequence"], found["boot"], found["device"]))
    keys = found[order]
    first = np.ones(len(keys), bool)
    first[1:] = False
    for name in ("device", "boot", "sequence", "checksum"):
        first[1:] |= keys[name][1:] != keys[name][:-1]
    return found[np.sort(order[first])]
