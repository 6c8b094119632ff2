"""Faults on a timeline: of the link, by a relay of its own; of a process, by signals; and what each may cost.

    python -m triax_sim.faults '{"to": ["127.0.0.1", 1883]}'      relay; one JSON object of Link's fields a line on standard input,
                                                                   {"cut": true}: close all connections, {"end": true}

A process is named by its pid and start time, so a number that the system gave to another process by now is never hit.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from triax_sim.commands import Commands
from triax_sim.proxy import Link, Relay

__all__ = ["FAULTS", "Expected", "Fault", "Timeline", "Victim", "expected", "main"]

# Faults by what they hit, and what each may cost in general. `unknown`: frames on their way when it happened.
FAULTS = {
    "link_delay": "nothing",
    "link_rate": "nothing",
    "link_cut": "in_flight",
    "link_silent": "in_flight",
    "process_kill": "by_role",
    "process_pause": "nothing",
    "process_stop": "nothing",
}


@dataclass(frozen=True)
class Fault:
    """One fault of a scenario. `target`: a process by name ("bridge", "mqtt", "postgres"), empty for the link."""

    kind: str
    at_s: float
    for_s: float = 0.0
    target: str = ""
    delay_ms: float = 0.0
    rate_kbps: float = 0.0


@dataclass(frozen=True)
class Expected:
    """What a fault may cost: frames missing for good and repeated, at Kafka and at the ends, by the fate that the sender saw.

    `lost`: fates ("acked", "written", "unknown") of which frames may be missing; `repeats`: at Kafka, frames may come twice.
    """

    lost: frozenset[str]
    repeats: bool
    why: str


def expected(fault: Fault, qos: int, way_in: str) -> Expected:
    """What `fault` may cost at this QoS with this way into Kafka ("bridge" or "ingest")."""
    nothing = frozenset[str]()
    if fault.kind in ("link_cut", "link_silent"):
        lost = frozenset({"written"}) if qos == 0 else nothing
        return Expected(lost, qos == 1, "bytes in the sockets of a dead connection: lost at QoS 0, sent again at QoS 1")
    if fault.kind in ("process_kill", "process_stop") and fault.target == "mqtt":
        if fault.kind == "process_stop":
            return Expected(frozenset({"written"}) if qos == 0 else nothing, True, "an orderly stop saves what was acknowledged")
        lost = frozenset({"acked", "written", "unknown"}) if way_in == "bridge" else frozenset({"written"})
        return Expected(lost, True, "a killed broker forgets what it had acknowledged since its last snapshot (design.md 3.4)")
    if fault.kind == "process_kill" and fault.target == "bridge":
        lost = frozenset({"written"}) if qos == 0 else nothing
        return Expected(
            lost, True, "the broker keeps QoS 1 for a persistent session; what was produced and not acknowledged comes again"
        )
    if fault.kind == "process_kill" and fault.target == "ingest":
        lost = frozenset({"written"}) if qos == 0 else nothing
        return Expected(lost, True, "PUBACK means in Kafka: QoS 1 is sent again, QoS 0 in its memory is lost")
    if fault.kind == "process_kill" and fault.target == "kafka":
        return Expected(nothing, True, "an idempotent producer retries; process death loses nothing that Kafka had acknowledged")
    if fault.kind == "process_pause" and fault.target in ("mqtt", "ingest", "kafka"):
        return Expected(nothing, qos == 1, "10 s without PUBACK make a node reconnect and send again")
    return Expected(nothing, False, "downstream of Kafka: offsets and data are committed together")


@dataclass(frozen=True)
class Victim:
    """A process that a fault hits. Raises ProcessLookupError if it is no longer the same one."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Victim":
        """The process with this pid now."""
        return cls(pid, _started(pid))

    def signal(self, number: int) -> None:
        """Send a signal."""
        if _started(self.pid) != self.started:
            raise ProcessLookupError(f"process {self.pid} is another one by now")
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: it hangs, its connections stay."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        raise ProcessLookupError(f"there is no process {pid}") from None


class Timeline:
    """Actions at times after the start, carried out by whoever calls `run_due`."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, str, Callable[[], None]]] = []
        self.done: list[dict[str, Any]] = []

    def at(self, at_s: float, what: str, act: Callable[[], None]) -> None:
        """Do `act` at `at_s`."""
        self._entries.append((at_s, len(self._entries), what, act))
        self._entries.sort(key=lambda entry: entry[:2])

    def run_due(self, now_s: float) -> None:
        """Do what is due; what fails is kept with its error, for the report."""
        while self._entries and self._entries[0][0] <= now_s:
            at_s, _, what, act = self._entries.pop(0)
            entry: dict[str, Any] = {"at_s": at_s, "done_s": now_s, "what": what}
            began = time.monotonic()
            try:
                act()
            except (OSError, RuntimeError) as error:
                entry["error"] = str(error)
            entry["took_s"] = time.monotonic() - began
            self.done.append(entry)

    @property
    def next_s(self) -> float:
        """When the next one is due; infinity: none left."""
        return self._entries[0][0] if self._entries else float("inf")


def _apply(relay: Relay, command: dict[str, Any]) -> bool:
    names = {f.name for f in fields(Link)}
    for name, value in command.items():
        if name in names:
            setattr(relay.link, name, value)
    if command.get("cut"):
        print(json.dumps({"cut": relay.cut_all()}), flush=True)
    return not command.get("end")


def main(arguments: list[str] | None = None) -> int:
    """Relay until told to end, or until standard input ends."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1:
        print("usage: python -m triax_sim.faults OPTIONS (one JSON object)", file=sys.stderr)
        return 2
    host, port = json.loads(words[0])["to"]
    relay = Relay((host, int(port)))
    print(json.dumps({"port": relay.port}), flush=True)
    commands, going = Commands(), True
    while going and not commands.ended:
        relay.turn(0.02)
        for line in commands.lines():
            going = going and _apply(relay, json.loads(line))
    print(json.dumps({"passed": relay.passed, "accepted": relay.accepted, "swallowed": relay.swallowed}), flush=True)
    relay.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
