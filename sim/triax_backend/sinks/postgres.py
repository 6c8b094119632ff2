"""What all sinks to PostgreSQL share: the connection, Kafka offsets in its transactions, and what its errors mean."""

import contextlib
import logging
from collections.abc import Iterator, Mapping

import psycopg
from psycopg import sql

from triax_backend.consume import Part
from triax_backend.sinks.errors import Moved, SinkDown
from triax_backend.sinks.schema import migrate

__all__ = ["Database"]

log = logging.getLogger("triax.postgres")

_STATEMENT_MS = 120_000  # a flush takes one second; longer means a lock that somebody holds
_CONNECT = {
    "connect_timeout": 5,
    "tcp_user_timeout": 15_000,  # a peer that is gone without a word must not hold the sink for the kernel's 15 minutes
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


class Database:
    """One connection of one sink, made when needed and dropped after any error."""

    def __init__(self, url: str, sink: str) -> None:
        self._url, self._sink = url, sink
        self._connection: psycopg.Connection | None = None
        self._migrated = False

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._url,
                autocommit=True,
                application_name=f"triax-{self._sink}",
                options=f"-c statement_timeout={_STATEMENT_MS} -c timezone=UTC",
                **_CONNECT,  # type: ignore[arg-type]
            )
            if not self._migrated:
                for name in migrate(self._connection):
                    log.info("applied migration %s", name)
                self._migrated = True
        return self._connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """A transaction: committed at the end, rolled back on any error. Raises SinkDown for errors of the database."""
        try:
            connection = self._connected()
            with connection.transaction():
                yield connection
        except psycopg.Error as error:
            self.close()
            raise SinkDown(_explain(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; the next transaction makes a new one."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def stored(self, connection: psycopg.Connection, parts: list[Part]) -> dict[Part, tuple[int, bytes]]:
        """Next offset and dedup state of those of `parts` that this sink has written before."""
        found = connection.execute(
            "SELECT topic, partition, next_offset, seen FROM sink_partitions WHERE sink = %s AND topic = ANY(%s)",
            (self._sink, sorted({topic for topic, _ in parts})),
        ).fetchall()
        wanted = set(parts)
        return {(topic, number): (at, bytes(seen)) for topic, number, at, seen in found if (topic, number) in wanted}

    def claim(self, connection: psycopg.Connection, first: Mapping[Part, int]) -> None:
        """Lock the rows of these partitions until the end of the transaction. Raises Moved if they are not at `first`."""
        topics, numbers, offsets = _columns(first)
        connection.execute(
            "INSERT INTO sink_partitions (sink, topic, partition, next_offset) "
            "SELECT %s, * FROM unnest(%s::text[], %s::int[], %s::bigint[]) ON CONFLICT DO NOTHING",
            (self._sink, topics, numbers, offsets),
        )
        found = connection.execute(
            "SELECT topic, partition, next_offset FROM sink_partitions "
            "WHERE sink = %s AND (topic, partition) IN (SELECT * FROM unnest(%s::text[], %s::int[])) "
            "ORDER BY topic, partition FOR UPDATE",
            (self._sink, topics, numbers),
        ).fetchall()
        at = {(topic, number): offset for topic, number, offset in found}
        moved = [part for part, offset in first.items() if at.get(part) != offset]
        if moved:
            topic, number = moved[0]
            raise Moved(f"{topic}/{number} is at {at.get(moved[0])}, not {first[moved[0]]}: another instance wrote it")

    def advance(self, connection: psycopg.Connection, behind: Mapping[Part, int], seen: Mapping[Part, bytes] | None = None) -> None:
        """Store next offsets, and dedup states where given, of partitions claimed before."""
        topics, numbers, offsets = _columns(behind)
        states = [(seen or {}).get(part, b"") for part in behind]
        connection.execute(
            "UPDATE sink_partitions s SET next_offset = n.at, seen = n.seen, updated = now() "
            "FROM unnest(%s::text[], %s::int[], %s::bigint[], %s::bytea[]) AS n (topic, partition, at, seen) "
            "WHERE s.sink = %s AND s.topic = n.topic AND s.partition = n.partition",
            (topics, numbers, offsets, states, self._sink),
        )

    def make_room(self, connection: psycopg.Connection, table: str, days_us: list[int]) -> None:
        """Let the table take rows of these days (UTC microseconds of any time in each)."""
        connection.execute(
            sql.SQL("SELECT triax_make_room({}, ARRAY(SELECT triax_utc(t) FROM unnest(%s::bigint[]) AS t))").format(
                sql.Literal(table)
            ),
            (days_us,),
        )


def _columns(table: Mapping[Part, int]) -> tuple[list[str], list[int], list[int]]:
    return [topic for topic, _ in table], [number for _, number in table], list(table.values())


def _explain(error: psycopg.Error) -> str:
    """What happened and what helps, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, psycopg.errors.DiskFull):
        return f"PostgreSQL's disk is full; free space or drop old partitions, nothing is lost meanwhile ({text})"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"PostgreSQL forbids the write; give the role its rights on the triax tables ({text})"
    if isinstance(error, psycopg.OperationalError):
        return f"PostgreSQL is away ({text})"
    return f"PostgreSQL refused the write ({text})"
