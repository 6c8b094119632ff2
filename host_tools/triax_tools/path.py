"""The whole path for one command: what is not given is started here, and ends with it."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

from triax_backend.pipeline import Pipeline, require_flink
from triax_backend.servers.haproxy import HAProxy
from triax_backend.servers.ports import free_port
from triax_backend.stack import Stack
from triax_sim.certificates import Authority
from triax_sim.pipeline import System, hands_of

__all__ = ["path"]

# Hop, and the stage whose account says what it holds.
_HOPS = {"kafka": "", "postgres": "sinks.timescale", "lake": "sinks.lake", "redis": "sinks.redis"}
_GROUPS = {"runner": "triax-stream", "flink": "triax-stream-flink"}
_FRONTS = 2  # behind the balancer of the local profile


@contextlib.contextmanager
def path(
    directory: Path,
    profile: str = "embedded",
    way: str = "bridge",
    external: Mapping[str, str] | None = None,
    stream: bool = True,
    certified: Sequence[int] = (),
    keep: bool = False,
) -> Iterator[System]:
    """Servers in `directory`/stack and workers in `directory`/workers, until the block ends; then their logs stay.

    "embedded" is the least that is whole. "local" is as in production: ingest fronts behind a balancer, PyFlink as the stream,
    servers that sync to disk. `external`: servers that are there already. `certified`: devices that get a certificate, which the
    ingest fronts then ask for; one without TLS stands beside them. `keep`: the servers' data stay too, gigabytes after a large
    run. Raises StackError; then nothing runs.
    """
    given = dict(external or {})
    fronts: list[list[str]] = []
    plain = ""
    shutil.rmtree(directory / "stack", ignore_errors=True)
    shutil.rmtree(directory / "workers", ignore_errors=True)
    engine = None if not stream else "flink" if profile == "local" else "runner"
    if engine == "flink":
        require_flink()
    with contextlib.ExitStack() as ended:
        if "mqtt" not in given and (way == "ingest" or profile == "local"):
            way = "ingest"
            ports = [free_port() for _ in range(_FRONTS if profile == "local" else 1)]
            entry = ports[0]
            if profile == "local":
                balancer = HAProxy(directory / "stack", ports)
                balancer.start()
                ended.callback(balancer.stop)
                entry = balancer.port
            identity, url = _identity(directory / "tls", certified) if certified else ([], "mqtt://127.0.0.1:{port}")
            fronts = [["--port", str(port), *identity] for port in ports]
            given["mqtt"] = url.format(port=entry)
            if certified:
                fronts.append(["--port", str(without := free_port())])
                plain = f"mqtt://127.0.0.1:{without}"
        stack = Stack(directory / "stack", profile, external=given)
        if not keep:
            ended.callback(_clean, stack, directory / "workers")
        ended.enter_context(stack)
        pipeline = ended.enter_context(Pipeline(stack.settings, directory / "workers", way, fronts, engine))
        yield System(
            stack.settings,
            way,
            tuple(_HOPS),
            lambda: [*stack.status(), *pipeline.supervisor.status()],
            hands_of(stack, pipeline.supervisor),
            metrics={
                hop: [_metrics(pipeline, stage) for stage in ([name] if name else pipeline.way_in)] for hop, name in _HOPS.items()
            },
            mqtt_plain=plain,
            stream_group=_GROUPS[engine] if engine else "",
        )


def _identity(directory: Path, devices: Sequence[int]) -> tuple[list[str], str]:
    """A front's arguments, and the URL, of TLS with a certificate for each device and one for the server."""
    authority = Authority(directory)
    server, folder = str(authority.server()), authority.devices(devices)
    arguments = ["--identity", "tls", "--cert", server, "--key", server, "--ca", str(authority.ca)]
    return arguments, f"mqtts://127.0.0.1:{{port}}?{urlencode({'ca': authority.ca, 'certificates': folder})}"


def _clean(stack: Stack, workers: Path) -> None:
    stack.clean(logs=False)
    for place in workers.iterdir() if workers.exists() else ():
        if place.name != "logs":
            shutil.rmtree(place, ignore_errors=True)


def _metrics(pipeline: Pipeline, stage: str) -> str:
    return f"http://127.0.0.1:{pipeline.ports[stage]}/metrics"
