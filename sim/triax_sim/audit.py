"""Whatever came in, with no ledger: what Kafka holds of a time range against the other hops, for real nodes.

A hole in a device's sequence numbers is a frame that was lost before Kafka.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from triax_backend import hops
from triax_backend.settings import Settings
from triax_proto.hop import HOP, LEDGER
from triax_proto.names import device_text

from triax_sim.reconcile import Emitted, Hop, behind, read_all

__all__ = ["Audit", "of_range"]

Array = np.ndarray[Any, Any]
Readers = Mapping[str, Callable[[Settings, int], Iterator[Array]]]

_EARLIER_US = 60_000_000  # received before the first frame was due: clocks of other hosts
_READERS: Readers = {
    "kafka": lambda settings, since_us: hops.kafka(settings, since_us=since_us),
    "postgres": lambda settings, since_us: hops.postgres(settings, since_us=since_us),
    "lake": lambda settings, since_us: hops.lake(settings, since_us=since_us),
}
# Repeats in Kafka are legal after a fault, and the lake keeps what Kafka holds; the sinks' readers remove them.
_WRONG = {
    "kafka": ("missing", "altered", "unproved", "unknown"),
    "postgres": ("missing", "repeats", "altered", "unproved", "unknown"),
    "lake": ("missing", "altered", "unproved", "unknown"),
}


@dataclass
class Audit:
    """`findings`: hop, what, device, boot, sequence, lost_at; a hole has its last_sequence too."""

    hops: dict[str, dict[str, Any]]
    findings: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """FAIL if anything is wrong."""
        return "FAIL" if self.findings else "PASS"

    @property
    def exit_code(self) -> int:
        """Of a command that ends with this."""
        return 0 if self.verdict == "PASS" else 1

    def to_json(self) -> dict[str, Any]:
        """What `triax verify --json` prints."""
        return {"verdict": self.verdict, "hops": self.hops, "findings": self.findings, "notes": self.notes}


def _read(emitted: Emitted, settings: Settings, since_us: int, known: dict[str, Hop]) -> dict[str, Hop]:
    for name, reader in _READERS.items():
        if name not in known:
            known[name] = read_all(Hop(emitted, name, ordered=name == "kafka"), reader(settings, since_us))
    return known


def _judge(emitted: Emitted, found: dict[str, Hop], settings: Settings) -> Audit:
    out = Audit({"emitted": {"frames": emitted.frames, "devices": len(np.unique(emitted.device))}})
    for name, hop in found.items():
        above = {"kafka": found["kafka"]} if name in ("postgres", "lake") else {}
        result = hop.result(above)
        named = result.pop("named")
        if name == "lake":
            # Repeats are removed on reading; what the table stores is Kafka's, verbatim.
            result["stored_repeats"], result["repeated"] = result["repeated"], 0
        out.hops[name] = result
        for what in _WRONG[name]:
            for frame in named.get(what, ()):
                out.findings.append({"hop": name, "what": what, **frame})
        out.notes += [
            f"{name}: {len(named[what])} {what}" for what in ("repeats", "inverted") if named.get(what) and name == "kafka"
        ]
    late = behind(emitted, found["kafka"].seen > 0, hops.redis(settings))
    out.hops["redis"] = {"devices": len(np.unique(emitted.device)), "behind": len(late)}
    for device in late:
        boot, sequence = device["wanted"]
        out.findings.append({"hop": "redis", "what": "behind", "device": device["device"], "boot": boot, "sequence": sequence})
    return out


def of_range(settings: Settings, start_us: int, end_us: int) -> Audit:
    """Every frame that came into Kafka in [start_us, end_us), against the other hops; holes in sequence numbers are noted.

    Holes at the borders of the range cannot be seen. Raises the errors of servers that do not answer.
    """
    seen = [rows[(rows["at_us"] >= start_us) & (rows["at_us"] < end_us)] for rows in hops.kafka(settings, since_us=start_us)]
    rows = np.concatenate(seen) if seen else np.empty(0, HOP)
    return _of_kafka(rows, settings, start_us)


def _of_kafka(rows: Array, settings: Settings, start_us: int) -> Audit:
    ledger = np.zeros(len(rows), LEDGER)
    for name in ("device", "boot", "sequence", "checksum"):
        ledger[name] = rows[name]
    ledger["due_us"] = ledger["sent_us"] = ledger["acked_us"] = rows["at_us"]
    ledger = ledger[np.unique(ledger[["device", "boot", "sequence"]], return_index=True)[1]]
    emitted = Emitted(ledger)
    kafka = Hop(emitted, "kafka", ordered=True)
    if len(rows):
        kafka.add(rows)
    audit = _judge(emitted, _read(emitted, settings, start_us - _EARLIER_US, {"kafka": kafka}), settings)
    for device, boot, first, last in _holes(ledger):
        audit.findings.append(
            {
                "hop": "kafka",
                "what": "hole",
                "device": device_text(device),
                "boot": boot,
                "sequence": first,
                "last_sequence": last,
                "lost_at": "before Kafka",
            }
        )
    return audit


def _holes(ledger: Array) -> Iterator[tuple[int, int, int, int]]:
    """Device, boot, first and last sequence number of each hole. `ledger` is sorted by identity."""
    if len(ledger) < 2:
        return
    sequence = ledger["sequence"].astype(np.int64)
    same = (ledger["device"][1:] == ledger["device"][:-1]) & (ledger["boot"][1:] == ledger["boot"][:-1])
    for at in np.flatnonzero(same & (np.diff(sequence) > 1)).tolist():
        yield int(ledger["device"][at]), int(ledger["boot"][at]), int(sequence[at]) + 1, int(sequence[at + 1]) - 1
