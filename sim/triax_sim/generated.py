"""What the generators leave behind: where their files are, and what these say of the generators themselves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from triax_sim.histogram import Histogram
from triax_sim.reconcile import Emitted
from triax_sim.scenario import Scenario

__all__ = ["Generated", "by_second", "health", "merged", "resent"]

Array = np.ndarray[Any, Any]


@dataclass
class Generated:
    """What is left of the phase in which load was made; enough to verify it, here or after shards were merged."""

    start_us: int
    ledgers: list[Path]
    stats: list[dict[str, Any]]
    kafka_start: dict[int, int]
    failed: list[str] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)
    memory_bytes: int = 0
    # SHA-256 of the planted errors, said before the hops are read, and a function that then reveals them.
    sealed: str = ""
    reveal: Callable[[], dict[str, Any]] | None = None


def by_second(emitted: Emitted, start_us: int, scenario: Scenario) -> tuple[list[dict[str, Any]], float]:
    """Frames by the second in which they were due, and the least share of one that was sent within 1 s."""
    rows = emitted.rows
    second = (rows["due_us"] - start_us) // 1_000_000
    inside = (second >= 0) & (second < int(scenario.duration_s))
    second, rows = second[inside], rows[inside]
    count = int(scenario.duration_s)
    due = np.bincount(second, minlength=count)
    in_time = (rows["sent_us"] > 0) & (rows["sent_us"] - rows["due_us"] <= 1_000_000)
    sent = np.bincount(second[in_time], minlength=count)
    share = np.where(due > 0, sent / np.maximum(due, 1), 1.0)
    table = [{"second": n, "due": int(due[n]), "sent_within_1s": int(sent[n])} for n in range(count)]
    measured = share[int(scenario.warmup_s) :]
    return table, float(measured.min()) if len(measured) else 1.0


def merged(stats: list[dict[str, Any]]) -> dict[str, Histogram]:
    """The histograms of all generators, by name."""
    out: dict[str, Histogram] = {}
    for one in stats:
        for name, data in one["histograms"].items():
            out.setdefault(name, Histogram()).merge(Histogram.from_json(data))
    return out


def resent(emitted: Emitted, stats: list[dict[str, Any]]) -> Array:
    """True for frames that their sender wrote more than once."""
    out = np.zeros(len(emitted.known), bool)
    frames = [frame for one in stats for frame in one.get("resent_frames", [])]
    if frames:
        device, boot, sequence = (np.array([frame[n] for frame in frames], kind) for n, kind in enumerate(("<u8", "<u4", "<i8")))
        group = emitted.groups(device, boot)
        place = emitted.places(group[group >= 0], sequence[group >= 0])
        out[place[place >= 0]] = True
    return out


def health(made: Generated, histograms: dict[str, Histogram]) -> dict[str, Any]:
    """What the generators did and cost, all together."""
    frames = sum(one["sent"] for one in made.stats) or 1
    cpu_s = sum(sum(second["cpu_s"] for second in one["seconds"]) for one in made.stats)
    out: dict[str, Any] = {
        "processes": len(made.stats),
        "cpu_us_per_frame": round(cpu_s / frames * 1e6, 2),
        **{
            name: sum(one.get(name, 0) for one in made.stats) for name in ("due", "sent", "acked", "resent", "stray_acks", "unsent")
        },
        "connections": {k: sum(one["connections"][k] for one in made.stats) for k in ("opened", "refused", "lost")},
        "memory_kb": sum(one["memory_kb"] for one in made.stats),
        "longest_pause_us": max((second["longest_pause_us"] for one in made.stats for second in one["seconds"]), default=0),
        "nice": [one["nice"] for one in made.stats],
    }
    return out | {f"{name}_us": histogram.summary() for name, histogram in histograms.items()}
