"""Partitions that Kafka's client no longer fetches: records wait in them, and between two looks none has come.

Seen where partitions had been paused, assigned and resumed; nothing pauses them any more. Should it happen all the same, their
reader has them assigned anew, which repeats nothing, and says so.
"""

import contextlib
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

__all__ = ["Fallen", "Silence"]

Part = tuple[str, int]  # topic, partition

_LOOK_S = 15.0
_TIMEOUT_S = 1.0


class Fallen(RuntimeError):
    """Partitions have fallen silent; the message names them."""


class Silence:
    """For topics whose every offset is a record: no transactions, no compaction."""

    def __init__(self, look_s: float = _LOOK_S) -> None:
        self._look_s = look_s
        self._looked_s = time.monotonic()
        self._waiting: dict[Part, int] = {}  # where records were waiting at the last look: the next offset

    def forget(self) -> None:
        """Partitions were assigned."""
        self._looked_s, self._waiting = time.monotonic(), {}

    def fallen(self, consumer: Consumer, at: Mapping[Part, int | None]) -> list[Part]:
        """Those of `at` (next offset, None: the first) that have stood still since the last look; none if it is too early."""
        if time.monotonic() - self._looked_s < self._look_s:
            return []
        waiting = {}
        with contextlib.suppress(KafkaException):  # Kafka is away: that is another trouble
            for part, offset in at.items():
                low, end = consumer.get_watermark_offsets(TopicPartition(*part), timeout=_TIMEOUT_S)
                if end > (low if offset is None else offset):
                    waiting[part] = low if offset is None else offset
        found = [part for part, offset in waiting.items() if self._waiting.get(part) == offset]
        self._looked_s, self._waiting = time.monotonic(), waiting
        return found
