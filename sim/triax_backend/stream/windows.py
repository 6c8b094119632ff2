"""Frames into windows: which window a frame belongs to, when a window is emitted, and what late frames and repeats do.

A window is ten consecutive sequence numbers, sequence // 10, of a (device, boot): its members depend on no clock and on no order.

- A window is emitted when all its ten frames are there. Its number then goes into the finished ranges; a frame of a finished
  window is a repeat, and so is one whose place in an open window is taken.
- A window with a hole is emitted, as far as it goes, once its device has turned to another window PATIENCE times since its last
  frame. It stays open, and when more of its frames come it is emitted again, whole or after another wait: a row of the same
  identity with more frames.
- A device has SLOTS open windows. One more, and the one that waited longest is emitted and forgotten; frames that come for it later
  make a row of their own, with fewer frames, which never replaces the better one.

"Turned" counts changes of (boot, window) between one frame of a device and its next, so nothing depends on how frames were cut into
batches. All of this is done for many devices at once: in a batch, the frames of a device fall into runs of one window, and round
r handles the r-th run of every device.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from triax_backend.stream.records import as_bytes
from triax_backend.stream.state import DONE, FRAMES, State

__all__ = ["FULL", "PATIENCE", "collect"]

FULL = (1 << FRAMES) - 1
# Turns that a window with a hole waits. A live device makes one a second; next to a replay at five times the live rate a live
# window is touched every second turn, so fewer than 4 would emit windows that are still being filled.
PATIENCE = 8

Array = np.ndarray[Any, Any]
# rows and the slot of each that is due; rows are distinct within a call
Emit = Callable[[Array, Array], None]
# rows, boots, windows: the device has started again
Restart = Callable[[Array, Array, Array], None]


def collect(state: State, rows: Array, columns: Array, restart: Restart, emit: Emit) -> int:
    """Put frames (COLUMNS, their device's row beside) into windows and emit what is due; return how many were repeats."""
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    boot, sequence = columns["boot"][order], columns["sequence"][order]
    window = sequence // np.uint32(FRAMES)
    place = (sequence % np.uint32(FRAMES)).astype(np.int64)
    new_device = np.ones(len(rows), bool)
    new_device[1:] = rows[1:] != rows[:-1]
    new_run = new_device.copy()
    new_run[1:] |= (boot[1:] != boot[:-1]) | (window[1:] != window[:-1])
    starts = np.flatnonzero(new_run)
    run_of = np.cumsum(new_run) - 1
    repeats = 0
    fresh = _first_of_its_place(run_of, place)
    repeats += int(len(fresh) - fresh.sum())
    # number of a run among the runs of its device
    first_run = np.maximum.accumulate(np.where(new_device[starts], np.arange(len(starts)), 0))
    rank = np.arange(len(starts)) - first_run
    by_rank = np.argsort(rank, kind="stable")
    edges = np.searchsorted(rank[by_rank], np.arange(int(rank.max(initial=-1)) + 2))
    lengths = np.diff(np.append(starts, len(rows)))
    for turn in range(len(edges) - 1):
        runs = by_rank[edges[turn] : edges[turn + 1]]
        frames = np.repeat(starts[runs], lengths[runs]) + _within(lengths[runs])
        belongs = np.repeat(np.arange(len(runs)), lengths[runs])
        keep = fresh[frames]
        repeats += _round(
            state,
            rows[starts[runs]],
            boot[starts[runs]],
            window[starts[runs]],
            columns,
            order[frames[keep]],
            place[frames[keep]],
            belongs[keep],
            restart,
            emit,
        )
    return repeats


def _within(lengths: Array) -> Array:
    """0, 1, .. for each length."""
    ends = np.cumsum(lengths)
    return np.asarray(np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths))


def _first_of_its_place(run_of: Array, place: Array) -> Array:
    """True for the first frame of its place in its run."""
    key = run_of * FRAMES + place
    rising = np.ones(len(key), bool)
    rising[1:] = key[1:] > key[:-1]
    if rising.all():
        return rising
    fresh = np.zeros(len(key), bool)
    fresh[np.unique(key, return_index=True)[1]] = True
    return fresh


def _round(
    state: State,
    rows: Array,
    boot: Array,
    window: Array,
    columns: Array,
    frames: Array,
    place: Array,
    belongs: Array,
    restart: Restart,
    emit: Emit,
) -> int:
    """One run of each of these devices; return repeats found."""
    devices = state.devices
    seen = devices["seen"][rows]
    turned = ~seen | (devices["last_boot"][rows] != boot) | (devices["last_window"][rows] != window)
    devices["turn"][rows] += turned
    devices["last_boot"][rows], devices["last_window"][rows] = boot, window
    newer = ~seen | (boot > devices["boot"][rows])
    if newer.any():
        restart(rows[newer], boot[newer], window[newer])
        devices["seen"][rows] = True
    finished = _is_done(devices, rows, boot, window)
    repeats = 0
    if finished.any():
        repeats += int(finished[belongs].sum())
    slot = _find_or_open(state, rows, boot, window, ~finished, emit)
    repeats += _insert(state, rows, slot, ~finished, columns, frames, place, belongs)
    _emit_waiting(state, rows[turned], emit)
    full = ~finished & (state.slots["mask"][rows, slot] == FULL)
    if full.any():
        at, which = rows[full], slot[full]
        emit(at, which)
        state.slots["mask"][at, which] = 0
        _mark_done(devices, at, boot[full], window[full])
    return repeats


def _is_done(devices: Array, rows: Array, boot: Array, window: Array) -> Array:
    out = np.zeros(len(rows), bool)
    for entry in range(DONE):
        low, high = devices["done_from"][rows, entry], devices["done_to"][rows, entry]
        out |= (devices["done_boot"][rows, entry] == boot) & (low <= window) & (window < high)
    return out


def _find_or_open(state: State, rows: Array, boot: Array, window: Array, wanted: Array, emit: Emit) -> Array:
    """Slot of each run's window; opens one, at the cost of the one that waited longest, where there is none."""
    slots = state.slots
    mask = slots["mask"][rows]
    same = (mask != 0) & (slots["boot"][rows] == boot[:, None]) & (slots["window"][rows] == window[:, None])
    slot = np.asarray(same.argmax(axis=1))
    opening = wanted & ~same.any(axis=1)
    if not opening.any():
        return slot
    at = rows[opening]
    # a free slot counts as touched before all others
    touched = np.where(mask[opening] == 0, -1, slots["touched"][at].astype(np.int64))
    chosen = touched.argmin(axis=1)
    full = touched[np.arange(len(at)), chosen] >= 0
    if full.any():
        lost, which = at[full], chosen[full]
        _emit_changed(state, lost, which, emit)
    slots["boot"][at, chosen], slots["window"][at, chosen] = boot[opening], window[opening]
    slots["mask"][at, chosen] = slots["emitted"][at, chosen] = 0
    slot[opening] = chosen
    return slot


def _emit_changed(state: State, rows: Array, slot: Array, emit: Emit) -> None:
    """Emit these windows as far as they go, unless that has been done."""
    changed = state.slots["mask"][rows, slot] != state.slots["emitted"][rows, slot]
    rows, slot = rows[changed], slot[changed]
    if len(rows):
        emit(rows, slot)
        state.slots["emitted"][rows, slot] = state.slots["mask"][rows, slot]


def _insert(
    state: State, rows: Array, slot: Array, wanted: Array, columns: Array, frames: Array, place: Array, belongs: Array
) -> int:
    """Put `columns[frames]`'s cells into their places; return how many places were taken."""
    slots = state.slots
    keep = wanted[belongs]
    bit = np.uint16(1) << place.astype(np.uint16)
    taken = (slots["mask"][rows, slot][belongs] & bit) != 0
    repeats = int((taken & keep).sum())
    keep &= ~taken
    belongs, place, bit = belongs[keep], place[keep], bit[keep]
    as_bytes(slots["frames"])[rows[belongs], slot[belongs], place] = as_bytes(columns["cell"])[frames[keep]]
    # places of a run are distinct, so the sum of their bits is their union
    gained = np.bincount(belongs, weights=bit, minlength=len(rows)).astype(np.uint16)
    slots["mask"][rows, slot] |= gained
    hit = gained != 0
    slots["touched"][rows[hit], slot[hit]] = state.devices["turn"][rows[hit]]
    return repeats


def _emit_waiting(state: State, rows: Array, emit: Emit) -> None:
    """Emit windows with a hole that waited long enough, those that waited longest first."""
    slots = state.slots
    age = state.devices["turn"][rows].astype(np.int64)[:, None] - slots["touched"][rows]
    due = (slots["mask"][rows] != 0) & (slots["mask"][rows] != slots["emitted"][rows]) & (age >= PATIENCE)
    while due.any():
        some = due.any(axis=1)
        slot = np.where(due, age, -1).argmax(axis=1)
        _emit_changed(state, rows[some], slot[some], emit)
        due[some, slot[some]] = False


def _mark_done(devices: Array, rows: Array, boot: Array, window: Array) -> None:
    """Add a finished window to the ranges: joins, extends, or starts one, at the cost of the shortest."""
    ranges = devices["done_to"][rows].astype(np.int64) - devices["done_from"][rows]
    mine = (devices["done_boot"][rows] == boot[:, None]) & (ranges > 0)
    before = mine & (devices["done_to"][rows] == window[:, None])
    after = mine & (devices["done_from"][rows] == window[:, None] + 1)
    has_before, has_after = before.any(axis=1), after.any(axis=1)
    left, right = before.argmax(axis=1), after.argmax(axis=1)
    to = np.where(has_after, devices["done_to"][rows, right], window + 1)
    only = has_before
    devices["done_to"][rows[only], left[only]] = to[only]
    both = has_before & has_after
    devices["done_from"][rows[both], right[both]] = 0
    devices["done_to"][rows[both], right[both]] = 0
    only = has_after & ~has_before
    devices["done_from"][rows[only], right[only]] = window[only]
    new = ~has_before & ~has_after
    if new.any():
        at, entry = rows[new], ranges[new].argmin(axis=1)
        devices["done_boot"][at, entry] = boot[new]
        devices["done_from"][at, entry] = window[new]
        devices["done_to"][at, entry] = window[new] + 1
