"""A Kafka topic from one point to its end as of now, read once, outside any consumer group."""

import time
from collections.abc import Iterator, Mapping

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from triax_backend.frames import Record
from triax_backend.settings import Settings

__all__ = ["KafkaSilent", "as_record", "headers_of", "messages", "partitions_of", "records"]

_TIMEOUT_S = 30.0
_AGAIN_S = 0.5
_EMPTY = b""


class KafkaSilent(RuntimeError):
    """Kafka does not answer, or has no such topic; the message says which."""


def _start_of(consumer: Consumer, topic: str, partition: int, start: Mapping[int, int], since_us: int | None) -> int:
    if partition in start:
        return start[partition]
    if since_us is None:
        return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)[0])
    at = consumer.offsets_for_times([TopicPartition(topic, partition, since_us // 1000)], timeout=_TIMEOUT_S)[0].offset
    if at >= 0:
        return int(at)
    return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)[1])


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """Partitions of a topic by its metadata. Raises KafkaSilent."""
    try:
        found = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise KafkaSilent(f"{topic}: {error.args[0].str()}; is Kafka there? TRIAX_KAFKA says where") from None
    if found.error is not None:
        raise KafkaSilent(f"{topic}: {found.error.str()}; `python -m triax_backend.topics` creates the topics")
    return sorted(found.partitions)


def messages(
    settings: Settings,
    topic: str,
    start: Mapping[int, int] | None = None,
    since_us: int | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> Iterator[list[Message]]:
    """Messages of a topic from `start` (offset by partition), else from `since_us` (UTC of the record), else from the beginning.

    Ends at the end that the topic had when the call began. Raises KafkaSilent.
    """
    consumer, assigned, ends = _open(settings, topic, start or {}, since_us, timeout_s)
    try:
        consumer.assign(assigned)
        yield from _until(consumer, topic, ends, timeout_s)
    except KafkaException as error:
        raise KafkaSilent(f"{topic}: {error.args[0].str()}") from None
    finally:
        consumer.close()


def _open(
    settings: Settings, topic: str, start: Mapping[int, int], since_us: int | None, timeout_s: float
) -> tuple[Consumer, list[TopicPartition], dict[int, int]]:
    """A consumer, where to begin, and the end of each partition that holds something. Raises KafkaSilent."""
    deadline = time.monotonic() + timeout_s
    while True:
        consumer = Consumer(
            {
                **settings.kafka_config(),
                "group.id": "triax-scan",  # asked for by the client; nothing is committed to it
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        try:
            ends: dict[int, int] = {}
            assigned = []
            for partition in partitions_of(consumer, topic):
                at = _start_of(consumer, topic, partition, start, since_us)
                end = int(consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)[1])
                if at < end:
                    ends[partition] = end
                    assigned.append(TopicPartition(topic, partition, at))
            return consumer, assigned, ends
        except KafkaSilent:
            consumer.close()
            raise
        except KafkaException as error:
            consumer.close()
            # A partition has no leader for a moment after its topic was made or a broker came back. A client that has seen that
            # keeps asking the wrong broker, a new one does not.
            if time.monotonic() > deadline:
                raise KafkaSilent(f"{topic}: {error.args[0].str()}") from None
            time.sleep(_AGAIN_S)


def _until(consumer: Consumer, topic: str, ends: dict[int, int], timeout_s: float) -> Iterator[list[Message]]:
    last = time.monotonic()
    while ends:
        found = consumer.consume(10_000, 0.2)
        if found:
            last = time.monotonic()
        elif time.monotonic() - last > timeout_s:
            raise KafkaSilent(f"{topic}: nothing came for {timeout_s:.0f} s, and partitions {sorted(ends)} are not at their end")
        out = []
        for message in found:
            partition, offset = _place(message)
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                ends.pop(partition, None)
                continue
            end = ends.get(partition)
            if end is None:
                continue
            if offset < end:
                out.append(message)
            if offset >= end - 1:
                ends.pop(partition)
        if out:
            yield out


def _place(message: Message) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    return -1 if partition is None else partition, -1 if offset is None else offset


def as_record(message: Message) -> Record:
    """What the sinks need of a message. A tombstone's value is empty."""
    kind, timestamp_ms = message.timestamp()
    received_us = timestamp_ms * 1000 if kind in (TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME) else 0
    value = message.value()
    partition, offset = _place(message)
    return Record(message.topic() or "", partition, offset, received_us, _EMPTY if value is None else value, message.key())


def headers_of(message: Message) -> dict[str, str]:
    """Headers as text, the last of a name."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return {pair[0]: pair[1].decode(errors="replace") if isinstance(pair[1], bytes) else pair[1] or "" for pair in pairs}


def records(
    settings: Settings, topic: str, start: Mapping[int, int] | None = None, since_us: int | None = None
) -> Iterator[list[Record]]:
    """As `messages`, as records."""
    for found in messages(settings, topic, start, since_us):
        yield [as_record(message) for message in found]
