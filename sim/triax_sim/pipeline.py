"""The path under test, as a run sees it: where its servers are, what a fault can hit, what each process costs, when it is empty."""

import contextlib
import signal
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from triax_backend import hops, scan
from triax_backend.settings import Settings
from triax_backend.stack import Stack
from triax_backend.supervise import Supervisor
from triax_proto.names import FRAMES

__all__ = [
    "GROUPS",
    "Hand",
    "KafkaTail",
    "Status",
    "System",
    "ends",
    "group_lag",
    "hands_of",
    "hop_rows",
    "stage_totals",
    "wait_until",
]

Array = np.ndarray[Any, Any]

# Consumer groups that have to be at the end before a hop is read.
GROUPS = {"postgres": "triax-timescale", "lake": "triax-lake", "redis": "triax-redis"}
_TIMEOUT_S = 10.0
_LEADER_S = 30.0
# Modules of triax_backend by the names that scenarios use.
WORKERS = {"sinks.timescale": "timescale", "sinks.lake": "lake", "sinks.redis": "redis-sink", "stream.runner": "stream"}


class Status(Protocol):
    """A process of the path: ServerStatus or WorkerStatus of triax_backend."""

    @property
    def name(self) -> str: ...
    @property
    def cpu_s(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...


@dataclass(frozen=True)
class Hand:
    """What a fault can do to a process. What is None it cannot."""

    kill: Callable[[], None] | None = None
    pause: Callable[[], None] | None = None
    resume: Callable[[], None] | None = None
    stop: Callable[[], None] | None = None
    start: Callable[[], None] | None = None


@dataclass
class System:
    """Everything that a run needs of the path. `metrics`: the /metrics of the processes that fill a hop, by hop."""

    settings: Settings
    way_in: str = "bridge"
    hops: tuple[str, ...] = ("kafka", "postgres", "lake", "redis")
    status: Callable[[], Iterable[Status]] = tuple
    hands: Mapping[str, Hand] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mqtt_unix: str = ""
    # Where reserved devices go in, whose frames are tampered with on the way and so cannot be under TLS; empty: with the others.
    mqtt_plain: str = ""
    # Kafka group of the stream that makes features and events; empty: there is none.
    stream_group: str = ""

    def mqtt_url(self, reserved: bool = False) -> str:
        """URL of the MQTT server, of that for reserved devices if there is one."""
        return self.mqtt_plain if reserved and self.mqtt_plain else self.settings.mqtt

    def mqtt(self, reserved: bool = False) -> tuple[str, int]:
        """Its host and port."""
        parts = urlsplit(self.mqtt_url(reserved))
        return parts.hostname or "127.0.0.1", parts.port or 1883


def hands_of(stack: Stack, supervisor: Supervisor) -> dict[str, Hand]:
    """What can be done to the servers and workers that we started, by the names that scenarios use."""
    out: dict[str, Hand] = {}
    for name in ("mqtt", "kafka", "postgres", "s3", "redis"):
        with contextlib.suppress(KeyError):
            server = stack[name]
            out[name] = Hand(server.kill, server.pause, server.resume, server.stop, partial(stack.restart, name))
    for name, worker in supervisor.workers.items():
        kill, stop, go = (partial(worker.signal, n) for n in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT))
        # A worker that ends is started again by its supervisor, so `stop` is an orderly restart.
        short = WORKERS.get(name, name)
        out[short] = Hand(kill, stop, go, partial(worker.signal, signal.SIGTERM), None)
    return out


def ends(settings: Settings) -> dict[int, int]:
    """End offset of each partition of triax.frames.v1. Raises KafkaException."""
    deadline = time.monotonic() + _LEADER_S
    while True:
        try:
            return _ends(settings)
        except KafkaException:
            # Partitions have no leader for a moment after the topic was made or a broker came back; a client that has seen that
            # keeps asking the wrong one, a new client does not.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _ends(settings: Settings) -> dict[int, int]:
    consumer = Consumer({**settings.kafka_config(), "group.id": "triax-run", "enable.auto.commit": False, "log_level": 0})
    try:
        found = consumer.list_topics(FRAMES, timeout=_TIMEOUT_S).topics[FRAMES].partitions
        return {n: consumer.get_watermark_offsets(TopicPartition(FRAMES, n), timeout=_TIMEOUT_S)[1] for n in found}
    finally:
        consumer.close()


def group_lag(settings: Settings, groups: Sequence[str]) -> dict[str, int]:
    """Records of triax.frames.v1 that each consumer group has not delivered yet."""
    if not groups:
        return {}
    at_end = ends(settings)
    admin = AdminClient({**settings.kafka_config(), "log_level": 0})
    out = {}
    for group in groups:
        parts = [TopicPartition(FRAMES, n) for n in at_end]
        wanted = ConsumerGroupTopicPartitions(group, parts)
        done = {}
        with contextlib.suppress(KafkaException):
            answer = admin.list_consumer_group_offsets([wanted])[group].result(_TIMEOUT_S)
            done = {part.partition: max(part.offset, 0) for part in answer.topic_partitions or []}
        out[group] = sum(max(0, end - done.get(n, 0)) for n, end in at_end.items())
    return out


def hop_rows(settings: Settings, name: str, since_us: int) -> Iterator[Array]:
    """Rows of "postgres" or "lake", of records received since `since_us`."""
    if name == "postgres":
        yield from hops.postgres(settings, since_us=since_us)
    else:
        yield from hops.lake(settings, since_us=since_us)


class KafkaTail:
    """Frames in Kafka from given offsets on, read in turns as they come."""

    def __init__(self, settings: Settings, start: Mapping[int, int]) -> None:
        self._settings, self._next = settings, dict(start)

    def more(self) -> Iterator[Array]:
        """HOP rows up to the end as of now, that no earlier turn gave. Raises scan.KafkaSilent."""
        for found in scan.records(self._settings, FRAMES, self._next):
            for record in found:
                self._next[record.partition] = record.offset + 1
            yield from hops.kafka_records(found)


def stage_totals(url: str) -> dict[str, float]:
    """Sums of a stage's counters and gauges by name, from its Prometheus page; empty while it does not answer."""
    out: dict[str, float] = {}
    try:
        with urllib.request.urlopen(url, timeout=0.5) as answer:
            text = answer.read().decode()
    except OSError:
        return out
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            with contextlib.suppress(ValueError):
                base = name.partition("{")[0]
                out[base] = out.get(base, 0.0) + float(value)
    return out


def wait_until(done: Callable[[], bool], timeout_s: float, step_s: float = 0.5) -> bool:
    """Poll until `done`; False if it did not come in time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(step_s)
    return True
