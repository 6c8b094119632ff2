"""All our processes between MQTT and the stores, and what their accounts say: one list for demo, load tests and `triax stack`."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from triax_backend.servers.ports import free_port
from triax_backend.settings import Settings
from triax_backend.supervise import Supervisor

__all__ = ["STAGES", "STREAM", "WAYS", "Account", "Pipeline", "account", "healthy", "stages"]

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


def stages(way: str = "bridge", port: int | None = None, stream: bool = True) -> dict[str, list[str]]:
    """Arguments of each stage's module. `port`: where the ingest front listens. `stream`: features and events too."""
    way_in = [] if way == "bridge" else ["--port", str(port or 1883)]
    return {way: way_in} | {stage: [] for stage in (*STAGES, *(STREAM if stream else ()))}


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


class Pipeline:
    """The stages as supervised processes, each with a metrics port. Logs under `directory`/logs.

    `way`: "bridge" (subscribes to the broker of TRIAX_MQTT) or "ingest" (is the MQTT server, on `port`).
    """

    def __init__(
        self, settings: Settings, directory: Path, way: str = "bridge", port: int | None = None, stream: bool = True
    ) -> None:
        self.supervisor = Supervisor(settings, directory)
        self.ports: dict[str, int] = {}
        self._stages = stages(way, port, stream)

    def start(self) -> "Pipeline":
        """Start every stage; they wait for their servers themselves."""
        for module, arguments in self._stages.items():
            self.ports[module] = free_port()
            self.supervisor.run(module, *arguments, "--metrics-port", str(self.ports[module]))
        return self

    def accounts(self) -> dict[str, Account]:
        """Account of each stage that answers."""
        found = {module: account(port) for module, port in self.ports.items()}
        return {module: one for module, one in found.items() if one is not None}

    def __enter__(self) -> "Pipeline":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.supervisor.stop()
