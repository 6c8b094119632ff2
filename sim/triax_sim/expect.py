"""What a scenario's faults may cost, against what was seen: each missing or repeated frame is explained, or it is a finding."""

from dataclasses import asdict
from typing import Any

import numpy as np

from triax_sim.faults import Expected, Fault, expected
from triax_sim.reconcile import FATES, Emitted, Hop
from triax_sim.scenario import Scenario

__all__ = ["Expectation", "judge_self_test", "reserved_places", "split_findings"]

Array = np.ndarray[Any, Any]

# A fault's effect begins with it and ends when all that it delayed has caught up: PUBACK timeout (10 s), backoff (to 30 s).
_AFTER_US = 45_000_000
_JUST_BEFORE_US = 1_000_000  # frames that were under way when a fault began


class Expectation:
    """Faults of a run with their times, and which frames each may have cost.

    `resent`: true for frames that their sender wrote on more than one connection, as it has to at QoS 1: they may be there twice.
    """

    def __init__(self, scenario: Scenario, way_in: str, start_us: int, resent: Array | None = None) -> None:
        self.faults = scenario.faults
        self._start_us = start_us
        self._resent = resent
        qos = {cohort.qos for cohort in scenario.cohorts}
        self.may: list[Expected] = [self._worst(fault, qos, way_in) for fault in scenario.faults]

    @staticmethod
    def _worst(fault: Fault, qos: set[int], way_in: str) -> Expected:
        each = [expected(fault, q, way_in) for q in sorted(qos)]
        lost = frozenset().union(*(one.lost for one in each))
        return Expected(lost, any(one.repeats for one in each), "; ".join(sorted({one.why for one in each})))

    def _window(self, fault: Fault, due_us: Array, sent_us: Array) -> Array:
        """Frames that were under way at some moment of the fault."""
        begin = self._start_us + int(fault.at_s * 1e6)
        end = begin + int(fault.for_s * 1e6) + _AFTER_US
        at = np.where(sent_us > 0, sent_us, due_us)
        return np.asarray((at > begin - _AFTER_US) & (at < end))

    def explained(self, emitted: Emitted, place: Array, losses: bool) -> Array:
        """True for missing (`losses`) or repeated frames that some fault may have cost."""
        out = np.zeros(len(place), bool)
        if not place.size:
            return out
        fate, due = emitted.fate[place], emitted.due_us[place]
        if losses:
            # Not known to have arrived: legal at any time, its sender knows that it may be missing.
            out |= (fate == FATES["never"]) | (fate == FATES["unknown"])
        for fault, may in zip(self.faults, self.may, strict=True):
            codes = [FATES[name] for name in may.lost]
            hit = np.isin(fate, codes) if losses else np.full(len(place), may.repeats)
            out |= hit & self._window(fault, due, due)
        if not losses:
            out |= fate == FATES["unknown"]
            if self._resent is not None:
                out |= self._resent[place]
        return out

    def _cost(self, due_us: Array) -> Array:
        """Index of the fault that each frame is put down to, -1: none."""
        begins = np.array([self._start_us + int(fault.at_s * 1e6) for fault in self.faults])
        order = np.argsort(begins, kind="stable")
        index = np.searchsorted(begins[order], due_us + _JUST_BEFORE_US, "right") - 1
        return np.where(index >= 0, order[index], -1) if len(order) else np.full(len(due_us), -1)

    def table(self, seen: list[dict[str, Any]], hop: Hop | None, reserved: Array) -> list[dict[str, Any]]:
        """Each fault: what it is, what it may cost and did cost at `hop`, when it was done.

        A missing or repeated frame is put down to the last fault that had begun when it was due, or began within its first second.
        """
        costs: list[Array] = []
        if hop is not None:
            due_us = hop.emitted.due_us
            costs = [self._cost(due_us[place[~reserved[place]]]) for place in (hop.missing, hop.repeats)]
        rows = []
        for n, (fault, may) in enumerate(zip(self.faults, self.may, strict=True)):
            row = {name: value for name, value in asdict(fault).items() if value not in ("", 0.0)}
            row |= {"may_lose": sorted(may.lost), "may_repeat": may.repeats, "why": may.why}
            if costs:
                row |= {name: int((cost == n).sum()) for name, cost in zip(("lost", "repeated"), costs, strict=True)}
            rows.append(row | {"done": [entry for entry in seen if entry.get("fault") == n]})
        return rows


def reserved_places(emitted: Emitted, devices: Array) -> Array:
    """True for frames of the reserved devices."""
    mine = np.isin(emitted.device, devices)
    return np.repeat(mine, emitted.size)


def split_findings(hop: Hop, reserved: Array) -> dict[str, tuple[Array, Array]]:
    """Findings of a hop: (of ordinary devices, of reserved ones), by kind."""
    out = {}
    for kind in ("missing", "repeats", "altered", "unproved", "inverted"):
        place = getattr(hop, kind)
        mine = reserved[place]
        out[kind] = (place[~mine], place[mine])
    return out


def _named(emitted: Emitted, place: Array) -> set[tuple[str, int, int]]:
    return {(f["device"], f["boot"], f["sequence"]) for f in emitted.names(place)}


# What a planted error looks like at Kafka.
_SHOWS = {"drop": "missing", "flip": "missing", "repeat": "repeats", "swap": "inverted"}


def judge_self_test(
    hop: Hop, reserved: Array, planted: list[dict[str, Any]], dead: list[dict[str, Any]] | None, explain: Expectation
) -> dict[str, Any]:
    """Whether the checker found exactly what was planted on the reserved devices.

    `dead`: identities in dead letters whose checksum did not hold, where they could be read; None: not asked. Findings that a fault
    explains are set aside, unless they were planted.
    """
    emitted = hop.emitted
    wanted: dict[str, set[tuple[str, int, int]]] = {kind: set() for kind in _SHOWS.values()}
    for entry in planted:
        wanted[_SHOWS[entry["kind"]]].add((entry["device"], entry["boot"], entry["sequence"]))
    found = {}
    for kind, (_, place) in split_findings(hop, reserved).items():
        names = _named(emitted, place)
        excused = _named(emitted, place[explain.explained(emitted, place, kind == "missing")]) if kind != "inverted" else set()
        if kind == "inverted" and any(may.repeats for may in explain.may):
            excused = names
        found[kind] = names - (excused - wanted.get(kind, set()))
    result: dict[str, Any] = {"planted": {}, "found": {}, "exact": True}
    for kind in found:
        want = wanted.get(kind, set())
        result["planted"][kind], result["found"][kind] = len(want), len(found[kind] & want)
        if found[kind] != want:
            result["exact"] = False
            result.setdefault("differs", {})[kind] = {
                "not_found": sorted(want - found[kind])[:20],
                "not_planted": sorted(found[kind] - want)[:20],
            }
    if dead is not None:
        flips = sum(entry["kind"] == "flip" for entry in planted)
        result["planted"]["flipped"], result["found"]["flipped"] = flips, len(dead)
        result["exact"] = result["exact"] and len(dead) >= flips
    return result
