"""The whole path for one command: what is not given is started here, and ends with it."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from triax_backend.pipeline import Pipeline, require_flink
from triax_backend.servers.haproxy import HAProxy
from triax_backend.servers.ports import free_port
from triax_backend.stack import Stack
from triax_sim.pipeline import System, hands_of

__all__ = ["path"]

# Hop, and the stage whose account says what it holds.
_HOPS = {"kafka": "", "postgres": "sinks.timescale", "lake": "sinks.lake", "redis": "sinks.redis"}
_GROUPS = {"runner": "triax-stream", "flink": "triax-stream-flink"}
_FRONTS = 2  # behind the balancer of the local profile


@contextlib.contextmanager
def path(
    directory: Path, profile: str = "embedded", way: str = "bridge", external: Mapping[str, str] | None = None, stream: bool = True
) -> Iterator[System]:
    """Servers in `directory`/stack and workers in `directory`/workers, until the block ends.

    "embedded" is the least that is whole. "local" is as in production: ingest fronts behind a balancer, PyFlink as the stream,
    servers that sync to disk. `external`: servers that are there already. Raises StackError; then nothing runs.
    """
    given = dict(external or {})
    fronts: list[int] = []
    shutil.rmtree(directory / "stack", ignore_errors=True)
    shutil.rmtree(directory / "workers", ignore_errors=True)
    engine = None if not stream else "flink" if profile == "local" else "runner"
    if engine == "flink":
        require_flink()
    with contextlib.ExitStack() as ended:
        if "mqtt" not in given and (way == "ingest" or profile == "local"):
            way = "ingest"
            fronts = [free_port() for _ in range(_FRONTS if profile == "local" else 1)]
            given["mqtt"] = f"mqtt://127.0.0.1:{fronts[0]}"
            if profile == "local":
                balancer = HAProxy(directory / "stack", fronts)
                given["mqtt"] = balancer.url
                balancer.start()
                ended.callback(balancer.stop)
        stack = ended.enter_context(Stack(directory / "stack", profile, external=given))
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
            stream_group=_GROUPS[engine] if engine else "",
        )


def _metrics(pipeline: Pipeline, stage: str) -> str:
    return f"http://127.0.0.1:{pipeline.ports[stage]}/metrics"
