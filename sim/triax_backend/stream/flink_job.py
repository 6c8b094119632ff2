"""The stream as a PyFlink job: the same functions, Flink's checkpoints, Kafka source and exactly-once sinks.

Run by the interpreter of its own environment (sim/deploy/engines/install flink), with proto/ and sim/ on PYTHONPATH:

    python -m triax_backend.stream.flink_job --checkpoints DIR [--restore DIR/../chk-N] [--parallelism N] [--interval-ms N]

Records are keyed by their Kafka partition. Flink keeps three things of each: a snapshot of the state, the records since that
snapshot, and how many of these have been processed. Writing a megabyte of state for every record would cost more than the work, so
the snapshot is renewed every COMPACT records only; after a restore the records since are processed again, those that had been
processed before the checkpoint without sending anything, which gives the same state. Rows leave with the checkpoint.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyflink.common import Configuration, Row, Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.state import ListStateDescriptor, ValueStateDescriptor
from pyflink.table import DataTypes, Schema, StreamTableEnvironment
from triax_proto.names import EVENTS, FEATURES, FRAMES

from triax_backend.settings import Settings
from triax_backend.stream.columns import of_records
from triax_backend.stream.output import records
from triax_backend.stream.partition_keys import partition_keys
from triax_backend.stream.process import Stream
from triax_backend.stream.state import State

__all__ = ["COMPACT", "GROUP", "Engine", "build", "main"]

GROUP = "triax-stream-flink"
# Records of a partition between two snapshots of its state: a checkpoint holds both, and 96 records of a hundred frames are as
# large as the state of 625 devices.
COMPACT = 96
ROUND = 32  # records of a partition processed at once: the arrays are long enough for numpy
_ROUND_MS = 200  # and the longest that a record waits
_TRANSACTION_MS = 600_000  # longer than a checkpoint interval and a restart


class Engine(KeyedProcessFunction):  # type: ignore[misc]
    """(partition, FrameBatch) in; (topic, key, value) out. With `models`, windows are scored by those of triax.models.v1."""

    def __init__(self, partitions: int, models: Settings | None = None) -> None:
        self._keys = partition_keys(partitions)
        self._models_of = models
        self._models: Any = None
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, list[tuple[int, bytes]]] = {}

    def open(self, context: RuntimeContext) -> None:
        """Flink's state of the key at hand."""
        self._snapshot = context.get_state(ValueStateDescriptor("snapshot", Types.PICKLED_BYTE_ARRAY()))
        self._since = context.get_list_state(ListStateDescriptor("since", Types.PICKLED_BYTE_ARRAY()))
        self._done = context.get_state(ValueStateDescriptor("done", Types.LONG()))
        self._count = context.get_state(ValueStateDescriptor("count", Types.LONG()))
        if self._models_of is not None:
            from triax_backend.models.serving import KafkaModels

            self._models = KafkaModels(self._models_of)
            self._refused = list(self._models.poll())  # waits until it has read all: a restore scores as before

    def close(self) -> None:
        """Leave Kafka."""
        if self._models is not None:
            self._models.close()

    def _restore(self, partition: int) -> Stream:
        """The partition's stream as it was at the checkpoint; records that had not been processed wait."""
        stream = Stream(State(), self._models.score if self._models is not None else None)
        data = self._snapshot.value()
        if data is not None:
            stream.state.restore(data)
        since = [(partition, value) for value in self._since.get() or ()]
        done = self._done.value() or 0
        if done:
            stream.process(of_records(since[:done])[0])
        self._streams[partition] = stream
        self._waiting[partition] = since[done:]
        return stream

    def process_element(self, value: Any, context: Any) -> Iterator[Row]:
        """One Kafka record."""
        partition, data = int(value[0]), bytes(value[1])
        if partition not in self._streams:
            self._restore(partition)
        waiting = self._waiting[partition]
        self._since.add(data)
        self._count.update((self._count.value() or 0) + 1)
        waiting.append((partition, data))
        if len(waiting) == 1:
            service = context.timer_service()
            service.register_processing_time_timer(service.current_processing_time() + _ROUND_MS)
        if len(waiting) >= ROUND:
            yield from self._round(partition)

    def on_timer(self, timestamp: int, context: Any) -> Iterator[Row]:
        """Records have waited long enough."""
        partition = int(context.get_current_key())
        if partition not in self._streams:  # restored together with its timer
            self._restore(partition)
        if self._waiting[partition]:
            yield from self._round(partition)

    def _round(self, partition: int) -> Iterator[Row]:
        stream = self._streams[partition]
        if self._models is not None:
            refused, self._refused = [*self._refused, *self._models.poll()], []
            for topic, number, _, value in refused:
                yield Row(topic, self._keys[number], value)
        features, events = stream.process(of_records(self._waiting[partition])[0])
        self._waiting[partition] = []
        count = self._count.value() or 0
        if count >= COMPACT:
            self._snapshot.update(stream.state.snapshot(partition))
            self._since.clear()
            self._count.update(0)
            self._done.update(0)
        else:
            self._done.update(count)
        for topic, number, _, value in records(stream.state, features, events):
            yield Row(topic, self._keys[number], value)


def _sink(settings: Settings, topic: str, interval_ms: int, group: str) -> str:
    """DDL of a Kafka sink: the key alone decides the partition."""
    options = {
        "connector": "kafka",
        "topic": topic,
        "key.format": "raw",
        "key.fields": "k",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "sink.delivery-guarantee": "exactly-once" if interval_ms else "at-least-once",
        "sink.transactional-id-prefix": f"{group}-{topic}",
        "properties.transaction.timeout.ms": str(_TRANSACTION_MS),
        **_kafka(settings),
    }
    columns = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return f"CREATE TABLE `{topic}` (k BYTES, v BYTES) WITH ({columns})"


def _kafka(settings: Settings) -> dict[str, str]:
    """Java's client properties of the settings. Raises ValueError for what librdkafka knows and Java does not."""
    config = settings.kafka_config()
    out = {
        "properties.bootstrap.servers": config.pop("bootstrap.servers"),
        "properties.security.protocol": config.pop("security.protocol"),
    }
    mechanism = config.pop("sasl.mechanism", None)
    if mechanism:
        module = "scram.ScramLoginModule" if mechanism.startswith("SCRAM") else "plain.PlainLoginModule"
        name, word = config.pop("sasl.username"), config.pop("sasl.password")
        login = f'org.apache.kafka.common.security.{module} required username="{name}" password="{word}";'
        out |= {"properties.sasl.mechanism": mechanism, "properties.sasl.jaas.config": login}
    if "ssl.ca.location" in config:
        out |= {"properties.ssl.truststore.location": config.pop("ssl.ca.location"), "properties.ssl.truststore.type": "PEM"}
    if config:
        raise ValueError(f"the Flink job cannot use {', '.join(sorted(config))} of TRIAX_KAFKA")
    return out


def _source(settings: Settings, group: str) -> str:
    options = {
        "connector": "kafka",
        "topic": FRAMES,
        "properties.group.id": group,
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "earliest-offset",
        "format": "raw",
        **_kafka(settings),
    }
    columns = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return f"CREATE TABLE `{FRAMES}` (v BYTES, p INT METADATA FROM 'partition' VIRTUAL) WITH ({columns})"


def configuration(jars: Path, checkpoints: Path, interval_ms: int, restore: str | None) -> Configuration:
    """What makes PyFlink work here: jars, thread mode, memory of a small task manager, checkpoints."""
    config = Configuration()
    found = sorted(jars.glob("*.jar"))
    if not found:
        raise FileNotFoundError(f"no jars in {jars}: sim/deploy/engines/install flink")
    packages = [str(Path(sys.prefix) / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")]
    packages += [str(Path(place).resolve()) for place in sys.path if place and (Path(place) / "triax_proto").is_dir()]
    packages += [str(Path(place).resolve()) for place in sys.path if place and (Path(place) / "triax_backend").is_dir()]
    settings = {
        "pipeline.jars": ";".join(path.resolve().as_uri() for path in found),
        "rest.port": "0",
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.execution-mode": "thread",
        "python.pythonpath": ":".join(dict.fromkeys(packages)),
        "taskmanager.memory.managed.size": "256m",
        "taskmanager.memory.task.off-heap.size": "256m",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "execution.checkpointing.interval": f"{interval_ms}ms",
        "execution.checkpointing.dir": checkpoints.resolve().as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "restart-strategy.type": "none",  # whoever started us restarts us from the newest checkpoint
    }
    if restore:
        settings["execution.state-recovery.path"] = Path(restore).resolve().as_uri()
    for name, value in settings.items():
        config.set_string(name, value)
    return config


def newest_checkpoint(checkpoints: Path) -> str | None:
    """The newest complete checkpoint below a directory, None: there is none."""
    found = [path for path in checkpoints.glob("*/chk-*") if (path / "_metadata").exists()]
    return str(max(found, key=lambda path: (path / "_metadata").stat().st_mtime)) if found else None


def build(
    settings: Settings, config: Configuration, *, partitions: int, parallelism: int, interval_ms: int, group: str, models: bool
) -> Any:
    """The job's statements, ready to `execute()`."""
    env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(parallelism)
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(_source(settings, group))
    source = tables.to_data_stream(tables.sql_query(f"SELECT p, v FROM `{FRAMES}`"))
    binary = Types.PRIMITIVE_ARRAY(Types.BYTE())
    kind = Types.ROW_NAMED(["t", "k", "v"], [Types.STRING(), binary, binary])
    keyed = source.key_by(lambda row: int(row[0]), Types.INT())
    out = keyed.process(Engine(partitions, settings if models else None), kind).name("triax stream").uid("triax-stream")
    schema = Schema.new_builder()
    for name, column in (("t", DataTypes.STRING()), ("k", DataTypes.BYTES()), ("v", DataTypes.BYTES())):
        schema.column(name, column)
    tables.create_temporary_view("rows_out", tables.from_data_stream(out, schema.build()))
    statements = tables.create_statement_set()
    for topic in (FEATURES, EVENTS):
        tables.execute_sql(_sink(settings, topic, interval_ms, group))
        statements.add_insert_sql(f"INSERT INTO `{topic}` SELECT k, v FROM rows_out WHERE t = '{topic}'")
    return statements


def main() -> int:
    """Run until the job ends or is cancelled. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, required=True, help="directory of Flink's checkpoints")
    parser.add_argument("--restore", help="a checkpoint to start from; 'newest': of --checkpoints, if there is one")
    parser.add_argument("--interval-ms", type=int, default=2000, help="between checkpoints: rows leave with them")
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=16, help="of the topics")
    parser.add_argument("--group", default=GROUP, help="Kafka consumer group and prefix of transactions")
    parser.add_argument("--no-models", dest="models", action="store_false", help="do not score windows")
    parser.add_argument("--jars", type=Path, default=Path(sys.prefix) / "jars")
    options = parser.parse_args()
    restore = newest_checkpoint(options.checkpoints) if options.restore == "newest" else options.restore
    config = configuration(options.jars, options.checkpoints, options.interval_ms, restore)
    statements = build(
        Settings.from_env(),
        config,
        partitions=options.partitions,
        parallelism=options.parallelism,
        interval_ms=options.interval_ms,
        group=options.group,
        models=options.models,
    )
    statements.execute().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
