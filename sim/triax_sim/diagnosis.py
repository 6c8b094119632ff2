"""What the stream said of a run's devices, against the faults that were planted in them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from triax_backend import hops
from triax_backend.settings import Settings
from triax_proto.v1.event_pb2 import Event

from triax_sim.bulk import device_ids
from triax_sim.pipeline import System, group_lag, wait_until
from triax_sim.planted import ANY_AXIS, KINDS, Planted
from triax_sim.scenario import Scenario

__all__ = ["diagnose", "judge_findings"]

# Frames from a fault's first to the last one that its event rests on. A level is judged by five windows on each side, a bearing by
# five in a row, a drift by up to twelve blocks of five.
_WITHIN = {"spike": 2, "glitch": 2, "dead_axis": 20, "level_shift": 120, "bearing": 150, "drift": 600}
_BEFORE = 2  # a gold device's frames may begin so much off the run's
_NAMED = 50


def _names() -> dict[int, str]:
    return {int(Event.Kind.Value(f"KIND_{kind.upper()}")): kind for kind in KINDS}


def judge_findings(
    planted: Iterable[Planted], devices: Mapping[int, int], boots: Iterable[int], events: Iterable[Event]
) -> dict[str, Any]:
    """Precision and recall of each kind. `devices`: EUI-64 to index in the fleet. Events of others or other boots are left out.

    An event is right if its device has that fault, on that axis, and it rests on frames soon enough after its beginning; every
    other event of these kinds is wrong. A fault is found once, whatever the number of its events.
    """
    names, wanted, known = _names(), {fault.index: fault for fault in planted}, set(boots)
    found: dict[int, list[float]] = {}
    wrong: list[dict[str, Any]] = []
    right: Counter[str] = Counter()
    on_glitches = 0
    for event in events:
        kind, index = names.get(event.kind), devices.get(event.device)
        if kind is None or index is None or event.boot not in known:
            continue
        fault, finding = wanted.get(index), event.finding
        on_glitches += kind == "spike" and fault is not None and fault.kind == "glitch"
        late = finding.last_sequence - fault.frame if fault is not None else 0
        if (
            fault is not None
            and fault.kind == kind
            and fault.axis in (finding.axis, ANY_AXIS)
            and -_BEFORE <= late <= _WITHIN[kind]
        ):
            right[kind] += 1
            found.setdefault(index, []).append(late / 10)
        else:
            wrong.append({"kind": kind, "device": f"{event.device:016x}", "axis": finding.axis, "sequence": finding.first_sequence})
    kinds = {kind: _kind(kind, [f for f in wanted.values() if f.kind == kind], found, right[kind], wrong) for kind in KINDS}
    missed = [{"kind": f.kind, "index": f.index, "frame": f.frame, "axis": f.axis, "size": f.size} for f in wanted.values()]
    missed = [entry for entry in missed if entry["index"] not in found]
    return {"kinds": kinds, "spikes_of_glitches": on_glitches, "missed": missed[:_NAMED], "wrong": wrong[:_NAMED]}


def _kind(
    kind: str, faults: list[Planted], found: Mapping[int, list[float]], right: int, wrong: list[dict[str, Any]]
) -> dict[str, Any]:
    """A row of the report."""
    first = [min(found[fault.index]) for fault in faults if fault.index in found]
    bad = sum(entry["kind"] == kind for entry in wrong)
    return {
        "planted": len(faults),
        "found": len(first),
        "recall": len(first) / len(faults) if faults else 1.0,
        "events": right + bad,
        "wrong": bad,
        "precision": right / (right + bad) if right + bad else 1.0,
        "windows_until": float(np.median(first)) if first else None,
    }


def _arrived(settings: Settings, since_us: int) -> bool:
    """Every event in Kafka is in the database."""
    return hops.kafka_events(settings, since_us) <= set(hops.events(settings, since_us))


def diagnose(scenario: Scenario, system: System, start_us: int, boots: Iterable[int]) -> dict[str, Any] | None:
    """Judge what is in the database once the stream has come to the end; None where nothing was planted or nothing streams."""
    planted = scenario.planted
    if not planted or not system.stream_group:
        return None
    settings = system.settings
    streamed = wait_until(lambda: not any(group_lag(settings, [system.stream_group]).values()), scenario.drain_s)
    since_us = start_us - 60_000_000  # a minute for clocks of other hosts
    arrived = wait_until(lambda: _arrived(settings, since_us), scenario.drain_s)
    index = np.arange(scenario.devices)
    devices = dict(zip(device_ids(scenario.seed, index).tolist(), index.tolist(), strict=True))
    events = (Event.FromString(message) for message in hops.events(settings, since_us))
    return judge_findings(planted, devices, boots, events) | {"complete": streamed and arrived, "devices": scenario.devices}
