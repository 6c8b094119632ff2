"""What a frame costs on its way from MQTT into Kafka: ingest front, mosquitto + bridge, mosquitto + Telegraf, one after the other.

    python tests/bench/ways.py [--devices 2000] [--hz 10] [--qos 1] [--seconds 12]

Same generator, frames, QoS, Kafka. CPU is user + system from the first frame until the last is in Kafka. "Behind" is how long after
the last frame was sent that was: a way that does not keep up shows it there. Frames are counted in Kafka itself.

Telegraf is not installed: it is found by TELEGRAF or PATH, else named as absent. It wants inputs.mqtt_consumer, outputs.kafka,
parsers.value and serializers.influx.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from triax_backend import pipeline, topics
from triax_backend.servers.ports import free_port
from triax_backend.servers.process import usage
from triax_backend.stack import Stack
from triax_backend.supervise import Supervisor
from triax_sim.generators import Generator
from triax_sim.pipeline import KafkaTail, ends
from triax_sim.plan import Cohort, Plan, Target

TOPIC = "telegraf"
BEHIND_S = 20.0  # given up after
KEEPS_UP_S = 2.0
# A batch of 5,000 costs Telegraf least per message; its window has to be some batches.
TELEGRAF = """\
[agent]
  omit_hostname = true
  metric_batch_size = 5000
  metric_buffer_limit = 200000
  flush_interval = "500ms"
  quiet = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:{mqtt}"]
  topics = ["triax/v1/+/frame"]
  topic_tag = "topic"
  qos = {qos}
  persistent_session = true
  client_id = "telegraf"
  max_undelivered_messages = 40000
  data_format = "value"
  data_type = "base64"
[[outputs.kafka]]
  brokers = ["{kafka}"]
  topic = "{topic}"
  routing_tag = "topic"
  required_acks = -1
  compression_codec = 0
  data_format = "influx"
"""


@dataclass
class Way:
    """One way under load: CPU by process (s), frames sent and found in Kafka."""

    cpu: dict[str, float] = field(default_factory=dict)
    sent: int = 0
    found: int = 0
    behind_s: float = 0.0
    rate: float = 0.0

    def us(self, name: str) -> float:
        return self.cpu.get(name, 0.0) / max(1, self.sent) * 1e6

    @property
    def between(self) -> float:
        """CPU us per frame of everything between generator and Kafka."""
        return sum(self.us(name) for name in self.cpu if name != "kafka")


def stored(settings: Any, topic: str) -> int:
    """Records of a topic."""
    consumer = Consumer({**settings.kafka_config(), "group.id": "bench"})
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=10)[1] for n in found)
    finally:
        consumer.close()


def load(way: Way, port: int, options: Any, directory: Path, name: str, used: Any, arrived: Any) -> None:
    """Drive one way. `used()`: CPU seconds by process, `arrived()`: frames in Kafka so far, cheaply."""
    cohort = Cohort("bulk", 0, options.devices, frame_hz=options.hz, qos=options.qos)
    ledger, stats = (str(directory / f"{name}.{end}") for end in ("ledger", "json"))
    generator = Generator(
        "fleet",
        Plan(Target(port=port), (cohort,), ledger, stats, duration_s=options.seconds, drain_s=10.0, wait=True),
        directory / f"{name}.log",
    )
    try:
        generator.wait_for("ready", 60)
        before = used()
        generator.say(f"go {time.time_ns() // 1000 + 100_000}")
        generator.wait_for("done", options.seconds + 60)
        ended = time.monotonic()
        way.sent = int((generator.stats() or {})["sent"])
        while (count := arrived()) < way.sent and time.monotonic() - ended < BEHIND_S:
            time.sleep(0.1)
        way.behind_s = time.monotonic() - ended
        way.found = count
        way.cpu = {key: value - before[key] for key, value in used().items()}
        way.rate = way.sent / options.seconds
    finally:
        generator.end()


def servers(*stacks: Stack | None) -> dict[str, float]:
    """CPU of servers so far, s."""
    return {one.name: one.cpu_s for stack in stacks if stack for one in stack.status() if one.ours}


def by_worker(stack: Stack, broker: Stack | None, options: Any, directory: Path, module: str) -> Way:
    """Bridge or ingest front."""
    way, metrics = Way(), free_port()
    directory.mkdir()
    port = int(urlsplit(broker.settings.mqtt).port or 0) if broker else free_port()
    settings = replace(stack.settings, mqtt=f"mqtt://127.0.0.1:{port}")
    arguments = [] if broker else ["--port", str(port)]
    with Supervisor(settings, directory) as supervisor:
        supervisor.run(module, *arguments, "--metrics-port", str(metrics))
        until = time.monotonic() + 20
        while not pipeline.healthy(metrics)[0] and time.monotonic() < until:
            time.sleep(0.1)
        tail = KafkaTail(settings, ends(settings))

        def used() -> dict[str, float]:
            return servers(stack, broker) | {one.name: one.cpu_s for one in supervisor.status()}

        def arrived() -> int:
            account = pipeline.account(metrics)
            return account.frames_out if account else 0

        load(way, port, options, directory, module, used, arrived)
    way.found = sum(len(rows) for rows in tail.more())
    return way


def by_telegraf(stack: Stack, broker: Stack, options: Any, directory: Path, program: str) -> Way:
    """mosquitto and Telegraf."""
    way, port = Way(), int(urlsplit(broker.settings.mqtt).port or 0)
    kafka = stack.settings.kafka_config()["bootstrap.servers"]
    admin = AdminClient(stack.settings.kafka_config())
    admin.create_topics([NewTopic(TOPIC, topics.PARTITIONS, 1)])[TOPIC].result(20)
    config, log = directory / "telegraf.conf", directory / "telegraf.log"
    config.write_text(TELEGRAF.format(mqtt=port, kafka=kafka, topic=TOPIC, qos=options.qos))
    with log.open("wb") as out:
        child = subprocess.Popen([program, "--config", str(config)], stdout=out, stderr=out)
    try:
        time.sleep(3)  # it says nothing when it has subscribed
        process = psutil.Process(child.pid)
        load(
            way, port, options, directory, "telegraf",
            lambda: servers(stack, broker) | {"telegraf": usage(process)[0]},
            lambda: stored(stack.settings, TOPIC),
        )  # fmt: skip
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        child.kill()
        child.wait()
    return way


def show(ways: dict[str, Way], options: Any) -> None:
    """The table, and the two ratios."""
    cores = f"{psutil.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.devices:,} devices x {options.hz:g} frames/s, QoS {options.qos}, {options.seconds:g} s each, {cores}\n")
    print("| CPU us/frame | " + " | ".join(ways) + " |\n|---" + "|---" * len(ways) + "|")
    for name in ("mqtt", "bridge", "telegraf", "ingest", "kafka"):
        print(f"| {name} | " + " | ".join(f"{way.us(name):.2f}" if name in way.cpu else "" for way in ways.values()) + " |")
    print("| **between generator and Kafka** | " + " | ".join(f"{way.between:.2f}" for way in ways.values()) + " |")
    print("| frames/s sent | " + " | ".join(f"{way.rate:,.0f}" for way in ways.values()) + " |")
    print("| sent, in Kafka | " + " | ".join(f"{way.sent:,}, {way.found:,}" for way in ways.values()) + " |")
    print("| behind, s | " + " | ".join(f"{way.behind_s:.1f}" for way in ways.values()) + " |")
    telegraf = ways.get("mosquitto + Telegraf")
    if telegraf is not None:
        front, bridge = ways["ingest front"], ways["mosquitto + bridge"]
        print(f"\ningest front against mosquitto + Telegraf: {front.between / telegraf.between:.3f}")
        print(f"bridge against Telegraf: {bridge.us('bridge') / telegraf.us('telegraf'):.3f}")
    late = [name for name, way in ways.items() if way.behind_s > KEEPS_UP_S or way.found < way.sent]
    print(f"\n{'did not keep up: ' + ', '.join(late) if late else 'all kept up'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2_000)
    parser.add_argument("--hz", type=float, default=10.0)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    program = os.environ.get("TELEGRAF") or shutil.which("telegraf")
    ways = {}
    with tempfile.TemporaryDirectory(prefix="triax-bench-") as folder, Stack(Path(folder) / "stack", only=("kafka",)) as stack:
        directory = Path(folder)
        ways["ingest front"] = by_worker(stack, None, options, directory / "front", "ingest")
        # A broker each: a session that has been left collects what comes for it.
        with Stack(directory / "one", only=("mqtt",)) as broker:
            ways["mosquitto + bridge"] = by_worker(stack, broker, options, directory / "bridge", "bridge")
        if program:
            with Stack(directory / "two", only=("mqtt",)) as broker:
                ways["mosquitto + Telegraf"] = by_telegraf(stack, broker, options, directory, program)
    show(ways, options)
    if not program:
        print("\nTelegraf is absent (TELEGRAF or PATH)")


if __name__ == "__main__":
    sys.exit(main())
