"""Frames of one flush as rows of runs: consecutive frames of a device and boot that share what a row has once.

Event time: the node's own time if its error is at most 1 s and it lies within [received - 30 d, received + 60 s]; else the receive
time, and the row says so (`own_clock` false).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from triax_backend.frames import Group
from triax_backend.sinks import rows

__all__ = ["Placed", "copy_bytes", "event_time", "place"]

Array = np.ndarray[Any, Any]

MOST_ERROR_US = 1_000_000
OLDEST_US = 30 * 86_400_000_000
NEWEST_US = 60_000_000
# Consecutive frames further apart than this, or backwards, are two runs: so no run covers more than a minute, and a search by time
# need not look further back. A frame is 100 ms.
MOST_STEP_US = 6_000_000
_PIECE_ROWS = 1000  # 5 MB: stays in the cache between filling and sending, and its memory is used again instead of mapped anew
_CLIP_US = (0, 4_102_444_800_000_000)  # to 2100: a wild record timestamp must not stop the sink


@dataclass(frozen=True, slots=True)
class Placed:
    """Frames of one layout with what the sink knows of each. All but `group` are sorted by device, boot, sequence."""

    group: Group  # as it came: its 270 bytes a frame are moved once, into rows
    order: Array  # indices into `group`
    device: Array
    boot: Array
    sequence: Array
    time_us: Array
    received_us: Array
    own_clock: Array
    doubtful: Array


def event_time(time_us: Array, time_error_us: Array, received_us: Array) -> tuple[Array, Array]:
    """Event time of frames, UTC microseconds, and where it is the node's own."""
    received = np.clip(received_us, *_CLIP_US)
    own = (time_error_us <= MOST_ERROR_US) & (time_us >= received - OLDEST_US) & (time_us <= received + NEWEST_US)
    return np.where(own, time_us, received), own


def place(group: Group, received_us: Array, doubtful: Array) -> Placed:
    """Sort a group and give its frames their event time. Arrays: one item per frame of the group."""
    f = group.frames
    order = np.lexsort((f["sequence"], f["boot"], f["device"]))
    received = received_us[order]
    time_us, own = event_time(f["time_us"][order], f["time_error_us"][order], received)
    return Placed(
        group,
        order,
        f["device"][order],
        f["boot"][order],
        f["sequence"][order].astype(np.int64),
        time_us,
        np.clip(received, *_CLIP_US),
        own,
        doubtful[order],
    )


def _starts(placed: Placed) -> Array:
    """Index of the first frame of each run."""
    device, boot, sequence, time_us = placed.device, placed.boot, placed.sequence, placed.time_us
    new = np.ones(len(device), bool)
    step = time_us[1:] - time_us[:-1]
    new[1:] = (
        (device[1:] != device[:-1])
        | (boot[1:] != boot[:-1])
        | (sequence[1:] != sequence[:-1] + 1)
        | (placed.own_clock[1:] != placed.own_clock[:-1])
        | (placed.doubtful[1:] != placed.doubtful[:-1])
        | (step < 0)
        | (step > MOST_STEP_US)
    )
    if placed.group.original is not None:
        new[:] = True
    at = np.arange(len(device))
    first = np.maximum.accumulate(np.where(new, at, 0))
    new |= (at - first) % rows.MOST_FRAMES == 0
    return np.flatnonzero(new)


def _rows(placed: Placed, starts: Array, frames: int) -> Array:
    """Rows of the runs of `frames` frames that begin at `starts`."""
    members = starts[:, None] + np.arange(frames)
    found = placed.group.frames[placed.order[members]]
    out = rows.blank(len(starts), frames, placed.group.values)
    rows.fill(out, found)
    last = starts + frames - 1
    end = found[:, -1]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        length_us = np.nan_to_num(end["samples"] * 1e6 / end["rate_hz"].astype(np.float64), nan=0, posinf=0, neginf=0)
    out["frames"], out["per_axis"] = frames, placed.group.values
    out["time"] = placed.time_us[starts] - rows.EPOCH_US
    out["time_end"] = placed.time_us[last] + np.clip(length_us, 0, MOST_STEP_US).astype(np.int64) - rows.EPOCH_US
    out["received"] = placed.received_us[members].max(axis=1) - rows.EPOCH_US
    out["device"], out["boot"], out["first_sequence"] = found["device"][:, 0], found["boot"][:, 0], found["sequence"][:, 0]
    out["own_clock"], out["doubtful"] = placed.own_clock[starts], placed.doubtful[starts]
    return out


def copy_bytes(placed: Placed) -> Iterator[tuple[bytes | memoryview, int]]:
    """The runs as rows of a binary COPY without its head and end: pieces of bytes, and how many rows each holds."""
    if not len(placed.group):
        return
    starts = _starts(placed)
    lengths = np.diff(np.append(starts, len(placed.group)))
    for frames in np.unique(lengths).tolist():
        same = starts[lengths == frames]
        for at in range(0, len(same), _PIECE_ROWS):
            chosen = same[at : at + _PIECE_ROWS]
            found = _rows(placed, chosen, frames)
            if placed.group.original is None:
                yield found.view(np.uint8).data, len(found)
            else:
                yield rows.with_originals(found, (placed.group.original[i] for i in placed.order[chosen].tolist())), len(found)
