"""Kafka topics of triax: created once, with the partitions that stay.

python -m triax_backend.topics --partitions 64 --replication 3
"""

import argparse
import contextlib
import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from triax_proto.names import DEADLETTER, EVENTS, FEATURES, FRAMES, KAFKA_TOPICS, MODELS, RAW

from triax_backend.settings import Settings

__all__ = ["TopicsUnavailable", "create", "partitions"]

PARTITIONS = 16  # fixed for the topic's life: the partition of a device depends on it
_DAY_MS = 86_400_000
# Of topics that are not compacted. Frames live in the database and the lake; Kafka keeps what a rebuilt sink may ask for.
RETENTION_MS = {FRAMES: 7 * _DAY_MS, RAW: 7 * _DAY_MS, FEATURES: 30 * _DAY_MS, EVENTS: 30 * _DAY_MS, DEADLETTER: 30 * _DAY_MS}
# Compacted topics are small and read whole at start: small segments let the cleaner at them.
_COMPACTED = {"cleanup.policy": "compact", "segment.ms": str(_DAY_MS), "min.cleanable.dirty.ratio": "0.2"}


class TopicsUnavailable(RuntimeError):
    """Kafka did not create or show the topics; the message says which and why."""


def create(
    settings: Settings, partitions: int = PARTITIONS, replication: int = 1, retention: bool = True, timeout_s: float = 30.0
) -> None:
    """Create the topics that do not exist yet; leave others as they are. Raises TopicsUnavailable.

    `retention=False` keeps records for ever, whatever their timestamps: for replay of old recordings.
    """
    topics = []
    for name, compacted in KAFKA_TOPICS.items():
        keep_ms = RETENTION_MS.get(name, -1) if retention else -1
        config = dict(_COMPACTED) if compacted else {"retention.ms": str(keep_ms)}
        # Order between models matters, their number does not.
        count = 1 if name == MODELS else partitions
        topics.append(NewTopic(name, num_partitions=count, replication_factor=replication, config=config))
    admin = AdminClient({**settings.kafka_config(), "log_level": 0})
    for name, future in admin.create_topics(topics, operation_timeout=timeout_s, request_timeout=timeout_s).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicsUnavailable(f"{name}: {error.args[0].str()}") from None
    _wait_for_leaders(admin, timeout_s)


def _wait_for_leaders(admin: AdminClient, timeout_s: float) -> None:
    """Creation returns before every partition has a leader, and a producer would then wait for its next metadata refresh."""
    deadline = time.monotonic() + timeout_s
    missing = set(KAFKA_TOPICS)
    while missing and time.monotonic() < deadline:
        with contextlib.suppress(KafkaException):
            found = admin.list_topics(timeout=5).topics
            missing = {
                name for name in KAFKA_TOPICS if name not in found or any(p.leader < 0 for p in found[name].partitions.values())
            }
        if missing:
            time.sleep(0.05)
    if missing:
        raise TopicsUnavailable(f"no leader within {timeout_s:.0f} s for {', '.join(sorted(missing))}")


def partitions(settings: Settings, topic: str = FRAMES, timeout_s: float = 10.0) -> int:
    """Number of partitions of `topic`. Raises TopicsUnavailable."""
    try:
        found = AdminClient({**settings.kafka_config(), "log_level": 0}).list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise TopicsUnavailable(f"Kafka does not answer: {error.args[0].str()}") from None
    if found.error is not None or not found.partitions:
        raise TopicsUnavailable(f"Kafka has no topic {topic}: `python -m triax_backend.topics` creates it")
    return len(found.partitions)


def main() -> None:
    parser = argparse.ArgumentParser(description="Create the Kafka topics of triax (server from TRIAX_KAFKA).")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--replication", type=int, default=1)
    options = parser.parse_args()
    create(Settings.from_env(), options.partitions, options.replication)


if __name__ == "__main__":
    main()
