"""The way into Kafka for bridge and ingest front: batches whose completion is told in order, so that a PUBACK can mean "in Kafka".

A batch is what one round took from the network. It is complete when Kafka has reported every one of its records; batches complete
in the order in which they were begun, so acknowledgements keep the order of receipt on every connection [MQTT-4.6.0-2].

A report other than success is one of two things. *Poison*: Kafka will never take the record (too large, invalid); its original
bytes go to the dead-letter topic and that settles it. *Unknown*, everything else, above all a delivery timeout: the record may be
in Kafka or not, so it is produced again, and a repeat is removed downstream by (device, boot, sequence).
"""

import logging
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from triax_proto.batch import join, split
from triax_proto.frame import parse
from triax_proto.names import CONFIG, DEADLETTER, DEVICES, EVENTS, FRAMES, RAW, mqtt_topic, split_topic

from triax_backend import crash, frame_rows
from triax_backend.metrics import Account
from triax_backend.settings import Settings
from triax_backend.topics import TopicsUnavailable

__all__ = ["CONNECTION", "MESSAGE_BYTES", "ONCE", "Batch", "KafkaOut", "round_s"]

log = logging.getLogger(__name__)

# Kafka's default limit of a record batch is 1,048,588 bytes; what is larger than this, envelope included, is poison from the start.
MESSAGE_BYTES = 1_000_000
_ENVELOPE_BYTES = 3_000  # topic as a header, cause, key
_DEAD_BYTES = 64_000  # of a message that is too large, kept in its dead letter
_TIMEOUT_MS = 30_000  # delivery.timeout: then the record's fate is unknown and it is produced again
_RETRY_S = 0.5  # before it is produced again; Kafka's own retries come within the timeout
_METADATA_S = 5.0

# At the least 50 ms: a round costs 16 records, one a partition, however few its frames are, and Kafka and each of its readers pay
# by the record. At the most 250 ms: a node of three devices with its window of 8 sends 30 frames/s.
_ROUND_S = (0.05, 0.25)
_FRAMES_PER_ROUND_S = 60_000  # at 15,000 frames/s a round is 250 ms

_POISON = {
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
}

Headers = list[tuple[str, str | bytes | None]]
# By which connection a state came; see triax_backend.ingest.downlink.
CONNECTION = "connection"
DOWNLINK = ("config", "calibration")
ONCE = "/once"
KINDS = {"raw": RAW, "info": DEVICES, "status": DEVICES, "config/ack": DEVICES, "event": EVENTS}


def round_s(frames_s: float) -> float:
    """Length of a round at this rate: the busier, the longer."""
    return min(_ROUND_S[1], max(_ROUND_S[0], frames_s / _FRAMES_PER_ROUND_S))


class Batch:
    """One round's messages. `token` is the owner's: what to acknowledge when the batch is complete."""

    __slots__ = ("messages", "open", "token")

    def __init__(self, token: Any) -> None:
        self.token = token
        self.open = 1  # closed by `seal`
        self.messages = 0


class _Record:
    __slots__ = ("batch", "headers", "key", "messages", "partition", "source", "topic", "value")

    def __init__(
        self,
        batch: Batch,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None,
        headers: Headers | None,
        messages: int,
        source: str,
    ) -> None:
        self.batch, self.topic, self.partition, self.value = batch, topic, partition, value
        self.key, self.headers, self.messages, self.source = key, headers, messages, source


class KafkaOut:
    """Produces the messages of one process. Raises TopicsUnavailable if Kafka cannot be asked for the number of partitions."""

    def __init__(self, settings: Settings, account: Account, *, stage: str, extra: dict[str, Any] | None = None) -> None:
        self.account = account
        self.stage = stage
        self.config: dict[str, Any] = {
            **settings.kafka_config(),
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 1,  # rounds are batches already
            "delivery.timeout.ms": _TIMEOUT_MS,
            "message.max.bytes": MESSAGE_BYTES,
            "compression.type": "none",
            "queue.buffering.max.messages": 1_000_000,  # the owner's window is what bounds memory
            "reconnect.backoff.max.ms": 2_000,
            "socket.keepalive.enable": True,
            "error_cb": self._trouble,
            **(extra or {}),
        }
        self._producer = Producer(self.config, logger=log)
        self._batches: deque[Batch] = deque()
        self._open: dict[int, _Record] = {}  # records in the producer's hands, by id
        self._again: deque[tuple[float, _Record]] = deque()
        self._fatal = False
        self.partitioner = frame_rows.Partitioner(self._partitions())

    def _partitions(self) -> int:
        try:
            found = self._producer.list_topics(FRAMES, timeout=_METADATA_S).topics[FRAMES]
        except KafkaException as error:
            raise TopicsUnavailable(f"Kafka does not answer: {error.args[0].str()}") from None
        if found.error is not None or not found.partitions:
            raise TopicsUnavailable(f"Kafka has no topic {FRAMES}: `python -m triax_backend.topics` creates it")
        return len(found.partitions)

    # -- filling a batch

    def begin(self, token: Any = None) -> Batch:
        """A new batch, the last in order; `seal` it when all is in."""
        batch = Batch(token)
        self._batches.append(batch)
        return batch

    def seal(self, batch: Batch) -> None:
        """No more comes into `batch`."""
        batch.open -= 1
        if batch.messages:
            crash.point("after_produce", self.account.in_flight)

    def rows(self, batch: Batch, rows: frame_rows.Rows) -> None:
        """Ordinary frames: what is proved goes to the frames topic, the rest to the dead letters."""
        records = frame_rows.to_records(rows.frames)
        good, causes = frame_rows.prove(records, rows.texts)
        for index, cause in causes.items():
            text = bytes(rows.texts[index]).decode(errors="replace")
            self.dead(batch, f"triax/v1/{text}/frame", rows.frames[index].tobytes(), cause)
        if causes:
            records = np.ascontiguousarray(records[good])
        if not len(records):
            return
        self.account.took(len(records))
        batch.messages += len(records)
        partitions = self.partitioner(records[:, len(frame_rows.HEAD) :])
        for number, value, count in frame_rows.by_partition(records, partitions):
            self._produce(_Record(batch, FRAMES, number, value, None, None, count, ""))

    def message(
        self, batch: Batch, topic: str, payload: bytes, connection: bytes | None = None, *, downlink: str | None = None
    ) -> None:
        """Any MQTT message, by its topic; what no topic of ours explains is a dead letter.

        `connection` goes into the header of a state. `downlink`: configuration and calibration may be set this way, and this is
        what follows the kind in the record's key: "" for what is to stay, ONCE for what is only for who is there.
        """
        device, kind = split_topic(topic) or (0, "")
        if len(payload) > MESSAGE_BYTES - _ENVELOPE_BYTES:
            self.dead(batch, topic, payload, "too large")
        elif kind == "frame":
            self._odd_frame(batch, topic, device, payload)
        elif kind in KINDS:
            target = KINDS[kind]
            key = f"{device:016x}/{kind}" if target == DEVICES else f"{device:016x}"
            headers: Headers | None = [(CONNECTION, connection)] if connection and kind == "status" else None
            self._one(batch, device, target, key, payload, headers, topic)
        elif kind in DOWNLINK and downlink is not None:
            self._one(batch, device, CONFIG, f"{device:016x}/{kind}{downlink}", payload or None, None, topic)
        else:
            self.dead(batch, topic, payload, "unknown topic")

    def _one(
        self, batch: Batch, device: int, target: str, key: str, value: bytes | None, headers: Headers | None, source: str
    ) -> None:
        self._took(batch)
        self._produce(_Record(batch, target, self.partitioner.one(device), value, key.encode(), headers, 1, source))

    def _odd_frame(self, batch: Batch, topic: str, device: int, payload: bytes) -> None:
        """A frame of another shape: the ordinary parser decides."""
        cause = frame_rows.odd_frame_cause(payload, device)
        if cause:
            self.dead(batch, topic, payload, cause)
            return
        self._took(batch)
        self._produce(_Record(batch, FRAMES, self.partitioner.one(device), join([payload]), None, None, 1, topic))

    def dead(self, batch: Batch, source: str, payload: bytes, cause: str) -> None:
        """Original bytes to the dead-letter topic."""
        self._took(batch)
        self._dead(batch, source, payload, cause)

    def _took(self, batch: Batch) -> None:
        self.account.took(1)
        batch.messages += 1

    def _dead(self, batch: Batch, source: str, payload: bytes, cause: str) -> None:
        headers: Headers = [
            ("cause", cause.encode()),
            ("stage", self.stage.encode()),
            ("source", source.encode()[:1_000]),
            ("time_us", str(time.time_ns() // 1_000).encode()),
        ]
        if len(payload) > MESSAGE_BYTES - _ENVELOPE_BYTES:
            headers.append(("bytes", str(len(payload)).encode()))
            payload = payload[:_DEAD_BYTES]
        self._produce(_Record(batch, DEADLETTER, -1, payload, None, headers, 1, cause))

    # -- Kafka

    def _produce(self, record: _Record) -> None:
        record.batch.open += 1
        self._send(record)

    def _send(self, record: _Record) -> None:
        self._open[id(record)] = record
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                on_delivery=partial(self._reported, record),
                timestamp=time.time_ns() // 1_000_000,
                headers=record.headers or [],
            )
        except BufferError:
            self._later(record)
        except KafkaException as error:
            self._failed(record, error.args[0])

    def _reported(self, record: _Record, error: KafkaError | None, _message: Message) -> None:
        if self._open.get(id(record)) is not record:
            return  # a report of a producer that was replaced
        if error is not None:
            self._failed(record, error)
            return
        del self._open[id(record)]
        record.batch.open -= 1
        if record.topic == DEADLETTER:
            self.account.dead(record.source, record.messages)
        else:
            self.account.settled(out=record.messages)

    def _failed(self, record: _Record, error: KafkaError) -> None:
        if error.code() in _POISON and record.topic != DEADLETTER:
            del self._open[id(record)]
            self._poison(record, error)
            return
        self.account.failed(error.str())
        log.warning(
            "%s: %d messages for %s are unknown and produced again: %s", self.stage, record.messages, record.topic, error.str()
        )
        self._later(record)

    def _poison(self, record: _Record, error: KafkaError) -> None:
        """Kafka will not take `record` as it is: a batch of frames is halved until the one that it refuses is alone."""
        if record.topic != FRAMES:
            self._dead(record.batch, record.source, record.value or b"", f"refused by Kafka: {error.name()}")
        else:
            frames = split(record.value or b"")
            if len(frames) == 1:
                source = record.source or mqtt_topic(int(parse(frames[0])["device"][0]), "frame")
                self._dead(record.batch, source, frames[0], f"refused by Kafka: {error.name()}")
            else:
                half = len(frames) // 2
                for part in (frames[:half], frames[half:]):
                    self._produce(_Record(record.batch, FRAMES, record.partition, join(part), None, None, len(part), record.source))
        record.batch.open -= 1

    def _later(self, record: _Record) -> None:
        self._open.pop(id(record), None)
        self._again.append((time.monotonic() + _RETRY_S, record))

    def _trouble(self, error: KafkaError) -> None:
        self._fatal = self._fatal or error.fatal()
        log.warning("%s: Kafka: %s", self.stage, error.str())

    def _replace(self) -> None:
        """A fatal error ends an idempotent producer; all that it had not delivered goes to a new one, in order."""
        log.warning("%s: a fatal error of the producer; a new one takes %d records over", self.stage, len(self._open))
        self._fatal = False
        waiting = list(self._open.values())
        self._open.clear()
        self._producer.purge()
        self._producer = Producer(self.config, logger=log)
        for record in waiting:
            self._send(record)

    def poll(self, wait_s: float = 0.0) -> Iterable[Batch]:
        """Take Kafka's reports; give the batches that are now complete, in order."""
        self._producer.poll(wait_s)
        if self._fatal:
            self._replace()
        now = time.monotonic()
        while self._again and self._again[0][0] <= now:
            self._send(self._again.popleft()[1])
        while self._batches and self._batches[0].open == 0:
            self.account.delivered()
            if self._batches[0].messages:
                crash.point("before_ack", self._batches[0].messages)
            yield self._batches.popleft()

    @property
    def waits(self) -> bool:
        """True while a report of Kafka is awaited."""
        return bool(self._batches)

    @property
    def in_flight(self) -> int:
        """Messages taken and not yet settled."""
        return self.account.in_flight
