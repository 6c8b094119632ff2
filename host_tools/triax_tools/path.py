"""The whole path for one command: what is not given is started here, and ends with it."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from triax_backend.pipeline import Pipeline
from triax_backend.servers.ports import free_port
from triax_backend.stack import Stack
from triax_sim.pipeline import System, hands_of

__all__ = ["path"]

# Hop, and the stage whose account says what it holds.
_HOPS = {"kafka": "", "postgres": "sinks.timescale", "lake": "sinks.lake", "redis": "sinks.redis"}


@contextlib.contextmanager
def path(
    directory: Path, profile: str = "embedded", way: str = "bridge", external: Mapping[str, str] | None = None, stream: bool = True
) -> Iterator[System]:
    """Servers in `directory`/stack and workers in `directory`/workers, until the block ends.

    `external`: servers that are there already. `stream`: make features and events too. Raises StackError; then nothing runs.
    """
    given = dict(external or {})
    port = None
    if way == "ingest" and "mqtt" not in given:
        port = free_port()
        given["mqtt"] = f"mqtt://127.0.0.1:{port}"
    shutil.rmtree(directory / "stack", ignore_errors=True)
    with (
        Stack(directory / "stack", profile, external=given) as stack,
        Pipeline(stack.settings, directory / "workers", way, port, stream) as pipeline,
    ):
        yield System(
            stack.settings,
            way,
            tuple(_HOPS),
            lambda: [*stack.status(), *pipeline.supervisor.status()],
            hands_of(stack, pipeline.supervisor),
            {hop: f"http://127.0.0.1:{pipeline.ports[stage or way]}/metrics" for hop, stage in _HOPS.items()},
        )
