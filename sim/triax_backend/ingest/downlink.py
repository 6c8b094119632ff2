"""What nodes are told: the compacted topic triax.config.v1 as a table, kept up to date by a thread.

Key of a record: `<device>/config` or `<device>/calibration`; value: the payload as the node gets it, none to delete it. With
`/once` behind the key it is a message for who is subscribed now, and changes nothing.

The same thread follows the states in triax.devices.v1: a node that has moved to another front must not be declared offline by the
one that it left, whose connection ends later. Every state record names the connection that it came by, in a header.
"""

import logging
import threading
from collections import deque
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from triax_proto.names import CONFIG, DEVICES

from triax_backend.produce import CONNECTION, ONCE
from triax_backend.settings import Settings
from triax_backend.topics import TopicsUnavailable

__all__ = ["Downlink"]

log = logging.getLogger("triax.ingest")

_METADATA_S = 5.0
_LOAD_S = 60.0
_STATE = "/status"


class Downlink:
    """`get` and `moved` are for the loop's thread; `changes` are (device and kind, payload) that came since the last look."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer(
            {
                **settings.kafka_config(),
                "group.id": "triax-ingest",  # never used: partitions are assigned by hand, nothing is committed
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
            },
            logger=log,
        )
        self._table: dict[str, bytes] = {}
        self._where: dict[str, bytes] = {}
        self._fresh: deque[tuple[str, bytes]] = deque()
        self._ends: set[int] = set()
        self._loaded = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="downlink", daemon=True)

    def start(self) -> None:
        """Load the table, then follow it. Raises TopicsUnavailable."""
        try:
            found = self._consumer.list_topics(timeout=_METADATA_S).topics
        except KafkaException as error:
            raise TopicsUnavailable(f"Kafka does not answer: {error.args[0].str()}") from None
        missing = [topic for topic in (CONFIG, DEVICES) if topic not in found]
        if missing:
            raise TopicsUnavailable(f"Kafka has no topic {missing[0]}: `python -m triax_backend.topics` creates it")
        self._wanted = set(found[CONFIG].partitions)
        self._consumer.assign(
            [TopicPartition(CONFIG, number, OFFSET_BEGINNING) for number in found[CONFIG].partitions]
            + [TopicPartition(DEVICES, number, OFFSET_END) for number in found[DEVICES].partitions]
        )
        self._thread.start()
        if not self._loaded.wait(_LOAD_S):
            raise TopicsUnavailable(f"{CONFIG} could not be read to its end within {_LOAD_S:.0f} s")

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                for message in self._consumer.consume(500, 0.2):
                    self._take(message)
            except KafkaException as error:
                log.warning("configuration cannot be followed: %s", error.args[0].str())
        self._consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and message.topic() == CONFIG:
                self._ends.add(message.partition() or 0)
                if self._ends >= self._wanted:
                    self._loaded.set()
            return
        key = (message.key() or b"").decode(errors="replace")
        if message.topic() == DEVICES:
            headers: dict[str, Any] = dict(message.headers() or [])
            if key.endswith(_STATE) and CONNECTION in headers:
                self._where[key[: -len(_STATE)]] = headers[CONNECTION]
            return
        value = message.value() or b""
        if not key.endswith(ONCE):
            self._table[key] = value
            if not value:
                del self._table[key]
        if self._loaded.is_set():
            self._fresh.append((key.removesuffix(ONCE), value))

    def get(self, key: str) -> bytes | None:
        """Payload for "<device>/config" or "<device>/calibration"."""
        return self._table.get(key)

    def moved(self, device: str, connection: bytes) -> bool:
        """True if the device's last known state came by another connection than this one."""
        return self._where.get(device, connection) != connection

    def changes(self) -> list[tuple[str, bytes]]:
        """What has changed since the last call, in order; an empty payload: deleted."""
        out = []
        while self._fresh:
            out.append(self._fresh.popleft())
        return out

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
