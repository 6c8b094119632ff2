"""All our processes between MQTT and the stores, and what their accounts say: one list for demo, load tests and `triax stack`."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import triax_proto
from prometheus_client.parser import text_string_to_metric_families

from triax_backend.servers.errors import NotInstalled
from triax_backend.servers.ports import free_port
from triax_backend.settings import Settings
from triax_backend.supervise import Supervisor

__all__ = ["FLINK", "FLINK_JVM", "STAGES", "STREAM", "WAYS", "Account", "Pipeline", "account", "healthy", "require_flink", "stages"]

# PyFlink pins older libraries, so it has an environment of its own.
FLINK = Path(__file__).parents[2] / ".venv-flink"
# As for Kafka (servers/kafka.py): in the minutes that a mini-cluster lives here, the second compiler takes a quarter of its CPU.
FLINK_JVM = {"JVM_ARGS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
# Ways into Kafka.
WAYS = ("bridge", "ingest")
# What reads frames from Kafka, after the way in; and what makes features and events of them, with the sink of those.
STAGES = ("sinks.timescale", "sinks.lake", "sinks.redis")
STREAM = ("stream.runner", "sinks.features")
_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Account:
    """Frames of one stage so far; see triax_backend.metrics."""

    frames_in: int = 0
    frames_out: int = 0
    repeated: int = 0
    dead: int = 0
    in_flight: int = 0
    lag_records: int = 0
    last_delivery_s: float = 0.0


def stages(way: str = "bridge", port: int = 1883) -> dict[str, list[str]]:
    """Arguments of each stage's module, for a supervisor of its own. `port`: where the ingest front listens."""
    way_in = [] if way == "bridge" else ["--port", str(port)]
    return {way: way_in} | {stage: [] for stage in (*STAGES, *STREAM)}


def account(port: int) -> Account | None:
    """The account of the stage that serves metrics on `port`, None while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):
        return None
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return Account(
        frames_in=int(sums.get("triax_frames_in_total", 0)),
        frames_out=int(sums.get("triax_frames_out_total", 0)),
        repeated=int(sums.get("triax_frames_repeated_total", 0)),
        dead=int(sums.get("triax_frames_dead_total", 0)),
        in_flight=int(sums.get("triax_frames_in_flight", 0)),
        lag_records=int(sums.get("triax_lag_records", 0)),
        last_delivery_s=sums.get("triax_last_delivery_timestamp_seconds", 0.0),
    )


def healthy(port: int) -> tuple[bool, str]:
    """Whether the stage on `port` delivers, and its own sentence about it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=_TIMEOUT_S) as answer:
            return True, str(json.load(answer)["reason"])
    except urllib.error.HTTPError as error:
        return False, str(json.load(error)["reason"])
    except OSError as error:
        return False, f"does not answer: {error}"


def require_flink() -> None:
    """Raise NotInstalled, with what to do, if PyFlink's environment is not there."""
    if not (FLINK / "ready").exists():
        raise NotInstalled("PyFlink's environment is not made yet: `sim/deploy/engines/install flink` (844 MB)")


class Pipeline:
    """The stages as supervised processes, each with a metrics port. Logs under `directory`/logs.

    `way`: "bridge" (subscribes to the broker of TRIAX_MQTT) or "ingest" (is the MQTT server; `fronts`: arguments of each process).
    `stream`: features and events too, by the "runner" or by "flink" in the environment that sim/deploy/engines/install makes.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        way: str = "bridge",
        fronts: Sequence[Sequence[str]] = (),
        stream: str | None = "runner",
    ) -> None:
        self.supervisor = Supervisor(settings, directory)
        self.ports: dict[str, int] = {}
        self.way_in = [f"ingest-{n}" for n in range(len(fronts))] if way == "ingest" else ["bridge"]
        self._directory, self._fronts, self._stream = directory, fronts, stream

    def start(self) -> "Pipeline":
        """Start every stage; they wait for their servers themselves."""
        if self._fronts:
            for name, arguments in zip(self.way_in, self._fronts, strict=True):
                self._run("ingest", *arguments, name=name)
        else:
            self._run("bridge")
        for stage in STAGES:
            self._run(stage)
        for stage in STREAM if self._stream else ():
            if stage == "stream.runner" and self._stream == "flink":
                self._run_flink()
            else:
                self._run(stage)
        return self

    def _run(self, module: str, *arguments: str, name: str | None = None) -> None:
        port = self.ports[name or module] = free_port()
        self.supervisor.run(module, *arguments, "--metrics-port", str(port), name=name)

    def _run_flink(self) -> None:
        """The mini-cluster has metrics of its own; its job goes on from the newest checkpoint after a restart."""
        packages = os.pathsep.join(str(Path(part).parent) for part in (triax_proto.__path__[0], Path(__file__).parent))
        environ = {"PYTHONPATH": packages, "PATH": os.pathsep.join([str(FLINK / "bin"), os.environ.get("PATH", "")])}
        # Jars, sockets and blobs of a mini-cluster that was killed stay: here, and not in /tmp, they are seen.
        scratch = (self._directory / "flink").resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        environ |= {"TMPDIR": str(scratch), "JVM_ARGS": f"{FLINK_JVM['JVM_ARGS']} -Djava.io.tmpdir={scratch}"}
        arguments = ["--checkpoints", str(self._directory / "checkpoints"), "--restore", "newest"]
        self.supervisor.run("stream.flink_job", *arguments, python=FLINK / "bin/python", env=environ)

    def accounts(self) -> dict[str, Account]:
        """Account of each stage that answers."""
        found = {module: account(port) for module, port in self.ports.items()}
        return {module: one for module, one in found.items() if one is not None}

    def __enter__(self) -> "Pipeline":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
