"""`triax fleet`: load tests of a backend, from scenario files."""

import json as json_
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.console import Console
from triax_backend.servers import StackError
from triax_backend.settings import Settings
from triax_backend.stack import PROFILES
from triax_sim.capacity import Point, fit, point_of, search
from triax_sim.generators import GeneratorFailed
from triax_sim.pipeline import System
from triax_sim.plan import BadPlan
from triax_sim.run import generate
from triax_sim.run import run as run_scenario
from triax_sim.scenario import Scenario, load

from triax_tools.demo import measure
from triax_tools.options import Json, failed, home, print_json, with_external, with_settings
from triax_tools.path import path
from triax_tools.read import moment
from triax_tools.show import conclude
from triax_tools.verify import run_again

__all__ = ["app"]

Way = Annotated[str | None, typer.Option(help="Into Kafka: ingest or bridge.", show_default="the scenario's")]

app = typer.Typer(help="Load tests: thousands of virtual devices, and a verdict.", no_args_is_help=True)


def scenario_of(name: str, **changes: Any) -> Scenario:
    """The scenario of a file or a name, with what was given on the command line. Raises BadParameter."""
    try:
        return load(name).with_(**{field: value for field, value in changes.items() if value is not None})
    except BadPlan as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
@with_external
def run(
    external: dict[str, str],
    scenario: Annotated[str, typer.Argument(help="A TOML file, or the name of one that comes with triax, such as smoke.")],
    devices: Annotated[int | None, typer.Option(help="Scale the bulk cohorts.")] = None,
    qos: Annotated[int | None, typer.Option(min=0, max=1, help="Of frames, in every cohort.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of the run.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random.")] = None,
    way: Way = None,
    stack: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "embedded",
    out: Annotated[
        Path | None, typer.Option(help="Where the report and the evidence go.", show_default="~/.local/state/triax/runs/...")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Serve the live page here; 0: any free port.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Make features and events too.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="The data of the servers started here, too: gigabytes.")] = False,
    shard: Annotated[
        str | None, typer.Option(help="Only part i of n, such as 0/4, into servers that are there; `triax fleet merge` judges.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Of all shards: ISO 8601 with zone. Make it some seconds from now.")] = None,
    json: Json = False,
) -> None:
    """Run a scenario and judge it. Exit code: 0 PASS, 1 FAIL or it cannot run here, 2 INVALID or wrong usage."""
    chosen = scenario_of(scenario, devices=devices, qos=qos, duration_s=seconds, seed=seed, way=way)
    directory = out or home() / "runs" / f"{chosen.name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    if shard is not None:
        _shard(chosen, external, directory, shard, start)
        return
    conclude(measure(chosen, directory, stack, external, port, json, stream or chosen.planting.each > 0, keep), json)


def _shard(scenario: Scenario, external: dict[str, str], directory: Path, shard: str, start: str | None) -> None:
    """Make one shard's load and leave its ledgers in `directory`."""
    number, _, of = shard.partition("/")
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise typer.BadParameter(f"--shard is {shard!r}; write i/n with i from 0, such as 0/4")
    if start is None or not {"mqtt", "kafka"} <= set(external):
        raise typer.BadParameter("--shard needs --start, --mqtt and --kafka: the same for every shard")
    now = datetime.now(UTC)
    begin = moment(start, now)
    if begin <= now:
        raise typer.BadParameter(f"--start {start} has passed; give every shard the same time, with room to connect before it")
    settings = Settings.from_env({f"TRIAX_{name.upper()}": url for name, url in external.items()})
    system = System(settings, hops=("kafka",))
    try:
        made = generate(scenario, system, directory, (int(number), int(of)), int(begin.timestamp() * 1e6))
    except (GeneratorFailed, KafkaException, OSError) as error:
        raise failed(str(error)) from None
    for reason in made.failed:
        typer.secho(f"triax: {reason}", fg="red", err=True)
    typer.echo(directory)
    raise typer.Exit(1 if made.failed else 0)


@app.command()
@with_settings
def merge(
    settings: Settings,
    directories: Annotated[list[Path], typer.Argument(help="Of all the shards of one run.")],
    json: Json = False,
) -> None:
    """Judge the shards of a run as one: their ledgers and histograms together, against every hop.

    Exit code: 0 PASS, 1 FAIL, 2 INVALID or wrong usage.
    """
    run_again(settings, directories, json)


def _point(scenario: Scenario, devices: int, directory: Path, stack: str, external: dict[str, str]) -> Point:
    """One run at a device count, its own directory, nothing shown but a line."""
    found = measure(scenario.with_(devices=devices), directory / str(devices), stack, external, None, True, False)
    point = point_of(found.data)
    _say(point)
    return point


def _say(point: Point) -> None:
    typer.echo(f"{point.devices:,} devices: {point.verdict}, {point.path_cores:.2f} cores for the path", err=True)


@app.command()
@with_external
def capacity(
    external: dict[str, str],
    scenario: Annotated[str, typer.Argument(help="What is run at each count.")] = "ten-thousand",
    first: Annotated[int, typer.Option(help="Devices to begin with.")] = 1000,
    most: Annotated[int, typer.Option(help="Devices to stop at.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 30.0,
    qos: Annotated[int | None, typer.Option(min=0, max=1, help="Of frames.")] = None,
    way: Way = None,
    stack: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "embedded",
    json: Json = False,
) -> None:
    """Find the highest number of devices that still passes, within 10 %. Exit code 1 if not even the first does."""
    chosen = scenario_of(scenario, qos=qos, duration_s=seconds, way=way)
    directory = home() / "capacity"
    try:
        held, points = search(lambda devices: _point(chosen, devices, directory, stack, external), first, most)
    except BadPlan as error:
        raise typer.BadParameter(str(error)) from None
    if json:
        print_json({"devices": held, "points": [asdict(point) for point in points]})
    else:
        typer.echo(f"{held:,} devices x 10 frames/s pass {chosen.name}" if held else f"{first:,} devices do not pass {chosen.name}")
    raise typer.Exit(0 if held else 1)


def _ladder(scenario: Scenario, counts: list[int], stack: str, external: dict[str, str]) -> list[Point]:
    """A run at each count, all on one set of servers; the first count runs once before, so that none is measured cold."""
    directory = home() / "plan"
    points = []
    try:
        with path(directory, stack, scenario.way, external) as system:
            for count in (counts[0], *counts):
                found = run_scenario(scenario.with_(devices=count), system, directory / str(count))
                points.append(point_of(found.data))
                _say(points[-1])
    except (StackError, GeneratorFailed, OSError) as error:
        raise failed(str(error)) from None
    return points[1:]


@app.command()
@with_external
def plan(
    external: dict[str, str],
    devices: Annotated[int, typer.Option(help="How many you will have.")],
    ladder: Annotated[
        str, typer.Option(help="Device counts to measure, ascending; the last is predicted from the others.")
    ] = "500,1000,1500,2000,2500",
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 25.0,
    cores: Annotated[int, typer.Option(help="Of the machines that you will use.")] = 8,
    way: Way = None,
    stack: Annotated[str, typer.Option(help=f"One of {', '.join(PROFILES)}.")] = "embedded",
    json: Json = False,
) -> None:
    """Measure a ladder of rates here and say what so many devices need; the last rung tests the model before you trust it."""
    try:
        counts = [int(text) for text in ladder.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--ladder is {ladder!r}; write device counts such as 500,1000,1500,2000,2500") from None
    chosen = scenario_of("ten-thousand", duration_s=seconds, way=way)
    points = _ladder(chosen, counts, stack, external)
    try:
        model = fit(points[:-1])
    except BadPlan as error:
        raise typer.BadParameter(str(error)) from None
    need, off = model.predict(devices), model.error(points[-1])
    machines = model.machines(devices, cores)
    if json:
        print_json(
            need.to_json() | {"machines": machines, "error_at_last_rung": off, "points": [asdict(point) for point in points]}
        )
        return
    expected, low, high = need.total_cores
    typer.echo(f"{devices:,} devices, {need.frames_s:,.0f} frames/s: {expected:.1f} cores ({low:.1f} to {high:.1f}, 95 %)")
    typer.echo(
        f"{machines} machines of {cores} cores at 80 %; {need.network_mb_s:.1f} MB/s in, {need.disk_gb_day:,.0f} GB of frames a day"
    )
    typer.echo(f"at {points[-1].devices:,} devices, which it had not seen, the model was off by {off * 100:.0f} %")


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
