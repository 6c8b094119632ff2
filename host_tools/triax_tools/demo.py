"""`triax demo`: the whole path on this machine, and the proof that it lost nothing."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from triax_backend.servers import StackError
from triax_backend.servers.mosquitto import installed
from triax_backend.stack import PROFILES
from triax_sim.bulk import device_ids
from triax_sim.generators import GeneratorFailed
from triax_sim.plan import BadPlan
from triax_sim.report import Report
from triax_sim.run import run
from triax_sim.scenario import Scenario, load

from triax_tools.options import Json, failed, home, with_external
from triax_tools.path import path
from triax_tools.show import Show, conclude

__all__ = ["demo", "measure", "way_of"]

_LINGER_S = 1.5  # the page is told the verdict twice a second


def _scenario(gold: int, recording: Path | None, **changes: Any) -> Scenario:
    scenario = load("demo")
    cohorts = tuple(replace(c, count=gold) if c.kind == "gold" else c for c in scenario.cohorts if c.kind != "gold" or gold)
    extra = {"recording": str(recording.resolve())} if recording is not None else {}
    return replace(scenario, cohorts=cohorts).with_(**changes, **extra)


def way_of(external: dict[str, str]) -> str:
    """By mosquitto and the bridge, or where there is no mosquitto by the ingest front, which needs none."""
    if "mqtt" in external or installed():
        return "bridge"
    typer.echo("triax: mosquitto is not installed, so the devices connect to the ingest front", err=True)
    return "ingest"


def measure(
    scenario: Scenario,
    directory: Path,
    profile: str,
    external: dict[str, str],
    page: int | None,
    quiet: bool,
    stream: bool = True,
    keep: bool = False,
) -> Report:
    """Start the path, run the scenario, show it. Ends the command with code 1 where something cannot even begin.

    `keep`: the data of the servers that were started for it.
    """
    console = Console(stderr=True, quiet=quiet)
    show = Show(console, page)
    try:
        with show():
            show.text("starting the servers")
            certified = device_ids(scenario.seed, np.arange(scenario.devices)).tolist() if scenario.tls else ()
            with path(directory, profile, scenario.way, external, stream, certified, keep) as system:
                report = run(scenario, system, directory, show.news, show.prepared)
                show.done(report)
                if page is not None:
                    time.sleep(_LINGER_S)
                show.text("stopping")
            return report
    except (StackError, GeneratorFailed, OSError) as error:
        raise failed(str(error)) from None


@with_external
def demo(
    external: dict[str, str],
    devices: Annotated[int, typer.Option(help="Virtual accelerometers, beside 40 on which errors are planted.")] = 200,
    gold: Annotated[int, typer.Option(help="Of these, virtual parts that run the node's own code.")] = 8,
    seconds: Annotated[float, typer.Option(help="Length of the run.")] = 20.0,
    qos: Annotated[int, typer.Option(min=0, max=1, help="MQTT quality of service of frames.")] = 1,
    stack: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "embedded",
    way: Annotated[
        str | None, typer.Option(help="Into Kafka: bridge or ingest.", show_default="bridge, where mosquitto is installed")
    ] = None,
    recording: Annotated[Path | None, typer.Option(exists=True, help="For gold devices: HSDatalog folder or CSV.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = 1,
    port: Annotated[int, typer.Option(help="Of the live page; 0: any free one.")] = 0,
    page: Annotated[bool, typer.Option(help="Serve the live page.")] = True,
    json: Json = False,
) -> None:
    """Virtual accelerometers through MQTT and Kafka into the database, the lake and Redis; a verdict on every frame.

    Exit code: 0 PASS, 1 FAIL or it cannot run here, 2 INVALID or wrong usage.
    """
    try:
        way = way or way_of(external)
        scenario = _scenario(gold, recording, devices=devices, qos=qos, duration_s=seconds, seed=seed, way=way)
    except BadPlan as error:
        raise typer.BadParameter(str(error)) from None
    directory = home() / "demo"
    report = measure(scenario, directory, stack, external, port if page else None, json)
    conclude(report, json)
