"""What a person sees of a run: progress in the terminal and on the live page, and the table at its end."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from triax_sim.report import Report
from triax_sim.run import Run

from triax_tools.live import LivePage
from triax_tools.options import print_json

_SHOWN = 40

__all__ = ["Show", "conclude", "table"]


def _ms(microseconds: float | None) -> str:
    return "" if microseconds is None else f"{microseconds / 1000:,.0f}"


def table(hops: Mapping[str, Mapping[str, Any]]) -> Table:
    """Hop by hop: frames, missing, repeats, latency from the due time in ms."""
    out = Table(
        "hop",
        "frames",
        "missing",
        "repeated",
        "p50 ms",
        "p99 ms",
        "max ms",
        title="from the due time to each hop",
        title_justify="left",
    )
    for column in out.columns[1:]:
        column.justify = "right"
    for name, hop in hops.items():
        if name == "redis":
            out.add_row(name, f"{hop['devices']:,} devices", f"{hop['behind']} behind", "", "", "", "")
            continue
        latency = hop.get("latency_us") or {}
        counts = [f"{hop[key]:,}" if key in hop else "" for key in ("frames", "missing", "repeated")]
        out.add_row(name, *counts, *(_ms(latency.get(key)) for key in ("p50", "p99", "max")))
    return out


def findings(hops: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One line for each frame that no fault and no planted error explains."""
    for name, hop in hops.items():
        for what, frames in hop.get("unexplained", {}).items():
            for frame in frames:
                yield f"{name}: {what} {frame['device']} boot {frame['boot']} frame {frame['sequence']}"


def conclude(report: Report, json: bool) -> None:
    """Print the result and end the command with the verdict's exit code."""
    if json:
        print_json(report.data)
    else:
        console = Console()
        console.print(table(report.data["hops"]))
        for line in [*findings(report.data["hops"])][:_SHOWN]:
            console.print(f"  {line}")
        for reason in report.data["reasons"]:
            console.print(f"  {reason}")
        console.print(f"report: {report.directory / 'report.html'}")
        colour = {"PASS": "green", "FAIL": "red"}.get(report.verdict, "yellow")
        console.print(f"[bold {colour}]{report.verdict}[/]")
    raise typer.Exit(report.exit_code)


class Show:
    """Takes a run's news (triax_sim.run) to the terminal and to the live page."""

    def __init__(self, console: Console, page_port: int | None) -> None:
        self._console = console
        self._port = page_port
        self._lock = threading.Lock()
        self._news: dict[str, Any] = {"phase": "starting", "elapsed_s": 0.0, "verdict": None, "hops": [], "ages": "", "wave": None}
        self._devices: list[str] = []
        self._watch: Callable[[str], None] = lambda device: None
        self._bar: tuple[Progress, Any] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator["Show"]:
        """Terminal and page, until the block ends. Raises OSError if the page's port is taken."""
        columns = (TextColumn("{task.description}"), BarColumn(30), TextColumn("{task.fields[text]}"))
        with contextlib.ExitStack() as stack:
            if self._port is not None:
                page = stack.enter_context(LivePage(self._page, lambda device: self._watch(device), self._port))
                self._console.print(f"live page: {page.url}")
            progress = stack.enter_context(Progress(*columns, console=self._console, transient=True))
            self._bar = progress, progress.add_task("starting", total=None, text="")
            yield self

    def prepared(self, run: Run) -> None:
        """The run whose devices a click on the page chooses from."""
        self._watch = run.watch

    def text(self, phase: str, text: str = "") -> None:
        """Say what happens before or after the run itself."""
        with self._lock:
            self._news = self._news | {"phase": phase}
        if self._bar is not None:
            self._bar[0].update(self._bar[1], description=phase, text=text)

    def news(self, news: dict[str, Any]) -> None:
        """Take the run's news."""
        with self._lock:
            self._devices = news.pop("devices", self._devices)
            self._news = news
        if self._bar is not None:
            progress, task = self._bar
            counts = "  ".join(f"{hop['name']} {hop['frames']:,}" for hop in news["hops"])
            total = news["duration_s"] or None
            progress.update(task, description=news["phase"], total=total, completed=news["elapsed_s"], text=news["text"] or counts)

    def done(self, report: Report) -> None:
        """The verdict, on the page."""
        with self._lock:
            self._news = self._news | {"phase": "done", "verdict": report.verdict}

    def _page(self, first: bool) -> dict[str, Any]:
        with self._lock:
            return self._news | ({"devices": self._devices} if first else {})
