"""What has been seen, as ranges of sequence numbers per (device, boot); whole flushes are judged at once.

A frame is a repeat only if its own number was seen: being old never means being a repeat, and several boots of a device live side
by side. Ordinary traffic, each device's next numbers without a hole, never leaves numpy. Memory is bounded: the least recently used
identities and the oldest ranges are forgotten, and a frame that falls into what was forgotten is passed on, marked DOUBTFUL.

The last RECENT checksums of an identity are kept, so that another checksum under a number that was seen is told from a repeat
(CONFLICT). Where the checksum is forgotten the verdict is STALE: a repeat unless whoever has the checksum says otherwise.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from triax_backend.packed import BadState, Cutter
from triax_backend.ranges import add_to

__all__ = ["RECENT", "BadState", "Judged", "Seen", "Verdict"]

Array = np.ndarray[Any, Any]

RECENT = 16  # checksums kept of an identity: 1.6 s of frames, more than one flush holds of a device
MOST_RANGES = 256  # of an identity; each costs 8 bytes in every flush's state
MOST_IDENTITIES = 4096  # of a partition: 10,000 devices over 16 partitions are 625 a boot
MOST_EVICTED = 16384  # evicted identities of a partition whose highest number is remembered, 20 bytes each
_VERSION = 1
_HEAD = struct.Struct("<4sIIIq")
_MAGIC = b"seen"
_NONE = -1
_EVERYTHING = 1 << 32  # above any sequence number
_COLUMNS: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("_device", "u8", ()),
    ("_boot", "u4", ()),
    ("_partition", "i4", ()),
    ("_floor", "i8", ()),
    ("_low", "i8", ()),
    ("_high", "i8", ()),
    ("_used", "i8", ()),
    ("_recent", "u4", (RECENT,)),
)


class Verdict(IntEnum):
    """What a frame is. NEW and DOUBTFUL are passed on; STALE and REPEAT were seen; CONFLICT is dead-lettered."""

    NEW = 0
    DOUBTFUL = 1
    REPEAT = 2
    STALE = 3
    CONFLICT = 4


@dataclass(frozen=True, slots=True)
class Judged:
    """`verdict`: one Verdict per frame, in the order given. `order`: indices that sort by device, boot, sequence, arrival."""

    verdict: Array
    order: Array


def _key(device: int, boot: int) -> int:
    return device << 32 | boot


class Seen:
    """The set of frames seen, of any number of partitions; `dump` and `load` move one partition's part as bytes.

    An identity is one (device, boot). Its numbers seen are `older` ranges and the top range [low, high); below `floor` numbers may
    have been seen and forgotten.
    """

    _device: Array
    _boot: Array
    _partition: Array  # _NONE: the slot is free
    _floor: Array
    _low: Array
    _high: Array
    _used: Array  # tick of the last use
    _recent: Array  # checksum of number n at n % RECENT

    def __init__(self, identities: int = MOST_IDENTITIES, ranges: int = MOST_RANGES, evicted: int = MOST_EVICTED) -> None:
        self._most = (identities, ranges, evicted)
        self._slots: dict[int, int] = {}
        self._older: dict[int, list[list[int]]] = {}  # slot: [start, end) ascending, below `low`
        self._free: list[int] = []
        self._counts: dict[int, int] = {}  # identities per partition
        self._evicted: dict[int, dict[int, int]] = {}  # partition: identity: high
        self._forgotten: dict[int, int] = {}  # partition: highest boot of an identity that is in no table any more
        self._tick = 0
        self._grow(64)

    def _grow(self, size: int) -> None:
        old = self._device.size if hasattr(self, "_device") else 0
        for name, kind, shape in _COLUMNS:
            grown = np.zeros((size, *shape), kind)
            if old:
                grown[:old] = getattr(self, name)
            setattr(self, name, grown)
        self._partition[old:] = _NONE
        self._free += range(size - 1, old - 1, -1)

    def __len__(self) -> int:
        return len(self._slots)

    def ranges(self, device: int, boot: int) -> list[tuple[int, int]]:
        """Numbers seen of an identity, as ascending [start, end)."""
        slot = self._slots.get(_key(device, boot))
        if slot is None:
            return []
        return [(a, b) for a, b in self._older.get(slot, [])] + [(int(self._low[slot]), int(self._high[slot]))]

    def judge(self, partition: Array, device: Array, boot: Array, sequence: Array, checksum: Array) -> Judged:
        """Judge frames in order of arrival and remember them. Arrays of one length; `partition` is the device's."""
        self._tick += 1
        count = len(device)
        order = np.lexsort((sequence, boot, device))
        verdict = np.zeros(count, np.uint8)
        if not count:
            return Judged(verdict, order)
        d, b, s, c = device[order], boot[order], sequence[order].astype(np.int64), checksum[order]
        first = np.ones(count, bool)
        first[1:] = (d[1:] != d[:-1]) | (b[1:] != b[:-1])
        starts = np.flatnonzero(first)
        ends = np.append(starts[1:], count)
        broken = np.zeros(count, bool)
        broken[1:] = s[1:] != s[:-1] + 1
        broken[starts] = False
        whole = ~np.logical_or.reduceat(broken, starts)
        get = self._slots.get
        slots = np.array([get(k << 32 | q, _NONE) for k, q in zip(d[starts].tolist(), b[starts].tolist(), strict=True)])
        known = slots != _NONE
        fast = whole & known & (s[starts] == self._high[slots]) & (self._floor[slots] <= self._high[slots])
        self._take_next(slots, fast, starts, ends, s, c)
        found = verdict[order]
        for i in np.flatnonzero(~fast).tolist():
            a, z = int(starts[i]), int(ends[i])
            where = int(partition[order[a]])
            slot = int(slots[i]) if known[i] else self._add(where, int(d[a]), int(b[a]), int(s[a]))
            found[a:z] = self._one_by_one(slot, s[a:z].tolist(), c[a:z].tolist())
        verdict[order] = found
        self._evict(set(np.unique(partition).tolist()))
        return Judged(verdict, order)

    def _take_next(self, slots: Array, fast: Array, starts: Array, ends: Array, s: Array, c: Array) -> None:
        chosen = slots[fast]
        self._high[chosen] = s[ends[fast] - 1] + 1
        self._used[chosen] = self._tick
        member = np.repeat(fast, ends - starts)
        self._recent[np.repeat(slots, ends - starts)[member], s[member] % RECENT] = c[member]

    def _add(self, partition: int, device: int, boot: int, sequence: int) -> int:
        if not self._free:
            self._grow(2 * self._device.size)
        slot = self._free.pop()
        key = _key(device, boot)
        self._slots[key] = slot
        self._counts[partition] = self._counts.get(partition, 0) + 1
        floor = self._evicted.get(partition, {}).pop(key, 0)
        if boot <= self._forgotten.get(partition, _NONE):
            floor = _EVERYTHING
        self._device[slot], self._boot[slot], self._partition[slot] = device, boot, partition
        self._floor[slot], self._low[slot], self._high[slot] = floor, sequence, sequence
        return slot

    def _one_by_one(self, slot: int, sequences: list[int], checksums: list[int]) -> list[int]:
        self._used[slot] = self._tick
        recent = self._recent[slot]
        out: list[int] = []
        for number, checksum in zip(sequences, checksums, strict=True):
            if self._insert(slot, number):
                out.append(Verdict.DOUBTFUL if number < self._floor[slot] else Verdict.NEW)
                if number >= self._high[slot] - RECENT:
                    recent[number % RECENT] = checksum
            elif number < self._high[slot] - RECENT:
                out.append(Verdict.STALE)
            else:
                out.append(Verdict.REPEAT if recent[number % RECENT] == checksum else Verdict.CONFLICT)
        return out

    def _insert(self, slot: int, number: int) -> bool:
        """Add a number to an identity's ranges; False if it was there."""
        low, high = int(self._low[slot]), int(self._high[slot])
        if number == high:
            self._high[slot] = number + 1
            return True
        if low <= number < high:
            return False
        older = self._older.setdefault(slot, [])
        if number > high:
            if high > low:
                older.append([low, high])
            self._low[slot], self._high[slot] = number, number + 1
        elif not add_to(older, number):
            return False
        if older and older[-1][1] == self._low[slot]:
            self._low[slot] = older.pop()[0]
        while len(older) > self._most[1] - 1:
            self._floor[slot] = max(int(self._floor[slot]), older.pop(0)[1])
        if not older:
            del self._older[slot]
        return True

    def _evict(self, partitions: set[int]) -> None:
        for partition in partitions:
            surplus = self._counts.get(partition, 0) - self._most[0]
            if surplus <= 0:
                continue
            mine = np.flatnonzero(self._partition == partition)
            oldest = mine[np.argsort(self._used[mine], kind="stable")[:surplus]]
            evicted = self._evicted.setdefault(partition, {})
            for slot in oldest.tolist():
                evicted[_key(int(self._device[slot]), int(self._boot[slot]))] = max(int(self._high[slot]), int(self._floor[slot]))
                self._remove(slot)
            while len(evicted) > self._most[2]:
                key = next(iter(evicted))
                del evicted[key]
                self._forgotten[partition] = max(self._forgotten.get(partition, _NONE), key & 0xFFFFFFFF)

    def _remove(self, slot: int) -> None:
        del self._slots[_key(int(self._device[slot]), int(self._boot[slot]))]
        self._older.pop(slot, None)
        self._counts[int(self._partition[slot])] -= 1
        self._partition[slot] = _NONE
        self._free.append(slot)

    def drop(self, partition: int) -> None:
        """Forget a partition that belongs to somebody else now."""
        for slot in np.flatnonzero(self._partition == partition).tolist():
            self._remove(slot)
        for table in (self._evicted, self._forgotten, self._counts):
            table.pop(partition, None)

    def dump(self, partition: int) -> bytes:
        """A partition's part as bytes: 88 bytes an identity without holes, 8 more for each range below its top one."""
        mine = np.flatnonzero(self._partition == partition)
        mine = mine[np.argsort(self._used[mine], kind="stable")]  # `load` keeps the order of use
        holes = [self._older.get(slot, []) for slot in mine.tolist()] if self._older else [[]] * mine.size
        evicted = self._evicted.get(partition, {})
        head = _HEAD.pack(_MAGIC, _VERSION, mine.size, len(evicted), self._forgotten.get(partition, _NONE))
        return b"".join(
            (
                head,
                self._device[mine].astype("<u8").tobytes(),
                self._boot[mine].astype("<u4").tobytes(),
                *(a[mine].astype("<u8").tobytes() for a in (self._floor, self._low, self._high)),
                np.array([len(h) for h in holes], "<u4").tobytes(),
                np.array([pair for h in holes for pair in h], "<u4").reshape(-1).tobytes(),
                self._recent[mine].astype("<u4").tobytes(),
                np.array([k >> 32 for k in evicted], "<u8").tobytes(),
                np.array([k & 0xFFFFFFFF for k in evicted], "<u4").tobytes(),
                np.array(list(evicted.values()), "<u8").tobytes(),
            )
        )

    def load(self, partition: int, data: bytes) -> None:
        """Replace a partition's part by what `dump` gave; empty bytes: nothing was seen. Raises BadState."""
        self.drop(partition)
        if not data:
            return
        if len(data) < _HEAD.size:
            raise BadState(f"{len(data)} bytes are no dedup state")
        magic, version, count, gone, forgotten = _HEAD.unpack_from(data)
        if magic != _MAGIC or version != _VERSION:
            raise BadState(
                f"dedup state of version {version} ({magic!r}), this program reads {_VERSION}; run the one that wrote it"
            )
        cut = Cutter(data, _HEAD.size)
        device, boot = cut("<u8", count), cut("<u4", count)
        floor, low, high = cut("<u8", count), cut("<u8", count), cut("<u8", count)
        lengths = cut("<u4", count)
        holes = cut("<u4", 2 * int(lengths.sum())).reshape(-1, 2).tolist()
        recent = cut("<u4", count * RECENT).reshape(count, RECENT)
        names = [k << 32 | b for k, b in zip(cut("<u8", gone).tolist(), cut("<u4", gone).tolist(), strict=True)]
        highs = cut("<u8", gone).tolist()
        cut.end()
        self._tick += 1
        for i in range(count):
            slot = self._add(partition, int(device[i]), int(boot[i]), 0)
            self._floor[slot], self._low[slot], self._high[slot], self._recent[slot] = floor[i], low[i], high[i], recent[i]
            self._used[slot] = self._tick
            taken = int(lengths[i])
            if taken:
                self._older[slot], holes = holes[:taken], holes[taken:]
        self._evicted[partition] = dict(zip(names, highs, strict=True))
        self._forgotten[partition] = forgotten
