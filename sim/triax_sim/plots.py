"""Plots of a run as SVG text: rate, lateness, latency by hop, loss by second, CPU by process, the fleet as a map."""

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from triax_sim.histogram import Histogram
from triax_sim.reconcile import Emitted, Hop

__all__ = ["cpu", "distribution", "fleet_map", "loss", "rate", "waterfall"]

Array = np.ndarray[Any, Any]

_COLOURS = ("#3b6ea8", "#d98032", "#4d9a5b", "#b5483f", "#7d62a8", "#85694f", "#c77fb0", "#7a7a7a")
_PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    # Text stays text: small, searchable, in the reader's font. No date: the same run gives the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "triax"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "triax"}, bbox_inches="tight")
    text = out.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float = 7.5, height: float = 2.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.grid(True, alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def rate(seconds: list[dict[str, Any]]) -> str:
    """Frames due and sent in time, by the second in which they were due."""
    figure, axes = _axes()
    at = [row["second"] for row in seconds]
    axes.step(at, [row["due"] for row in seconds], where="post", color=_COLOURS[7], label="due")
    axes.step(at, [row["sent_within_1s"] for row in seconds], where="post", color=_COLOURS[0], label="sent within 1 s")
    axes.set_xlabel("second of the run")
    axes.set_ylabel("frames")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure)


def distribution(histograms: dict[str, Histogram]) -> str:
    """Percentiles of several histograms over a logarithmic axis of rarity."""
    figure, axes = _axes()
    percents = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99]
    for colour, (name, histogram) in zip(_COLOURS, histograms.items(), strict=False):
        if histogram.count:
            values = [max(value, 1) / 1000 for value in histogram.percentiles(percents)]
            axes.plot([1 / (1 - p / 100) for p in percents], values, color=colour, label=name, marker=".")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000, 10000], ["0", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    axes.minorticks_off()
    axes.set_ylabel("ms")
    if any(histogram.count for histogram in histograms.values()):
        axes.legend(frameon=False)
    return _svg(figure)


def waterfall(steps: dict[str, Histogram]) -> str:
    """Time from due to each hop: median as a bar, p99 and the largest as marks."""
    steps = {name: histogram for name, histogram in steps.items() if histogram.count}
    figure, axes = _axes(height=0.5 + 0.45 * max(1, len(steps)))
    for n, histogram in enumerate(steps.values()):
        p50, p99, p999 = (max(v, 1) / 1000 for v in histogram.percentiles((50, 99, 99.9)))
        axes.barh(n, p50, color=_COLOURS[0], height=0.6, label="p50" if not n else None)
        axes.plot([p99], [n], "|", color=_COLOURS[1], markersize=14, markeredgewidth=2, label="p99" if not n else None)
        axes.plot([p999], [n], "|", color=_COLOURS[3], markersize=14, markeredgewidth=2, label="p99.9" if not n else None)
        axes.plot([max(histogram.maximum, 1) / 1000], [n], ".", color="black", label="max" if not n else None)
    axes.set_yticks(range(len(steps)), list(steps))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms after the frame was due")
    if steps:
        axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.25))
    return _svg(figure)


def loss(emitted: Emitted, hops: dict[str, Hop], start_us: int) -> str:
    """Frames missing at each hop, by the second in which they were due."""
    figure, axes = _axes()
    last = int((emitted.due_us.max() - start_us) // 1_000_000) + 1 if emitted.frames else 1
    for colour, (name, hop) in zip(_COLOURS, hops.items(), strict=False):
        second = (emitted.due_us[hop.missing] - start_us) // 1_000_000
        counts = np.bincount(np.clip(second, 0, last), minlength=last)
        axes.step(range(len(counts)), counts, where="post", color=colour, label=f"{name} ({len(second)})")
    axes.set_xlabel("second of the run")
    axes.set_ylabel("frames missing")
    axes.set_ylim(bottom=0)
    if hops:
        axes.legend(frameon=False, ncols=len(hops), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure)


def cpu(seconds: list[dict[str, Any]], generator_cpu: list[float]) -> str:
    """Processor share of each process over time, stacked; one processor is 100 %."""
    figure, axes = _axes(height=3.2)
    if len(seconds) > 1:
        at = np.array([row["at_s"] for row in seconds])
        step = np.maximum(np.diff(at), 1e-3)
        names = [name for name in seconds[-1]["cpu_s"] if any(name in row["cpu_s"] for row in seconds)]
        used = [np.diff([row["cpu_s"].get(name, 0.0) for row in seconds]) / step * 100 for name in names]
        own = np.interp(at[1:], np.arange(1, len(generator_cpu) + 1), generator_cpu) * 100 if generator_cpu else None
        if own is not None:
            names, used = [*names, "generator"], [*used, own]
        if used:
            colours = [_COLOURS[n % len(_COLOURS)] for n in range(len(used))]
            axes.stackplot(at[1:], np.maximum(np.array(used), 0), labels=names, colors=colours)
            axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_xlabel("second of the run")
    axes.set_ylabel("% of a processor")
    return _svg(figure)


def fleet_map(values: Array, label: str) -> str:
    """One cell a device, in the order of their index."""
    columns = int(np.ceil(np.sqrt(len(values) * 2))) or 1
    cells = np.full(-(-len(values) // columns) * columns, np.nan)
    cells[: len(values)] = values
    figure = Figure(figsize=(7.5, 0.6 + 7.5 * len(cells) / columns / columns))
    axes = figure.add_subplot()
    image = axes.imshow(cells.reshape(-1, columns), cmap="viridis_r", interpolation="nearest", aspect="equal")
    axes.set_axis_off()
    figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return _svg(figure)
