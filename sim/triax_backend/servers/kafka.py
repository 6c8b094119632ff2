"""Apache Kafka in one KRaft process; its jars by Maven into the user's cache, once."""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import zlib
from functools import cache
from pathlib import Path

import triax_backend
from triax_backend.servers.errors import NotInstalled, ServerFailed
from triax_backend.servers.process import Server
from triax_backend.shipped import shipped

__all__ = ["Kafka", "jars"]

_DEPLOY = shipped(triax_backend.__file__, "deploy/kafka")
_JAVA = 17  # Kafka 4's server is Java 17 bytecode
_CONTROLLER = 1  # port of the KRaft controller, relative to the broker's
_CLUSTER = "triaxtriaxtriaxtriaxQQ"  # 16 bytes in base64; the data directory tells clusters apart
_CLASSES = "classes.jsa"
# A stack lives for minutes: the second compiler and G1 never earn what they cost. At 30,000 frames/s the broker takes 2.1 us
# a frame with these and 7.5 us without, after 30 s.
_OPTIONS = ["-Xms256m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
_MAVEN_S, _FORMAT_S = 600, 60


def _java() -> str:
    """Path of a Java of at least 17. Raises NotInstalled."""
    home = os.environ.get("JAVA_HOME")
    path = f"{home}/bin/java" if home else shutil.which("java")
    hint = "`apt-get install openjdk-17-jre-headless`, or give a Kafka's address (kafka://host:9092)"
    if path is None or not os.access(path, os.X_OK):
        where = f"JAVA_HOME={home} holds no bin/java" if home else "there is no java on the PATH"
        raise NotInstalled(f"Kafka needs Java {_JAVA} and {where}: {hint}")
    told = _version(path)
    match = re.search(r'version "(\d+)', told)
    if match is None or int(match[1]) < _JAVA:
        raise NotInstalled(f"Kafka needs Java {_JAVA}, {path} is {told.splitlines()[0] if told else 'silent'}: {hint}")
    return path


@cache
def _version(java: str) -> str:
    return subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triax"


def jars() -> Path:
    """Directory of Kafka's jars; fetched by Maven the first time, under a lock. Raises NotInstalled, ServerFailed."""
    pom = _DEPLOY / "pom.xml"
    version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)", pom.read_text())
    if version is None:
        raise ServerFailed(f"{pom} names no version of kafka_2.13")
    target = _cache() / f"kafka-{version[1]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            _fetch(pom, target)
    return target


def _fetch(pom: Path, target: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotInstalled("Kafka's jars come by Maven and there is no mvn: `apt-get install maven`, or give a Kafka's address")
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [
        maven,
        "-B",
        "-q",
        "-f",
        str(pom),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={partial}",
        "-DincludeScope=runtime",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MAVEN_S, check=False)
    if done.returncode or not list(partial.glob("kafka_2.13-*.jar")):
        raise ServerFailed(f"Maven could not fetch Kafka:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    partial.rename(target)


def _archive(java: str) -> Path:
    """Where the class archive of these jars and this Java is or would be."""
    fits = zlib.crc32(" ".join([_version(java), *_OPTIONS]).encode())
    classpath = jars()
    return classpath.with_name(f"{classpath.name}-{fits:08x}.jsa")


class Kafka(Server):
    """One broker and controller on 127.0.0.1; ready when metadata can be read, not when the port is open."""

    name = "kafka"
    disk_mib = 1024
    ready_s = 90.0  # 3 s alone; it was 30 s beside eight other starts on two cores
    port_offsets = (_CONTROLLER,)

    @property
    def url(self) -> str:
        return f"kafka://127.0.0.1:{self.port}"

    def check(self) -> None:
        _java()

    def prepare(self) -> None:
        super().prepare()
        self._jars = jars()
        (self.data / "server.properties").write_text(self._properties())
        if (self.data / "log" / "meta.properties").exists():
            return
        options = ["--cluster-id", _CLUSTER, "--config", str(self.data / "server.properties")]
        java = [_java(), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{self._jars}/*"]
        command = [*java, "kafka.tools.StorageTool", "format", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FORMAT_S, check=False)
        if done.returncode:
            raise ServerFailed(f"kafka: the data directory could not be formatted: {(done.stdout + done.stderr).strip()}")

    def _properties(self) -> str:
        return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{self.port + _CONTROLLER}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.port + _CONTROLLER}
advertised.listeners=PLAINTEXT://127.0.0.1:{self.port}
log.dirs={self.data}/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
num.network.threads=2
num.io.threads=4
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
"""

    def command(self) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={_DEPLOY / 'log4j2.xml'}"
        java = _java()
        main = ["-cp", f"{self._jars}/*", "kafka.Kafka", str(self.data / "server.properties")]
        return [java, *_OPTIONS, self._classes(java), logging, *main]

    def _classes(self, java: str) -> str:
        """Option for the class archive: 1.8 s of CPU to a ready broker with it, 3.3 s without. The first run writes it."""
        archive = _archive(java)
        return f"-XX:SharedArchiveFile={archive}" if archive.exists() else f"-XX:ArchiveClassesAtExit={self.data / _CLASSES}"

    def stop(self) -> None:
        super().stop()
        written = self.data / _CLASSES
        if written.exists():
            archive = _archive(_java())
            partial = archive.with_suffix(f".{os.getpid()}")
            shutil.copyfile(written, partial)
            partial.replace(archive)
            written.unlink()

    def answers(self) -> bool:
        """True when the broker gives its metadata."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0}).list_topics(timeout=2)
        except (OSError, KafkaException):
            return False
        return True
