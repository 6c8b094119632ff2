"""Every frame of the ledger against every hop, as sets.

The ledger's frames of one (device, boot) are numbered without a hole, so a frame's place in one dense array is known from its
identity, and a hop is a byte a frame: how often it was seen. Nothing is sampled and no count can hide another: a frame that is
missing and one that is there twice are two findings, each with its name and, where one vanished, the hop that lost it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from triax_proto.names import device_text

from triax_sim.histogram import Histogram

__all__ = ["FATES", "Emitted", "Hop", "behind", "fate_names", "read_all"]

Array = np.ndarray[Any, Any]

# What the sender knows of a frame. `unknown`: written at QoS 1, its PUBACK never came: 0, 1 or more copies are legal.
FATES = {"never": 0, "unknown": 1, "written": 2, "acked": 3}

_NAMED = 10_000  # frames that a report names, of each kind and hop; all are counted


def fate_names(fates: Array) -> dict[str, int]:
    """How many frames have which fate; fates without a frame are left out."""
    counts = np.bincount(fates, minlength=len(FATES))
    return {name: int(counts[code]) for name, code in FATES.items() if counts[code]}


class Emitted:
    """Ledger records laid out so that (device, boot, sequence) is an index.

    `repeats`: records under an identity that an earlier record has; with another checksum it is a cloned identity (`clones`).
    """

    def __init__(self, ledger: Array) -> None:
        order = np.lexsort((ledger["sequence"], ledger["boot"], ledger["device"]))
        rows = ledger[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows["device"][1:] != rows["device"][:-1]) | (rows["boot"][1:] != rows["boot"][:-1])
        first = np.flatnonzero(new)
        self.device, self.boot = rows["device"][first], rows["boot"][first]  # of each group
        last = np.append(first[1:], len(rows)) - 1
        self.size = rows["sequence"][last].astype(np.int64) + 1 if len(rows) else np.empty(0, np.int64)
        self.base = np.concatenate([[0], np.cumsum(self.size)]).astype(np.int64)
        place = self.base[np.cumsum(new) - 1] + rows["sequence"]
        again = np.zeros(len(rows), bool)
        again[1:] = place[1:] == place[:-1]
        self.repeats = int(again.sum())
        self.clones = place[again & (np.append(False, rows["checksum"][1:] != rows["checksum"][:-1]))]
        rows, self.place = rows[~again], place[~again]
        total = int(self.base[-1])
        self.known = np.zeros(total, bool)
        self.known[self.place] = True
        self.checksum, self.due_us = np.zeros(total, np.uint32), np.zeros(total, np.int64)
        self.checksum[self.place], self.due_us[self.place] = rows["checksum"], rows["due_us"]
        fate = np.where(rows["sent_us"] == 0, 0, np.where(rows["acked_us"] > 0, 3, np.where(rows["qos"] == 0, 2, 1)))
        self.fate = np.zeros(total, np.uint8)
        self.fate[self.place] = fate
        self.rows = rows
        self._devices, self._group0 = np.unique(self.device, return_index=True)
        self._groups = np.diff(np.append(self._group0, len(self.device)))

    @property
    def frames(self) -> int:
        """Distinct frames."""
        return len(self.place)

    def groups(self, device: Array, boot: Array) -> Array:
        """Index of (device, boot), -1: not in the ledger."""
        if not len(self._devices):
            return np.full(len(device), -1)
        index = np.minimum(np.searchsorted(self._devices, device), len(self._devices) - 1)
        mine = self._devices[index] == device
        found = np.full(len(device), -1)
        for n in range(int(self._groups.max())):
            group = self._group0[index] + np.minimum(n, self._groups[index] - 1)
            hit = mine & (self.boot[group] == boot)
            found[hit] = group[hit]
        return found

    def places(self, group: Array, sequence: Array) -> Array:
        """Index of frames of known groups, -1: never emitted."""
        place = self.base[group] + sequence
        inside = sequence < self.size[group]
        place[~inside] = 0
        return np.where(inside & self.known[place], place, -1)

    def names(self, place: Array) -> list[dict[str, Any]]:
        """device, boot, sequence of frames by index; the first 10,000."""
        place = place[:_NAMED]
        group = np.searchsorted(self.base, place, "right") - 1
        columns = (self.device[group].tolist(), self.boot[group].tolist(), (place - self.base[group]).tolist())
        return [{"device": device_text(d), "boot": b, "sequence": s} for d, b, s in zip(*columns, strict=True)]

    def latest(self, among: Array) -> dict[int, tuple[int, int]]:
        """Last (boot, sequence) of each device among the frames where `among` is true."""
        place = np.flatnonzero(among)
        group = np.searchsorted(self.base, place, "right") - 1
        out: dict[int, tuple[int, int]] = {}
        if place.size:
            ends = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
            for g, p in zip(group[ends].tolist(), place[ends].tolist(), strict=True):
                out[int(self.device[g])] = (int(self.boot[g]), p - int(self.base[g]))  # groups are in order of boot
        return out


class Hop:
    """What one hop holds of the emitted frames; `add` its rows as they are read, then ask. `ordered`: it keeps order."""

    def __init__(self, emitted: Emitted, name: str, measure_from_us: int = 0, ordered: bool = False) -> None:
        self.emitted = emitted
        self.name = name
        self.seen = np.zeros(len(emitted.known), np.uint8)
        self.damaged = np.zeros(len(emitted.known), bool)
        self.latency = Histogram()
        self.foreign = 0  # rows of devices and boots that this ledger knows nothing of: other runs, other senders
        self.rows = 0
        self.repeated = 0
        self.last_us = 0
        self.growing = False  # its reader had to stop while more came
        self._measure_from_us = measure_from_us
        self._ordered = ordered
        self._repeats: list[Array] = []
        self._altered: list[Array] = []
        self._unproved: list[Array] = []
        self._inverted: list[Array] = []
        self._unknown: list[dict[str, Any]] = []
        self.unknown = 0
        self._highest = np.full(len(emitted.device), -1, np.int64)

    def add(self, rows: Array) -> None:
        """Rows of dtype HOP, in the order of their hop."""
        self.rows += len(rows)
        group = self.emitted.groups(rows["device"], rows["boot"])
        ours = group >= 0
        if not ours.all():
            self.foreign += int((~ours).sum())
            rows, group = rows[ours], group[ours]
        place = self.emitted.places(group, rows["sequence"].astype(np.int64))
        stray = place < 0
        if stray.any():
            self._note_unknown(rows[stray])
            rows, group, place = rows[~stray], group[~stray], place[~stray]
        altered = self.emitted.checksum[place] != rows["checksum"]
        unproved = ~altered & ~rows["proved"]
        for bad, notes in ((altered, self._altered), (unproved, self._unproved)):
            if bad.any():
                notes.append(place[bad])
                self.damaged[place[bad]] = True
        good = ~altered & ~unproved
        if not good.all():
            rows, group, place = rows[good], group[good], place[good]
        if len(rows):
            self._count(rows, group, place)

    def _note_unknown(self, rows: Array) -> None:
        self.unknown += len(rows)
        for row in rows[: max(0, _NAMED - len(self._unknown))]:
            name = {"device": device_text(int(row["device"])), "boot": int(row["boot"]), "sequence": int(row["sequence"])}
            self._unknown.append(name)

    def _count(self, rows: Array, group: Array, place: Array) -> None:
        distinct, first, counts = np.unique(place, return_index=True, return_counts=True)
        before = self.seen[distinct]
        extra = counts - (before == 0)
        if extra.any():
            self.repeated += int(extra.sum())
            self._repeats.append(np.repeat(distinct, extra))
        self.seen[distinct] = np.minimum(before + counts, 255)
        first = np.sort(first[before == 0])
        rows, group, place = rows[first], group[first], place[first]
        at = rows["at_us"]
        if len(at) and at.max() > 0:
            self.last_us = max(self.last_us, int(at.max()))
            due = self.emitted.due_us[place]
            timed = (at > 0) & (due >= self._measure_from_us)
            self.latency.record((at - due)[timed])
        if len(rows) and self._ordered:
            self._order(rows, group, place)

    def _order(self, rows: Array, group: Array, place: Array) -> None:
        """First sightings that came after a later frame of their device and boot."""
        by = np.lexsort((rows["order"], group))
        group, sequence, place = group[by], rows["sequence"][by].astype(np.int64), place[by]
        begins = np.ones(len(group), bool)
        begins[1:] = group[1:] != group[:-1]
        start = np.flatnonzero(begins)
        which = np.cumsum(begins) - 1
        lifted = np.maximum(sequence, self._highest[group]) + (which << 33)  # groups apart, so one running maximum serves all
        highest = np.maximum.accumulate(lifted) - (which << 33)
        before = np.empty(len(group), np.int64)
        before[1:] = highest[:-1]
        before[start] = self._highest[group[start]]
        late = sequence < before
        if late.any():
            self._inverted.append(place[late])
        end = np.append(start[1:], len(group)) - 1
        self._highest[group[end]] = highest[end]

    # -- findings, as indices into `emitted`

    @staticmethod
    def _joined(parts: Sequence[Array]) -> Array:
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    @property
    def missing(self) -> Array:
        """Emitted and not here, neither whole nor damaged."""
        return np.flatnonzero(self.emitted.known & (self.seen == 0) & ~self.damaged)

    @property
    def repeats(self) -> Array:
        """A frame here once too often, for each time."""
        return self._joined(self._repeats)

    @property
    def altered(self) -> Array:
        """Here under the right identity with another checksum."""
        return self._joined(self._altered)

    @property
    def unproved(self) -> Array:
        """Here with the right checksum and other content."""
        return self._joined(self._unproved)

    @property
    def inverted(self) -> Array:
        """Came after a later one."""
        return self._joined(self._inverted)

    def result(self, above: Mapping[str, "Hop"] | None = None) -> dict[str, Any]:
        """Counts and names. `above`: the hops before this one, nearest last, to tell where what is missing was lost."""
        missing = self.missing
        fates = self.emitted.fate[missing]
        out: dict[str, Any] = {
            "frames": int((self.seen > 0).sum()),
            "missing": len(missing),
            "missing_by_fate": fate_names(fates),
            "repeated": self.repeated,
            "altered": len(self.altered),
            "unproved": len(self.unproved),
            "inverted": len(self.inverted),
            "unknown": self.unknown,
            "foreign": self.foreign,
            "latency_us": self.latency.summary(),
        }
        if self.growing:
            out["growing"] = True
        named = {name: self.emitted.names(getattr(self, name)) for name in ("repeats", "altered", "unproved", "inverted")}
        named["unknown"] = self._unknown
        named["missing"] = self.emitted.names(missing)
        lost = self.lost_at(missing[:_NAMED], above or {})
        for frame, hop in zip(named["missing"], lost, strict=True):
            frame["lost_at"] = hop
        out["named"] = {name: frames for name, frames in named.items() if frames}
        return out

    def lost_at(self, place: Array, above: Mapping[str, "Hop"]) -> list[str]:
        """First hop that has not each of these frames; `device` where it was never written to a socket."""
        lost = np.full(len(place), self.name, dtype=object)
        for name, hop in reversed(list(above.items())):
            lost[(hop.seen[place] == 0) & ~hop.damaged[place]] = name
        lost[self.emitted.fate[place] == FATES["never"]] = "device"
        return [str(name) for name in lost]


def behind(emitted: Emitted, present: Array, latest: Mapping[int, tuple[int, int]]) -> list[dict[str, Any]]:
    """Devices whose latest value in Redis is not that of their last frame among `present`."""
    out = []
    for device, wanted in emitted.latest(present).items():
        found = latest.get(device)
        if found is None or found < wanted:
            out.append({"device": device_text(device), "wanted": wanted, "found": found})
    return out


def read_all(hop: Hop, chunks: Iterable[Array]) -> Hop:
    """Add every chunk; returns the hop."""
    for chunk in chunks:
        hop.add(chunk)
    return hop
