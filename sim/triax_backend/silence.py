"""Partitions that Kafka's client no longer fetches: records wait in them, and between two looks none has come.

Seen where partitions had been paused, assigned and resumed; nothing pauses them any more. Should it happen all the same, their
reader has them assigned anew, which repeats nothing, and says so.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

__all__ = ["Fallen", "Silence", "offsets"]

Part = tuple[str, int]  # topic, partition

_LOOK_S = 10.0
_TIMEOUT_S = 1.0


class Fallen(RuntimeError):
    """Partitions have fallen silent; the message names them."""


def offsets(consumer: Consumer, parts: Iterable[Part], where: int) -> dict[Part, int]:
    """Offset of the first record (`where` OFFSET_BEGINNING) or behind the last (OFFSET_END) of each partition.

    One request: it waits at the broker behind this consumer's fetch (a quarter of a second), so one for each partition would stop
    a sink for seconds. Raises KafkaException.
    """
    asked = [TopicPartition(*part, where) for part in parts]
    found = consumer.offsets_for_times(asked, timeout=_TIMEOUT_S) if asked else []
    return {(one.topic, one.partition): one.offset for one in found if one.error is None}


class Silence:
    """For topics whose every offset is a record: no transactions, no compaction."""

    def __init__(self, look_s: float = _LOOK_S) -> None:
        self._look_s = look_s
        self.forget()

    def forget(self) -> None:
        """Partitions were assigned."""
        self._looked_s = time.monotonic()
        self._at: dict[Part, int | None] = {}  # of the last look
        self._waiting: dict[Part, int] = {}  # where records were waiting then

    def fallen(self, consumer: Consumer, at: Mapping[Part, int | None]) -> list[Part]:
        """Those of `at` (next offset, None: the first) in which records waited at the last look already, and none has come; none
        if it is too early. Kafka is asked only about those that stand still.
        """
        if time.monotonic() - self._looked_s < self._look_s:
            return []
        still = {part: offset for part, offset in at.items() if part in self._at and self._at[part] == offset}
        waiting = {}
        with contextlib.suppress(KafkaException):  # Kafka is away: that is another trouble
            ends = offsets(consumer, still, OFFSET_END)
            first = offsets(consumer, [part for part, offset in still.items() if offset is None], OFFSET_BEGINNING)
            begins = {part: first.get(part, 0) if offset is None else offset for part, offset in still.items()}
            waiting = {part: begin for part, begin in begins.items() if ends.get(part, 0) > begin}
        found = [part for part, offset in waiting.items() if self._waiting.get(part) == offset]
        self._looked_s, self._at, self._waiting = time.monotonic(), dict(at), waiting
        return found
