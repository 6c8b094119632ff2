"""The loop that every sink runs: Kafka records in, one delivery per flush, offsets in what the sink writes.

The sink is asked where it stands whenever partitions are assigned and after every failure, and reading starts there again; so a
write that failed, one that succeeded without the answer getting through, and another instance that took over are one case. What
Kafka knows as the group's offsets is for monitoring only.
"""

import argparse
import contextlib
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from triax_proto.names import FRAMES, RAW

from triax_backend import metrics
from triax_backend.deadletter import NotDelivered
from triax_backend.frames import Record
from triax_backend.metrics import Account
from triax_backend.scan import as_record
from triax_backend.settings import Settings
from triax_backend.silence import Silence, offsets
from triax_backend.sinks.errors import SinkDown, SinkError

__all__ = ["Batch", "Loop", "Part", "Sink", "main"]

log = logging.getLogger("triax.consume")

Part = tuple[str, int]  # topic, partition

_WITHOUT_HOLES = (FRAMES, RAW)  # not compacted, and no marks of transactions between the records
# A device sends 10 frames/s: a flush a little below a second holds 9 or 10 of each, not 11, which would need two rows.
FLUSH_S = 0.95
FLUSH_BYTES = 64 << 20  # two seconds of 10,000 devices: memory stays bounded while catching up
_WAIT_S = 0.1  # of one call to Kafka, so that a signal is noticed
_BACKOFF_S = (0.5, 15.0)  # first and longest wait; with full jitter, so that several sinks do not come back at once


@dataclass(slots=True)
class Batch:
    """Records of one flush. `first`: offset at which each partition was to be read on; `next`: offset behind its last record."""

    records: list[Record] = field(default_factory=list)
    first: dict[Part, int] = field(default_factory=dict)
    next: dict[Part, int] = field(default_factory=dict)
    size: int = 0


class Sink(Protocol):
    """What the loop drives. Every method may raise SinkDown."""

    stage: str
    topics: tuple[str, ...]
    account: Account

    def start(self, parts: list[Part]) -> dict[Part, int | None]:
        """Own these partitions and no others: the next offset stored of each (None: nothing yet)."""

    def write(self, batch: Batch) -> None:
        """Write a flush and its offsets: both are there or neither. Keeps `account`. Raises SinkError, NotDelivered."""

    def close(self) -> None:
        """Let go of the server."""


class Loop:
    """Runs one sink until `stop`. `instance` tells the members of a group apart; `flush_bytes` bounds a flush."""

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        group: str,
        instance: str = "0",
        flush_s: float = FLUSH_S,
        flush_bytes: int = FLUSH_BYTES,
    ) -> None:
        self._sink, self._flush_s, self._flush_bytes = sink, flush_s, flush_bytes
        self._stopping = False
        self._fresh = False  # partitions are assigned, or a write failed: ask the sink where to read
        self._parts: list[Part] = []  # ours in the group; assigned to the consumer once it is known where to read
        self._at: dict[Part, int] = {}  # next offset to read
        self._silence = Silence()
        self._pause_s = _BACKOFF_S[0]
        self._consumer = Consumer(
            {
                **settings.kafka_config(),
                "group.id": group,
                # One that was killed and comes back is given its partitions at once, not after the session timeout.
                "group.instance.id": f"{group}-{instance}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "range",
                "session.timeout.ms": 10_000,
                # A fetch costs Kafka as much for one record as for a hundred; a flush takes longer than this to be due.
                "fetch.min.bytes": 262_144,
                "fetch.wait.max.ms": 250,
                "queued.max.messages.kbytes": 65_536,
                "topic.metadata.refresh.interval.ms": 10_000,
                "error_cb": self._kafka_error,
                "log_level": 2,
            }
        )

    def _kafka_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            log.warning("Kafka is away (%s); waiting for it", error.str())

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Deliver what was read, then end. Fit for a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Consume until stopped."""
        self._consumer.subscribe(list(self._sink.topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        try:
            while not self._stopping:
                if self._fresh and not self._begin():
                    continue
                batch = self._gather()
                if batch.records:
                    self._deliver(batch)
                if not self._fresh:
                    self._look()
        finally:
            with contextlib.suppress(KafkaException):
                self._consumer.close()
            self._sink.close()

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        consumer.assign([])
        self._parts = [(p.topic, p.partition) for p in parts]
        self._fresh = True

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        for part in parts:
            with contextlib.suppress(KeyError):
                self._sink.account.lost_partition(part.topic, part.partition)
        self._parts, self._at = [], {}
        self._fresh = True
        consumer.unassign()

    def _begin(self) -> bool:
        """Read on where the sink stands."""
        parts = self._parts
        if not parts:
            self._fresh = False
            return True
        try:
            stored = self._sink.start(parts)
        except SinkDown as error:
            self._wait(str(error))
            return False
        self._consumer.assign([TopicPartition(*part, OFFSET_BEGINNING if (at := stored[part]) is None else at) for part in parts])
        self._at = {part: at for part, at in stored.items() if at is not None}
        self._silence.forget()
        self._fresh = False
        self._lag(stored)
        return True

    def _look(self) -> None:
        """Take up anew what has fallen silent."""
        fallen = self._silence.fallen(self._consumer, {p: self._at.get(p) for p in self._parts if p[0] in _WITHOUT_HOLES})
        if fallen:
            why = f"records wait in {', '.join(f'{topic}/{number}' for topic, number in fallen)} and none comes: assigning anew"
            log.error(why)
            self._sink.account.failed(why)
            self._consumer.assign([])
            self._fresh = True

    def _lag(self, stored: dict[Part, int | None]) -> None:
        """Tell what waits before the first of it is delivered."""
        with contextlib.suppress(KafkaException):
            ends, firsts = (offsets(self._consumer, stored, where) for where in (OFFSET_END, OFFSET_BEGINNING))
            for part, at in stored.items():
                self._sink.account.lag(*part, max(0, ends.get(part, 0) - (firsts.get(part, 0) if at is None else at)))

    def _gather(self) -> Batch:
        """Records of one flush; empty if partitions changed hands meanwhile."""
        batch = Batch()
        end = time.monotonic() + self._flush_s
        while not self._stopping and batch.size < self._flush_bytes:
            left = end - time.monotonic()
            if left <= 0:
                break
            found = self._consumer.consume(500, min(_WAIT_S, left))
            if self._fresh:
                return Batch()
            for message in found:
                error = message.error()
                if error is None:
                    self._add(batch, as_record(message))
                elif error.fatal():
                    raise SinkError(f"Kafka: {error.str()}; does another process run with the same --group and --instance?")
                else:
                    log.warning("%s: %s", message.topic(), error.str())
        return batch

    def _add(self, batch: Batch, record: Record) -> None:
        part = record.topic, record.partition
        expected = self._at.get(part, record.offset)
        if record.offset < expected:
            log.error(
                "%s/%d: stored offset %d is behind the end: the topic was made anew? Reading it from %d",
                *part,
                expected,
                record.offset,
            )
        elif record.offset > expected and part not in batch.next and record.topic in _WITHOUT_HOLES:
            log.error(
                "%s/%d: offsets %d to %d are gone from Kafka before they were read: raise its retention",
                *part,
                expected,
                record.offset - 1,
            )
        batch.first.setdefault(part, expected)
        batch.next[part] = self._at[part] = record.offset + 1
        batch.records.append(record)
        batch.size += len(record.value)

    def _deliver(self, batch: Batch) -> None:
        account = self._sink.account
        began = time.monotonic()
        try:
            self._sink.write(batch)
        except (SinkError, NotDelivered) as error:
            account.settled(returned=account.in_flight)
            self._fresh = True
            if not self._stopping:
                self._consumer.assign([])  # a fetch must not go on from where the sink does not stand
                self._wait(str(error))
            return
        self._pause_s = _BACKOFF_S[0]
        account.flush_s.observe(time.monotonic() - began)
        account.delivered()
        self._monitor(batch)

    def _monitor(self, batch: Batch) -> None:
        """Tell Kafka's group offsets and our own lag: for people, nothing depends on it."""
        with contextlib.suppress(KafkaException):
            self._consumer.commit(offsets=[TopicPartition(*p, at) for p, at in batch.next.items()], asynchronous=True)
            for part, at in batch.next.items():
                end = self._consumer.get_watermark_offsets(TopicPartition(*part), cached=True)[1]
                self._sink.account.lag(*part, max(0, end - at))

    def _wait(self, why: str) -> None:
        """Pause before the next try, still a member of the group."""
        pause = random.uniform(0.2, 1) * self._pause_s
        log.warning("%s; next try in %.1f s", why, pause)
        self._sink.account.failed(why)
        self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
        end = time.monotonic() + pause
        while not self._stopping and time.monotonic() < end:
            self._consumer.poll(min(_WAIT_S, max(0.0, end - time.monotonic())))


@contextlib.contextmanager
def _signals(loop: Loop) -> Iterator[None]:
    old = {number: signal.signal(number, loop.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def main(make: Callable[[Settings, argparse.Namespace], Sink], group: str, parser: argparse.ArgumentParser) -> int:
    """Run a sink as a process: flags, logging, metrics, signals. Returns the exit code."""
    parser.add_argument("--group", default=group, help="Kafka consumer group")
    parser.add_argument("--instance", default="0", help="tells the instances of this sink apart, the same after a restart")
    parser.add_argument("--metrics-port", type=int, help="serve Prometheus metrics and /health here")
    if not any("--flush-s" in action.option_strings for action in parser._actions):
        parser.add_argument("--flush-s", type=float, default=FLUSH_S, help="seconds between deliveries")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    settings = Settings.from_env()
    sink = make(settings, options)
    loop = Loop(settings, sink, options.group, options.instance, options.flush_s)
    server = metrics.serve(options.metrics_port, sink.account) if options.metrics_port is not None else None
    log.info("%s started, group %s", sink.stage, options.group)
    with _signals(loop):
        loop.run()
    if server is not None:
        server.close()
    log.info("%s stopped: %s", sink.stage, sink.account.totals)
    return 0
