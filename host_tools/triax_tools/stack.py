"""`triax stack`: the whole backend on this machine, left running for real nodes or for load tests."""

import contextlib
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table
from triax_backend import pipeline
from triax_backend.servers import StackError
from triax_backend.servers.ports import free_port
from triax_backend.settings import Settings, masked
from triax_backend.stack import PROFILES, Stack

from triax_tools.options import Json, failed, home, print_json, with_external

__all__ = ["app"]

app = typer.Typer(help="The backend on this machine: servers, the way into Kafka, sinks.", no_args_is_help=True)
_WORKERS = "supervisor.json"
_DRAIN_S = 40.0

Directory = Annotated[Path | None, typer.Option(help="Data, logs and state.", show_default="~/.local/state/triax/stack")]


def _directory(given: Path | None) -> Path:
    return given or home() / "stack"


def _supervisor(directory: Path) -> tuple[psutil.Process | None, dict[str, int]]:
    """The supervisor that `up` started, if it lives, and the metrics port of each stage."""
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.Error):
        state = json.loads((directory / _WORKERS).read_text())
        process = psutil.Process(state["pid"])
        if process.create_time() == state["created"]:
            return process, state["ports"]
    return None, {}


@app.command()
@with_external
def up(
    external: dict[str, str],
    directory: Directory = None,
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}; local syncs to disk.")] = "embedded",
    way: Annotated[str, typer.Option(help="Into Kafka: bridge (behind a broker) or ingest (nodes connect to it).")] = "bridge",
    mqtt_port: Annotated[int, typer.Option(help="Where nodes connect.")] = 1883,
) -> None:
    """Start servers and workers; they stay when this command ends."""
    place = _directory(directory)
    if way not in pipeline.WAYS:
        raise typer.BadParameter(f"--way is {way!r}; it is one of {', '.join(pipeline.WAYS)}")
    if way == "ingest":
        external["mqtt"] = f"mqtt://127.0.0.1:{mqtt_port}"
    ports: dict[str, Sequence[int]] = {} if "mqtt" in external else {"mqtt": [mqtt_port]}
    stack = Stack(place, profile, external=external, ports=ports, detached=True)
    try:
        with Console(stderr=True).status("starting the servers"):
            stack.start()
    except StackError as error:
        raise failed(str(error)) from None
    _start_workers(place, stack.settings, way, mqtt_port)
    typer.echo(f"the backend runs; nodes connect to {stack.settings.mqtt}. Look: `triax frames tail`. Stop: `triax stack down`.")


def _start_workers(place: Path, settings: Settings, way: str, mqtt_port: int) -> None:
    ports = {}
    commands = []
    for module, arguments in pipeline.stages(way, mqtt_port).items():
        ports[module] = free_port()
        commands.append(shlex.join([module, *arguments, "--metrics-port", str(ports[module])]))
    place.mkdir(parents=True, exist_ok=True)
    with (place / "supervisor.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "triax_backend.supervise", "--directory", str(place), *commands],
            env={**psutil.Process().environ(), **settings.environ()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    state = {"pid": child.pid, "created": psutil.Process(child.pid).create_time(), "ports": ports}
    (place / _WORKERS).write_text(json.dumps(state))


@app.command()
def down(
    directory: Directory = None,
    clean: Annotated[bool, typer.Option(help="Remove the data too.")] = False,
) -> None:
    """Let the workers deliver what they hold, stop them and the servers that `up` started."""
    place = _directory(directory)
    supervisor, _ = _supervisor(place)
    if supervisor is not None:
        supervisor.send_signal(signal.SIGTERM)
        with contextlib.suppress(psutil.Error):
            supervisor.wait(_DRAIN_S)
        (place / _WORKERS).unlink(missing_ok=True)
    try:
        stack = Stack.load(place)
    except StackError as error:
        raise failed(str(error)) from None
    assert stack is not None
    stack.stop()
    if clean:
        stack.clean()
    typer.echo("stopped" + (", data removed" if clean else f"; data stays in {place}"))


def _rows(place: Path) -> list[dict[str, Any]]:
    stack = Stack.load(place, missing_ok=True)
    if stack is None:
        return []
    rows: list[dict[str, Any]] = [
        {
            "name": s.name,
            "what": "server" if s.ours else "yours",
            "alive": s.alive if s.ours else None,
            "detail": masked(s.url),
            "log": s.log,
        }
        for s in stack.status()
    ]
    _, ports = _supervisor(place)
    for module, port in ports.items():
        alive, detail = pipeline.healthy(port)
        one = pipeline.account(port)
        counts = vars(one) if one is not None else {}
        rows.append(
            {
                "name": module,
                "what": "worker",
                "alive": alive,
                "detail": detail,
                "log": str(place / "logs" / f"{module}.log"),
                **counts,
            }
        )
    return rows


@app.command()
def status(directory: Directory = None, json: Json = False) -> None:
    """How servers and workers are. Exit code 1 if any of ours is not well or none runs."""
    place = _directory(directory)
    rows = _rows(place)
    if json:
        print_json(rows)
    elif not rows:
        typer.echo(f"no stack runs in {place}: `triax stack up` starts one", err=True)
    else:
        table = Table("", "kind", "state", "in", "out", "detail")
        for row in rows:
            state = "-" if row["alive"] is None else "well" if row["alive"] else "[red]not well[/red]"
            table.add_row(
                row["name"], row["what"], state, str(row.get("frames_in", "")), str(row.get("frames_out", "")), row["detail"]
            )
        Console().print(table)
    if not rows or any(row["alive"] is False for row in rows):
        raise typer.Exit(1)
