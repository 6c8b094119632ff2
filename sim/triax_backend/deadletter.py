"""Dead letters: what could not be passed on, with its original bytes and why; any stage writes them, people list and replay them.

Headers of a record in triax.deadletter.v1:
    cause     one of a short list, the same for every letter of its kind        stage    who gave up
    source    topic/partition/offset of Kafka, or the MQTT topic                time_us  UTC when
    target    Kafka topic that the bytes were on their way to                   form     "frame": one frame; "record": a whole value
    detail    a sentence about this one                                         bytes    how many they were, if not all are here
A letter without `target` and `form` (another stage's) is placed by its source where that is one of our MQTT topics.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from triax_proto import batch, names
from triax_proto.errors import FrameError
from triax_proto.frame import parse

from triax_backend import scan
from triax_backend.metrics import Account
from triax_backend.settings import Settings

__all__ = ["CONFLICT", "UNREADABLE", "DeadLetter", "DeadLetters", "Heap", "NotDelivered", "Replayed", "group", "letters", "replay"]

CONFLICT = "identity conflict"
UNREADABLE = "unreadable"
_FLUSH_S = 30.0
_PRODUCER = {"enable.idempotence": True, "linger.ms": 5, "delivery.timeout.ms": 20_000, "log_level": 0}
_KINDS = {"frame": names.FRAMES, "raw": names.RAW, "event": names.EVENTS, "info": names.DEVICES, "status": names.DEVICES}


class NotDelivered(RuntimeError):
    """Kafka did not take what must be there before work goes on."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter. `where`: its own place in the dead-letter topic, partition/offset."""

    data: bytes
    cause: str
    stage: str
    source: str
    time_us: int
    target: str = ""
    form: str = "frame"
    detail: str = ""
    key: bytes | None = None
    where: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Heap:
    """Letters of one cause and stage. `example`: the newest one's detail."""

    cause: str
    stage: str
    count: int
    first_us: int
    last_us: int
    example: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did. `refused`: number of letters by reason."""

    sent: int
    refused: dict[str, int]


class DeadLetters:
    """Producer of dead letters and of events about them, for one stage. Nothing counts as sent before `flush` returned."""

    def __init__(self, settings: Settings, stage: str, account: Account) -> None:
        self._stage = stage
        self._account = account
        self._failed, self._fatal = "", False
        self._waiting: Counter[str] = Counter()
        self._config = {**settings.kafka_config(), **_PRODUCER}
        self._producer = Producer(self._config)

    def put(self, letter: DeadLetter) -> None:
        """Send a letter of this stage; `stage` and `time_us` are set here."""
        headers: list[tuple[str, str | bytes | None]] = [
            ("cause", letter.cause),
            ("stage", self._stage),
            ("source", letter.source),
            ("time_us", str(time.time_ns() // 1000)),
            ("target", letter.target),
            ("form", letter.form),
            ("detail", letter.detail),
        ]
        self.send(names.DEADLETTER, letter.data, key=letter.key, headers=headers)
        self._waiting[letter.cause] += 1

    def event(self, data: bytes, partition: int) -> None:
        """Send an encoded Event about a device of this partition."""
        self.send(names.EVENTS, data, partition)

    def partitions(self) -> dict[str, int]:
        """Number of partitions of each of our topics. Raises NotDelivered."""
        try:
            found = self._producer.list_topics(timeout=_FLUSH_S).topics
        except KafkaException as error:
            raise NotDelivered(f"Kafka does not answer: {error.args[0].str()}") from None
        return {topic: len(found[topic].partitions) for topic in names.KAFKA_TOPICS if topic in found}

    def send(
        self,
        topic: str,
        value: bytes,
        partition: int = -1,
        key: bytes | None = None,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """Send any record; `partition` -1: by key."""
        while True:
            try:
                self._producer.produce(
                    topic, value=value, key=key, headers=headers or [], partition=partition, on_delivery=self._delivered
                )
                return
            except BufferError:  # the producer's queue is full: wait for some of it to go
                self._producer.poll(0.1)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed = error.str()
            self._fatal = self._fatal or error.fatal()

    def flush(self) -> dict[str, int]:
        """Wait until Kafka has everything put since the last flush; number of letters by cause. Raises NotDelivered."""
        left = self._producer.flush(_FLUSH_S)
        failed, self._failed = self._failed, ""
        waiting, self._waiting = dict(self._waiting), Counter()
        if left or failed:
            self._producer.purge()
            if self._fatal:  # an idempotent producer that lost its place never works again
                self._producer, self._fatal = Producer(self._config), False
            raise NotDelivered(f"dead letters do not reach Kafka: {failed or f'{left} not delivered in {_FLUSH_S:.0f} s'}")
        return waiting


def _letter(message: Message) -> DeadLetter:
    head = scan.headers_of(message)
    time_us = head.get("time_us", "")
    source = head.get("source", "")
    target, form = head.get("target", ""), head.get("form", "frame")
    if not target:
        topic = names.split_topic(source)
        target = _KINDS.get(topic[1], "") if topic else ""
        form = "frame" if target == names.FRAMES else "record"
    return DeadLetter(
        message.value() or b"",
        head.get("cause", "unknown"),
        head.get("stage", "unknown"),
        source,
        int(time_us) if time_us.isdecimal() else message.timestamp()[1] * 1000,
        target,
        form,
        head.get("detail", ""),
        message.key(),
        f"{message.partition()}/{message.offset()}",
        "bytes" in head,
    )


def letters(
    settings: Settings, *, cause: str | None = None, stage: str | None = None, since_us: int | None = None
) -> Iterator[DeadLetter]:
    """Dead letters in the topic, oldest first within a partition. Raises scan.KafkaSilent."""
    for found in scan.messages(settings, names.DEADLETTER, since_us=since_us):
        for message in found:
            letter = _letter(message)
            if cause in (None, letter.cause) and stage in (None, letter.stage):
                yield letter


def group(found: Iterable[DeadLetter]) -> list[Heap]:
    """Letters by cause and stage, the largest heap first."""
    heaps: dict[tuple[str, str], Heap] = {}
    for one in found:
        old = heaps.get((one.cause, one.stage))
        newest = old is None or one.time_us >= old.last_us
        heaps[one.cause, one.stage] = Heap(
            one.cause,
            one.stage,
            (old.count if old else 0) + 1,
            min(one.time_us, old.first_us) if old else one.time_us,
            one.time_us if newest else old.last_us,  # type: ignore[union-attr]
            (one.detail or one.source) if newest else old.example,  # type: ignore[union-attr]
        )
    return sorted(heaps.values(), key=lambda h: -h.count)


def _place(letter: DeadLetter, partitions: dict[str, int]) -> tuple[bytes, int]:
    """Value and partition that a letter goes back to. Raises ValueError, FrameError: it would come straight back."""
    if letter.cut:
        raise ValueError("too large: only its first bytes are kept")
    if letter.target not in partitions:
        raise ValueError(f"no topic to replay to ({letter.target or 'none given'})")
    count = partitions[letter.target]
    if letter.target != names.FRAMES:
        return letter.data, _partition_of_source(letter, count)
    frames = [letter.data] if letter.form == "frame" else batch.split(letter.data)
    if not frames:
        raise ValueError("the record holds no frame")
    devices = [int(parse(one)["device"][0]) for one in frames]
    return batch.join(frames), names.partition(devices[0], count)


def _partition_of_source(letter: DeadLetter, count: int) -> int:
    topic = names.split_topic(letter.source)
    if topic:
        return names.partition(topic[0], count)
    parts = letter.source.split("/")
    if len(parts) == 3 and parts[1].isdecimal() and int(parts[1]) < count:
        return int(parts[1])
    raise ValueError(f"source {letter.source!r} names no partition")


def replay(settings: Settings, found: Iterable[DeadLetter]) -> Replayed:
    """Send letters back to their topic and partition with their original bytes. Repeats are harmless: the sinks remove them.

    The same bytes for the same topic are sent once. What would come straight back (still unreadable, no target) is refused and
    counted by reason. Raises NotDelivered, scan.KafkaSilent.
    """
    account = Account("replay")
    out = DeadLetters(settings, "replay", account)
    refused: Counter[str] = Counter()
    partitions = out.partitions()
    done: set[tuple[str, bytes]] = set()
    sent = 0
    for letter in found:
        if (letter.target, letter.data) in done:
            continue
        done.add((letter.target, letter.data))
        try:
            value, partition = _place(letter, partitions)
        except (FrameError, ValueError) as error:
            refused[str(error)] += 1
            continue
        out.send(letter.target, value, partition, letter.key, [("replayed_from", letter.where)])
        sent += 1
    out.flush()
    return Replayed(sent, dict(refused))
