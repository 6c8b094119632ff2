"""`triax fleet`: load tests of a backend, from scenario files."""

import json as json_
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from triax_backend.stack import PROFILES
from triax_sim.plan import BadPlan
from triax_sim.scenario import Scenario, load

from triax_tools.demo import measure
from triax_tools.options import Json, failed, home, with_external
from triax_tools.show import conclude

__all__ = ["app"]

app = typer.Typer(help="Load tests: thousands of virtual devices, and a verdict.", no_args_is_help=True)


def scenario_of(path: str, **changes: Any) -> Scenario:
    """The scenario of a file or a name, with what was given on the command line. Raises BadParameter."""
    try:
        return load(path).with_(**{name: value for name, value in changes.items() if value is not None})
    except BadPlan as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
@with_external
def run(
    external: dict[str, str],
    scenario: Annotated[str, typer.Argument(help="A TOML file, or the name of one that comes with triax, such as smoke.")],
    devices: Annotated[int | None, typer.Option(help="Scale the largest cohort.")] = None,
    qos: Annotated[int | None, typer.Option(min=0, max=1, help="Of frames, in every cohort.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
    way: Annotated[str, typer.Option(help="Into Kafka: ingest or bridge.")] = "ingest",
    stack: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "embedded",
    out: Annotated[
        Path | None, typer.Option(help="Where the report and the evidence go.", show_default="~/.local/state/triax/runs/...")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Serve the live page here; 0: any free port.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Make features and events too.")] = False,
    json: Json = False,
) -> None:
    """Run a scenario and judge it. Exit code: 0 PASS, 1 FAIL or it cannot run here, 2 INVALID or wrong usage."""
    chosen = scenario_of(scenario, devices=devices, qos=qos, duration_s=seconds, seed=seed)
    directory = out or home() / "runs" / f"{chosen.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    conclude(measure(chosen, directory, stack, way, external, port, json, stream), json)


@app.command()
def report(directory: Annotated[Path, typer.Argument(help="Of a finished run.")]) -> None:
    """Print a finished run's verdict, reasons and the address of its page."""
    try:
        data = json_.loads((directory / "report.json").read_text())
    except (OSError, ValueError) as error:
        raise failed(f"{directory} holds no finished run: {error}") from None
    console = Console()
    console.print(f"{data['scenario']['name']}: {data['verdict']}")
    for reason in data["reasons"]:
        console.print(f"  {reason}")
    console.print(f"report: {directory / 'report.html'}")
