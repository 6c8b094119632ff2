"""The stream's loop: frames from Kafka, features and events to Kafka, exactly once.

What a round reads, what it sends and the offsets behind it are one Kafka transaction. The state is kept beside (checkpoint.py):
when partitions are assigned, and after any failure, each partition's snapshot is loaded, its frames are read again from there,
with nothing sent, up to the committed offset, and then the stream goes on. Killed anywhere, it sends the same rows once.
"""

import contextlib
import logging
import random
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from triax_proto.names import EVENTS, FEATURES, FRAMES

from triax_backend import crash
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.silence import Fallen, Silence
from triax_backend.stream import checkpoint
from triax_backend.stream.columns import of_records
from triax_backend.stream.output import Out, records
from triax_backend.stream.process import Score, Stream
from triax_backend.stream.state import BadSnapshot, State

__all__ = ["COMMIT_S", "GROUP", "SNAPSHOT_S", "Models", "Runner", "StreamStopped"]

log = logging.getLogger("triax.stream")

GROUP = "triax-stream"
COMMIT_S = 0.5  # of a transaction: it adds to the age of a feature, and costs Kafka some 20 ms of work
SNAPSHOT_S = 30.0  # between two snapshots of a partition: at ten times the live rate, 3 s of reading again after a crash
BYTES = 64 << 20  # of a round: two seconds of 10,000 devices; memory stays bounded while catching up
_WAIT_S = 0.1
_BACKOFF_S = (0.5, 15.0)
_TRANSACTION_MS = 60_000  # Kafka aborts an open one that is older: longer than any round


_CONSUMER = {  # and a static member of its group: one that was killed is back at its partitions at once
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "range",
    "session.timeout.ms": 10_000,
    "fetch.wait.max.ms": 100,
    "queued.max.messages.kbytes": 65_536,
}
_PRODUCER = {"transaction.timeout.ms": _TRANSACTION_MS, "linger.ms": 5, "compression.type": "lz4"}


class StreamStopped(RuntimeError):
    """The stream cannot go on; the message says why and what helps."""


class Models(Protocol):
    """Where models come from and how windows are scored: models/serving.py."""

    @property
    def score(self) -> Score:
        """Scores windows by the models at hand."""

    def poll(self) -> list[Out]:
        """Look for new models; return events about those that were refused."""

    def close(self) -> None:
        """Let go of Kafka."""


class Runner:
    """Runs until `stop`. `now` is monotonic seconds."""

    def __init__(
        self,
        settings: Settings,
        snapshots: checkpoint.Snapshots,
        *,
        group: str = GROUP,
        instance: str = "0",
        commit_s: float = COMMIT_S,
        snapshot_s: float = SNAPSHOT_S,
        models: Models | None = None,
        account: Account | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account = account or Account("stream")
        self._snapshots, self._models, self._now = snapshots, models, now
        self._commit_s, self._snapshot_s = commit_s, snapshot_s
        self._stopping, self._fresh = False, False
        self._stream = Stream(score=self._models.score if self._models else None)
        self._parts: list[int] = []  # ours in the group; assigned to the consumer once it is known where to read
        self._at: dict[int, int] = {}  # next offset to read, by partition
        self._silence = Silence()
        self._sent: dict[int, int] = {}  # offset up to which everything has been sent
        self._saved: dict[int, float] = {}
        self._pause_s = _BACKOFF_S[0]
        self._refused: list[Out] = []  # events about models, to be sent
        kafka: dict[str, Any] = {**settings.kafka_config(), "error_cb": self._kafka_error, "log_level": 2}
        self._consumer = Consumer({**kafka, **_CONSUMER, "group.id": group, "group.instance.id": f"{group}-{instance}"})
        self._producer_config = {**kafka, **_PRODUCER, "transactional.id": f"{group}-{instance}"}
        self._producer: Producer | None = None

    def _kafka_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            log.warning("Kafka is away (%s); waiting for it", error.str())

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Send what was read, then end. Fit for a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Stream until stopped. Raises StreamStopped."""
        self._consumer.subscribe([FRAMES], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)
        try:
            while not self._stopping:
                try:
                    if self._producer is None:
                        self._connect()
                    if self._fresh:
                        self._begin()
                    self._round()
                    self._look()
                except (KafkaException, OSError, BadSnapshot, Fallen) as error:
                    self._failed(error)
            if not self._fresh and self._producer is not None:
                self._save_all()
        finally:
            if self._models is not None:
                self._models.close()
            with contextlib.suppress(KafkaException):
                self._consumer.close()

    # -- partitions and state

    def _connect(self) -> None:
        """A producer whose transactions fence any older one of this instance."""
        producer = Producer(self._producer_config)
        counts = {}
        for topic in (FRAMES, FEATURES, EVENTS):
            found = producer.list_topics(topic, timeout=10).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            counts[topic] = len(found.partitions)
        if len(set(counts.values())) != 1:
            raise StreamStopped(
                f"topics differ in their number of partitions ({counts}): a device must have one partition in all of them"
            )
        producer.init_transactions(30)
        self._producer = producer

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        consumer.assign([])
        self._parts = [part.partition for part in parts]
        self._fresh = True

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if not self._fresh:  # between two rounds: whoever takes over need not read far back
            self._save_all()
        for part in parts:
            with contextlib.suppress(KeyError):
                self.account.lost_partition(part.topic, part.partition)
        self._parts, self._fresh = [], True
        consumer.unassign()

    def _begin(self) -> None:
        """State and place of every partition that is ours, from its snapshot."""
        parts = self._parts
        if not parts:
            self._fresh = False
            return
        if self._models is not None:  # what is read again must find the models that scored it
            self._refused += self._models.poll()
        committed = self._consumer.committed([TopicPartition(FRAMES, p) for p in parts], timeout=10)
        self._sent = {part.partition: max(part.offset, 0) for part in committed}
        self._stream = Stream(State(), self._models.score if self._models else None)
        places = []
        for partition in parts:
            data = self._snapshots.load(partition)
            start, end = OFFSET_BEGINNING, self._consumer.get_watermark_offsets(TopicPartition(FRAMES, partition), timeout=10)[1]
            if data is not None:
                try:
                    start, state = checkpoint.unpack(data)
                    self._stream.state.restore(state)
                except BadSnapshot as error:
                    log.error("partition %d: %s", partition, error)
                    start, data = OFFSET_BEGINNING, None
            if max(start, self._sent[partition]) > end:
                log.error(
                    "partition %d ends at %d, before what was sent: the topic was made anew? Reading it from the beginning",
                    partition,
                    end,
                )
                start, data, self._sent[partition] = OFFSET_BEGINNING, None, 0
                self._stream.state.drop([partition])
            if data is None and self._sent[partition]:
                log.warning(
                    "partition %d has no snapshot: reading it again from the beginning up to %d", partition, self._sent[partition]
                )
            places.append(TopicPartition(FRAMES, partition, start))
        self._at = {place.partition: place.offset for place in places if place.offset >= 0}
        self._saved = dict.fromkeys(parts, self._now())
        self._consumer.assign(places)
        self._silence.forget()
        self._fresh = False

    def _look(self) -> None:
        """Take up anew what has fallen silent."""
        fallen = [] if self._fresh else self._silence.fallen(self._consumer, {(FRAMES, p): self._at.get(p) for p in self._parts})
        if fallen:
            raise Fallen(f"records wait in {fallen} and none comes: assigning anew")

    def _save(self, partition: int) -> None:
        state = self._stream.state.snapshot(partition)
        try:
            self._snapshots.save(partition, checkpoint.pack(self._sent[partition], state))
        except OSError as error:  # the one before is still good
            log.warning("no snapshot of partition %d: %s", partition, error)
        self._saved[partition] = self._now()
        crash.point("stream_after_snapshot")

    def _save_due(self) -> None:
        """One snapshot a round at most, the oldest: the work is spread."""
        due = [(at, p) for p, at in self._saved.items() if self._now() - at >= self._snapshot_s and self._behind(p)]
        if due:
            self._save(min(due)[1])

    def _behind(self, partition: int) -> bool:
        """The state stands for the committed offset, neither before nor after it."""
        return self._at.get(partition) == self._sent.get(partition)

    def _save_all(self) -> None:
        for partition in self._saved:
            if self._behind(partition):
                self._save(partition)

    # -- a round

    def _round(self) -> None:
        if self._models is not None:
            self._refused += self._models.poll()
        refused = list(self._refused)
        found = self._gather()
        if self._fresh or not (found or refused):
            return
        silent: list[tuple[int, bytes]] = []
        live: list[tuple[int, bytes]] = []
        for message in found:
            partition, offset = int(message.partition() or 0), int(message.offset() or 0)
            known = offset < self._sent.get(partition, 0)
            (silent if known else live).append((partition, message.value() or b""))
            self._at[partition] = offset + 1
        if silent:
            self._stream.process(of_records(silent)[0])
        if live or refused:
            self._send(live, refused)
            del self._refused[: len(refused)]
            self._save_due()
        self._pause_s = _BACKOFF_S[0]

    def _gather(self) -> list[Message]:
        """Records of one round; none if partitions changed hands meanwhile."""
        found: list[Message] = []
        size, end = 0, self._now() + self._commit_s
        while not self._stopping and not self._fresh and size < BYTES and (left := end - self._now()) > 0:
            for message in self._consumer.consume(1000, min(_WAIT_S, left)):
                if message.error() is not None:
                    raise KafkaException(message.error())
                found.append(message)
                size += len(message)
        return [] if self._fresh else found

    def _send(self, live: list[tuple[int, bytes]], refused: list[Out]) -> None:
        """Process and send in one transaction with the offsets."""
        producer = self._producer
        assert producer is not None  # made before any round
        began = self._now()
        columns, bad = of_records(live)
        self.account.took(len(columns) + bad)
        repeats = self._stream.repeats
        features, events = self._stream.process(columns)
        repeats = self._stream.repeats - repeats
        producer.begin_transaction()
        for topic, partition, key, value in [*refused, *records(self._stream.state, features, events)]:
            self._produce(producer, topic, partition, key, value)
        crash.point("stream_after_produce", self.account.in_flight)
        behind = {p: self._at[p] for p, _ in live}
        offsets = [TopicPartition(FRAMES, p, at) for p, at in behind.items()]
        if offsets:
            producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata(), 30)
        crash.point("stream_before_commit", self.account.in_flight)
        producer.commit_transaction(30)
        crash.point("stream_after_commit", self.account.in_flight)
        self._sent |= behind
        self.account.settled(out=len(columns) - repeats, repeats=repeats)
        if bad:
            self.account.dead("unreadable", bad)
        self.account.flush_s.observe(self._now() - began)
        self.account.delivered()
        for partition, at in behind.items():
            end = self._consumer.get_watermark_offsets(TopicPartition(FRAMES, partition), cached=True)[1]
            self.account.lag(FRAMES, partition, max(0, end - at))

    def _produce(self, producer: Producer, topic: str, partition: int, key: bytes | None, value: bytes) -> None:
        while True:
            try:
                producer.produce(topic, value, key, partition)
            except BufferError:
                producer.poll(_WAIT_S)
            else:
                return

    def _failed(self, error: Exception) -> None:
        """Give up the round: what it changed is void, and state and place come from the snapshots again."""
        kafka = error.args[0] if isinstance(error, KafkaException) else None
        self.account.settled(returned=self.account.in_flight)
        self.account.failed(str(error))
        if self._producer is not None:
            try:
                self._producer.abort_transaction(10)
            except KafkaException:
                self._producer = None  # a new one takes its place and ends what it left open
        if kafka is not None and kafka.fatal():
            self._producer = None
        self._fresh = True
        pause = random.uniform(0.2, 1) * self._pause_s
        log.warning("%s; going back to the snapshots in %.1f s", kafka.str() if kafka is not None else error, pause)
        self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
        self._consumer.assign([])
        end = self._now() + pause
        while not self._stopping and self._now() < end:
            self._consumer.poll(min(_WAIT_S, max(0.0, end - self._now())))
