"""What the commands share: options, output for a person or a script, and errors as exit codes.

0 pass, 1 a gate failed or the data cannot carry the answer (the report is written all the same), 2 usage, 3 device or broker.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from triax_tools.calibrate import gravity as local_gravity
from triax_tools.calibrate.document import Document, Gate, parse
from triax_tools.calibrate.errors import BadInput, CalibrateError, Refused
from triax_tools.calibrate.gravity import Gravity
from triax_tools.calibrate.lake import LAKE
from triax_tools.calibrate.model import STANDARD_G
from triax_tools.calibrate.readers import Hints
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.report import Report
from triax_tools.calibrate.source import LIVE

__all__ = [
    "GravityOption",
    "HeightOption",
    "Json",
    "LatOption",
    "MqttOption",
    "Output",
    "PageOption",
    "Rate",
    "Scale",
    "Seconds",
    "Sensor",
    "Source",
    "Unit",
    "command",
    "gates_table",
    "gravity_of",
    "hints_of",
    "load_document",
    "now",
    "page_of",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
LatOption = Annotated[float | None, typer.Option("--lat", help="Latitude of the place, degrees: gives local gravity.")]
HeightOption = Annotated[float, typer.Option("--height", help="Height of the place above sea level, m.")]
GravityOption = Annotated[float | None, typer.Option("--gravity", help="Local gravity in m/s2, if it was measured.")]
MqttOption = Annotated[str, typer.Option("--mqtt", envvar="TRIAX_MQTT", help="Broker of a live node, mqtt://host:1883")]

Source = Annotated[
    str, typer.Argument(help="Capture, CSV, MATLAB file, ST data log, live:<device>, or lake:<device>@<start>/<end>.")
]
Sensor = Annotated[str, typer.Option("--sensor", help="Sensor of an ST data log.")]
Unit = Annotated[str, typer.Option("--unit", help="Unit of a table: counts, g, mg, m/s2.")]
Scale = Annotated[float, typer.Option("--scale", help="Milli-g per count, where the file does not say.")]
Rate = Annotated[float, typer.Option("--rate", help="Samples per second, where the file has no time.")]
Seconds = Annotated[float, typer.Option("--seconds", help="How long to listen to a live node.")]
PageOption = Annotated[Path | None, typer.Option("--report", help="HTML report; default: beside the file.")]

P = ParamSpec("P")


def now() -> datetime:
    """UTC; labels only."""
    return datetime.now(UTC)


class Output:
    """Tables and sentences for a person, or one JSON object for a script. `finish` ends the command with its exit code."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)

    def say(self, text: str, style: str = "") -> None:
        """A line for the person (on standard error where standard output is JSON)."""
        self.console.print(text, style=style or None, markup=False)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table for the person."""
        if self.as_json:
            return
        out = Table(title=title, title_justify="left", title_style="bold")
        for k, name in enumerate(head):
            out.add_column(name, justify="left" if k == 0 else "right", no_wrap=k == 0)
        for row in rows:
            out.add_row(*row)
        self.console.print(out)

    def finish(self, passed: bool, facts: Mapping[str, Any], report: Report | None = None, path: Path | None = None) -> None:
        """Write the report, print the result, end with 0 or 1."""
        held = {"passed": passed, **facts}
        if report is not None and path is not None:
            report.write(path, now())
            held["report"] = str(path)
        if self.as_json:
            typer.echo(json.dumps(held, default=_plain))
        else:
            if "report" in held:
                self.say(f"report: {held['report']}")
            self.say("PASS" if passed else "FAIL", "bold green" if passed else "bold red")
        raise typer.Exit(0 if passed else 1)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dict__"):
        return value.__dict__
    return str(value)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Errors become a sentence and an exit code; linear algebra gets one thread (small matrices: more would only wait)."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with threadpool_limits(1, user_api="blas"):
                function(*args, **kwargs)
        except CalibrateError as error:
            reasons = getattr(error, "reasons", (str(error),))
            held: dict[str, Any] = {"passed": False, "reasons": reasons, "exit_code": error.exit_code}
            if isinstance(error, Refused) and (page := _refusal_page(function.__name__, kwargs)) is not None:
                made = Report(f"{function.__name__}: refused", False, {})
                made.text("Why", list(reasons))
                made.write(page, now())
                held["report"] = str(page)
                typer.secho(f"report: {page}", err=True)
            if kwargs.get("json_output"):
                typer.echo(json.dumps(held))
            for reason in reasons:
                typer.secho(f"triax calibrate: {reason}", fg="red", err=True)
            raise typer.Exit(error.exit_code) from None

    return run


def _refusal_page(name: str, options: Mapping[str, Any]) -> Path | None:
    """Where a command that could not finish says why: its report's place, as far as its options tell."""
    if isinstance(given := options.get("report"), Path):
        return given
    if isinstance(out := options.get("out"), Path):
        return out.with_suffix(".html")
    for key in ("calibration", "second", "source"):
        if isinstance(held := options.get(key), str | Path) and str(held):
            return page_of(str(held), name)
    return None


def page_of(source: str, kind: str) -> Path:
    """The report of a command without --report: beside what it read; of a live node or the lake, here."""
    if source.startswith((LIVE, LAKE)):
        source = source.partition("@")[0].replace(":", "-")
    stem = Path(source.rstrip("/"))
    name = f"{stem.stem}.{kind}.html"
    return stem.with_name(name) if stem.parent.is_dir() else Path(name)


def gravity_of(value: float | None, latitude_deg: float | None, height_m: float, recorded_m_s2: float = 0.0) -> Gravity:
    """Local gravity as the person knows it, else as the capture does. Raises BadInput: it is a scale factor and never guessed."""
    if value is not None:
        return local_gravity.given(value)
    if latitude_deg is not None:
        return local_gravity.local(latitude_deg, height_m)
    if recorded_m_s2:
        return local_gravity.given(recorded_m_s2)
    raise BadInput(
        f"Local gravity is not known, and {STANDARD_G} for it would be wrong by up to 0.27 % of scale: give --lat and --height of "
        "the place where it was recorded, or --gravity."
    )


def hints_of(
    sensor: str, unit: str, scale_mg: float, rate_hz: float, identity: Identity | None = None, scale_g: float = 0.0
) -> Hints:
    """Options of a recording that says little of itself. `scale_mg`: milli-g per count; else `scale_g`, if the unit is counts."""
    scale = scale_mg / 1e3 or scale_g * (unit in ("", "counts"))
    return Hints(sensor=sensor, unit=unit, scale_g=scale, rate_hz=rate_hz, identity=identity or Identity())


def load_document(path: Path) -> Document:
    """A calibration file. Raises BadDocument, BadInput (no such file)."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from None
    return parse(text, str(path))


def gates_table(out: Output, gates: Sequence[Gate]) -> None:
    """What was checked."""
    rows = [(g.name, f"{g.value:.4g} {g.unit}", f"{g.limit:.4g} {g.unit}", "passed" if g.passed else "FAILED") for g in gates]
    out.table("gates", ("gate", "value", "limit", "result"), rows)
