"""A scenario's faults as actions on a timeline: of the link, by the relay between devices and broker; of a process, by its hand."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from triax_sim.faults import Fault, Timeline
from triax_sim.generators import Child
from triax_sim.pipeline import Hand

__all__ = ["arrange", "happened"]

_REST_S = 0.5  # from a kill to the restart


def arrange(timeline: Timeline, faults: tuple[Fault, ...], relay: Child | None, hands: Mapping[str, Hand]) -> None:
    """Enter all faults. What cannot be done (no hand for a process) fails when its time comes, and is in the report."""
    for n, fault in enumerate(faults):
        if fault.kind.startswith("link"):
            _link(timeline, n, fault, relay)
        else:
            _process(timeline, n, fault, hands.get(fault.target))


def _link(timeline: Timeline, n: int, fault: Fault, relay: Child | None) -> None:
    def say(**fields: Any) -> Callable[[], None]:
        return lambda: relay.say(json.dumps(fields)) if relay is not None else None

    silent, cut = fault.kind == "link_silent", fault.kind == "link_cut"
    actions: dict[str, tuple[str, Callable[[], None], str, Callable[[], None]]] = {
        "link_delay": (
            f"link delayed by {fault.delay_ms:g} ms", say(delay_ms=fault.delay_ms), "link without delay", say(delay_ms=0.0)
        ),
        "link_rate": (
            f"link limited to {fault.rate_kbps:g} kB/s", say(rate_kbps=fault.rate_kbps), "no limit", say(rate_kbps=0.0)
        ),
        "link_cut": ("all connections cut", say(cut=True, refuse=fault.for_s > 0), "connections allowed", say(refuse=False)),
        "link_silent": ("link swallows everything", say(silent=True), "silent connections end", say(silent=False, cut=True)),
    }  # fmt: skip
    begin, act, end, back = actions[fault.kind]
    timeline.at(fault.at_s, f"{begin} ({n})", act)
    if not cut or fault.for_s or silent:
        timeline.at(fault.at_s + fault.for_s, f"{end} ({n})", back)


def _process(timeline: Timeline, n: int, fault: Fault, hand: Hand | None) -> None:
    verb = fault.kind.removeprefix("process_")
    again = {"kill": "start", "pause": "resume", "stop": "start"}[verb]
    act = getattr(hand, verb) if hand else None
    back = getattr(hand, again) if hand else None

    def unable() -> None:
        raise OSError(f"this run has no hand to {verb} {fault.target}; start the path with `triax fleet run`")

    timeline.at(fault.at_s, f"{verb} {fault.target} ({n})", act or unable)
    if back is not None:
        timeline.at(fault.at_s + (fault.for_s or _REST_S), f"{again} {fault.target} ({n})", back)


def happened(timeline: Timeline) -> list[dict[str, Any]]:
    """What was done, with the number of the fault it belongs to."""
    out = []
    for entry in timeline.done:
        what, _, n = entry["what"].rpartition(" (")
        out.append({**entry, "what": what, "fault": int(n.rstrip(")"))})
    return out
