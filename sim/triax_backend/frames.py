"""Kafka records as numpy arrays: the frames of many FrameBatch records at once, each with where it came from.

Records that hold frames of one ordinary size are cut by numpy without looking at single frames. Everything else goes frame by
frame through `triax_proto.frame.groups`; a frame whose fields, encoded again, do not give its own bytes keeps those bytes in
`original`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from triax_proto import batch, frame
from triax_proto.errors import FrameError

__all__ = ["Bad", "Flat", "Group", "Record", "Unpacked", "flat", "unpack"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record as read. `received_us`: its timestamp, UTC microseconds; the way into Kafka sets it to the receive time."""

    topic: str
    partition: int
    offset: int
    received_us: int
    value: bytes
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Frames of one layout. Every array has one item per frame; `record` indexes the list given to `unpack`."""

    frames: Array  # of triax_proto.frame.frame_dtype(values)
    record: Array
    place: Array  # in its record's FrameBatch, from 0
    values: int
    original: tuple[bytes, ...] | None = None  # wire bytes of frames that have another shape

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, which: Array) -> "Group":
        """The frames that `which`, a mask or indices, selects."""
        original = None
        if self.original is not None:
            original = tuple(self.original[i] for i in np.arange(len(self))[which])
        return Group(self.frames[which], self.record[which], self.place[which], self.values, original)


@dataclass(frozen=True, slots=True)
class Bad:
    """Bytes that cannot be read: a whole record (place -1) or one frame of it."""

    record: int
    place: int
    data: bytes
    why: str


@dataclass(slots=True)
class Unpacked:
    """Frames of a list of records. Order of groups and inside them says nothing; (record, place) does."""

    groups: list[Group] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.groups)) + len(self.bad)


@dataclass(slots=True)
class Flat:
    """Identities of all frames of some records, in the order of arrival: by record, then by place in it."""

    unpacked: Unpacked
    records: Sequence[Record]
    group: Array  # index of each frame's group, and
    at: Array  # its place there
    partition: Array
    device: Array
    boot: Array
    sequence: Array
    checksum: Array

    def __len__(self) -> int:
        return len(self.device)

    def wire(self, i: int) -> bytes:
        """Frame i as the node encoded it."""
        group = self.unpacked.groups[self.group[i]]
        at = int(self.at[i])
        return group.original[at] if group.original is not None else bytes(group.frames[at].tobytes())

    def record_of(self, i: int) -> Record:
        """The record that brought frame i."""
        return self.records[int(self.unpacked.groups[self.group[i]].record[self.at[i]])]


def flat(unpacked: Unpacked, records: Sequence[Record]) -> Flat:
    """Line up the frames that `unpack` found in `records`."""
    groups = unpacked.groups
    sizes = [len(g) for g in groups]
    group = np.repeat(np.arange(len(groups)), sizes)
    at = np.concatenate([np.arange(n) for n in sizes]) if groups else np.empty(0, np.int64)
    record = np.concatenate([g.record for g in groups]) if groups else np.empty(0, np.int64)
    partition = np.array([r.partition for r in records], np.int32)[record]
    columns = [
        np.concatenate([g.frames[name] for g in groups]) if groups else np.empty(0, kind)
        for name, kind in (("device", "u8"), ("boot", "u4"), ("sequence", "u4"), ("checksum", "u4"))
    ]
    if len(groups) > 1:
        order = np.lexsort((np.concatenate([g.place for g in groups]), record))
        group, at, partition = group[order], at[order], partition[order]
        columns = [column[order] for column in columns]
    return Flat(unpacked, records, group, at, partition, *columns)


def _uniform(records: Sequence[Record], indices: list[int], values: int) -> Group | None:
    """All frames of `records[indices]`, whose sizes fit; None if any tag or length inside differs."""
    rows = batch.split_array(b"".join([records[i].value for i in indices]), values)
    if rows is None:
        return None
    frames = frame.decode(np.ascontiguousarray(rows).reshape(-1), values)
    if frames is None:
        return None
    step = len(batch.join([bytes(frame.wire_size(values))]))
    counts = np.array([len(records[i].value) // step for i in indices])
    starts = np.cumsum(counts) - counts
    place = np.arange(counts.sum()) - np.repeat(starts, counts)
    return Group(frames, np.repeat(np.array(indices), counts), place, values)


def _odd(records: Sequence[Record], indices: list[int], out: Unpacked) -> None:
    """Frame by frame: records of mixed sizes or foreign shapes."""
    frames: list[bytes] = []
    at: list[tuple[int, int]] = []
    for i in indices:
        try:
            pieces = batch.split(records[i].value)
        except FrameError as error:
            out.bad.append(Bad(i, -1, records[i].value, str(error)))
            continue
        frames += pieces
        at += [(i, place) for place in range(len(pieces))]
    for members, found in frame.groups(frames):
        if isinstance(found, FrameError):
            out.bad += [Bad(*at[m], frames[m], str(found)) for m in members]
            continue
        where = np.array([at[m] for m in members]).reshape(-1, 2)
        values = found["x"].shape[1] if "x" in (found.dtype.names or ()) else 0
        odd = len(members) == 1 and found.tobytes() != frames[members[0]]
        out.groups.append(Group(found, where[:, 0], where[:, 1], values, (frames[members[0]],) if odd else None))


def unpack(records: Sequence[Record], values: int = frame.VALUES) -> Unpacked:
    """The frames of FrameBatch records. Only frames off the fast path have their checksum proved here: the way in proved all."""
    out = Unpacked()
    step = len(batch.join([bytes(frame.wire_size(values))]))
    fast = [i for i, r in enumerate(records) if r.value and len(r.value) % step == 0]
    slow = sorted(set(range(len(records))) - set(fast))
    group = _uniform(records, fast, values) if fast else None
    if fast and group is None:  # one odd record must not slow the others down: find it
        fits = [_uniform(records, [i], values) is not None for i in fast]
        slow += [i for i, fit in zip(fast, fits, strict=True) if not fit]
        fast = [i for i, fit in zip(fast, fits, strict=True) if fit]
        group = _uniform(records, fast, values) if fast else None
    if group is not None:
        out.groups.append(group)
    if slow:
        _odd(records, slow, out)
    return out
