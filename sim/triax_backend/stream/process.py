"""Frames in, feature rows and events out: the one algorithm that every engine calls.

    stream = Stream()
    features, events = stream.process(columns)          # columns.of_records(..), rows FEATURE and EVENT

What comes out is a function of the frames of each device in their order; how they are cut into calls changes nothing but the
order of rows. Frames with the test-pattern flag stay out. A larger boot resets a device; windows of an older boot are finished
as they come and are flagged LATE, like windows that come after a later one of the same boot: they have features, spikes and
glitches by what is usual at the moment, and move nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from triax_backend.stream import detect
from triax_backend.stream.events import EVENT
from triax_backend.stream.features import FEATURE, LATE, WARMING
from triax_backend.stream.findings import BEARING, axis_events, follow_dead, follow_level, follow_score, missing
from triax_backend.stream.glitch import Judged, judge
from triax_backend.stream.records import pick
from triax_backend.stream.rolling import roll
from triax_backend.stream.state import DEVICE, FRAMES, State
from triax_backend.stream.summary import feature_rows, summarise
from triax_backend.stream.windows import collect

__all__ = ["TEST_PATTERN", "Score", "Stream", "Windows"]

TEST_PATTERN = 64  # FrameFlag
_PLACES = np.arange(FRAMES, dtype=np.uint16)
_CHUNK = 512  # windows worked on at a time: their frames stay in the cache

Array = np.ndarray[Any, Any]
# One-window FEATURE rows -> fills `score` and `model`, returns the threshold for each (inf: none)
Score = Callable[[Array], Array]


class Stream:
    """State of many devices and the algorithm over it; counts of what went in in attributes."""

    def __init__(self, state: State | None = None, score: Score | None = None) -> None:
        self.state = state or State()
        self.score = score
        self.frames = self.repeats = self.test_patterns = 0
        self._features: list[Array] = []
        self._events: list[Array] = []

    def process(self, columns: Array) -> tuple[Array, Array]:
        """Take frames (COLUMNS) in the order of arrival; return FEATURE and EVENT rows that are due."""
        self.frames += len(columns)
        pattern = (columns["cell"]["flags"] & TEST_PATTERN) != 0
        if pattern.any():
            self.test_patterns += int(pattern.sum())
            columns = columns[~pattern]
        if len(columns):
            rows = self.state.rows(columns["device"], columns["partition"])
            self.repeats += collect(self.state, rows, columns, self._restart, self._evaluate)
        features, events = self._features, self._events
        self._features, self._events = [], []
        return (
            np.concatenate(features) if features else np.zeros(0, FEATURE),
            np.concatenate(events) if events else np.zeros(0, EVENT),
        )

    def _restart(self, rows: Array, boot: Array, window: Array) -> None:
        """A new boot: what the detectors know is void."""
        devices = self.state.devices
        self._raise(detect.pending_spikes(devices, rows, np.zeros(len(rows), bool)))
        fresh = np.zeros(len(rows), DEVICE)
        kept = ("device", "partition", "last_boot", "last_window", "turn", "done_boot", "done_from", "done_to")
        for name in kept:
            fresh[name] = devices[name][rows]
        for name in ("newest", "spike_hot", "five_block", "thirty_block"):
            fresh[name] = -1
        fresh["seen"], fresh["boot"], fresh["first"] = True, boot, window
        devices[rows] = fresh

    def _raise(self, events: Array) -> None:
        if len(events):
            self._events.append(events)

    def _evaluate(self, rows: Array, slots: Array) -> None:
        """Features and events of these open windows, at most one a device."""
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            windows = Windows.of(self.state, rows[part], slots[part])
            if len(windows.rows):
                self._judge(windows)

    def _judge(self, w: "Windows") -> None:
        devices, device = self.state.devices, self.state.devices["device"][w.rows]
        features = feature_rows(device, w.boot, w.window, 1, w.summary)
        features["flags"] |= np.where(w.in_order, 0, LATE).astype(np.uint32)
        thresholds = self.score(features) if self.score else np.full(len(features), np.inf)
        self._features.append(features)
        found = detect.Found(device, w.boot, w.window, w.cells, w.values["peak"], w.judged)
        self._raise(detect.glitches(found))
        spikes, of, persistent = detect.spikes(found, w.known)
        self._raise(spikes[~w.in_order[of]])
        for events in missing(self.state, w.rows, w.boot, w.window, w.mask, w.summary, w.current, w.in_order):
            self._raise(events)
        if w.in_order.all():
            self._follow(w, features, thresholds, persistent)
        elif w.in_order.any():
            self._follow(w.take(w.in_order), features[w.in_order], thresholds[w.in_order], persistent[w.in_order])
        mine = w.in_order[of]
        detect.hold_spikes(devices, w.rows[of[mine]], spikes[mine])

    def _follow(self, w: "Windows", features: Array, thresholds: Array, persistent: Array) -> None:
        """Windows in order: through the detectors."""
        devices = self.state.devices
        alive = ~detect.dead_axes(w.cells, w.valid)
        for events in follow_dead(devices, w.rows, w.boot, w.window, w.summary, ~alive):
            self._raise(events)
        shown = None if w.valid is None else np.broadcast_to(w.valid[:, :, None], w.values["peak"].shape)
        suspect, crest, score = detect.bearings(devices, w.rows, w.values, shown, alive)
        self._raise(axis_events(BEARING, devices, w.rows, w.boot, w.window, w.summary, suspect, crest, score))
        goes_on = (persistent & (w.window == devices["spike_window"][w.rows] + 1)) | (devices["impulsive"][w.rows] > 0).any(axis=1)
        self._raise(detect.pending_spikes(devices, w.rows, goes_on))
        if not w.judged.calm:
            clean = ~(w.judged.glitch_high | w.judged.glitch_low)
            shown = clean if shown is None else clean & shown
        detect.learn(devices, w.rows, w.values, shown, alive)
        for events in follow_level(devices, w.rows, w.boot, w.window, w.summary, alive):
            self._raise(events)
        for done, last, count, total in roll(devices, w.rows, w.window, w.summary):
            self._features.append(feature_rows(devices["device"][done], devices["boot"][done], last, count, total))
        self._raise(follow_score(devices, w.rows, w.summary, features, thresholds))
        devices["newest"][w.rows] = w.window
        devices["warm"][w.rows] += 1


@dataclass(frozen=True)
class Windows:
    """Windows under evaluation and what was worked out of them; axis 0 of `cells`, `valid`, `values` is the frame's place."""

    rows: Array
    boot: Array
    window: Array
    mask: Array
    cells: dict[str, Array]
    valid: Array | None  # frames that have a mean; None: all of all windows
    current: Array  # of the boot that the detectors follow
    in_order: Array
    known: Array  # what is usual comes from the windows before
    values: dict[str, Array]
    judged: Judged
    summary: Array

    @classmethod
    def of(cls, state: State, rows: Array, slots: Array) -> "Windows":
        """Judge the frames and sum them up; windows of which no frame has one whole 10 ms value are left out."""
        mask, data = state.slots["mask"][rows, slots], state.slots["frames"]
        there = (mask >> _PLACES[:, None]) & np.uint16(1) != 0
        valid = there & (data["values"][rows, slots].T > 0)
        some = valid.any(axis=0)
        if not some.all():
            rows, slots, mask, valid, there = rows[some], slots[some], mask[some], valid[:, some], there[:, some]
        frames = there.sum(axis=0)
        complete = bool(valid.all())
        block = pick(data, rows, slots)  # one copy of what lies far apart, then a field at a time
        cells = {name: np.ascontiguousarray(np.moveaxis(block[name], 1, 0)) for name in block.dtype.names or ()}
        boot, window, devices = state.slots["boot"][rows, slots], state.slots["window"][rows, slots], state.devices
        current = boot == devices["boot"][rows]
        known = current & (devices["warm"][rows] >= detect.WARM)
        shown = None if complete else np.broadcast_to(valid[:, :, None], cells["mean"].shape)
        values = _frame_values(cells)
        judged = judge(cells, values["peak"], shown, detect.usual(devices, rows, values, shown, known))
        summary = summarise(cells, None if complete else valid, judged)
        summary["frames"] = frames
        summary["spike_score"] = np.where(known, judged.score.max(axis=(0, 2)), 0)
        summary["flags"] |= np.where(known, 0, WARMING).astype(np.uint32)
        in_order = current & (window.astype(np.int64) > devices["newest"][rows])
        kept = None if complete else valid
        return cls(rows, boot, window, mask, cells, kept, current, in_order, known, values, judged, summary)

    def take(self, which: Array) -> "Windows":
        """Those of `which`."""
        valid = None if self.valid is None else self.valid[:, which]
        cells = {name: value[:, which] for name, value in self.cells.items()}
        values = {name: value[:, which] for name, value in self.values.items()}
        return Windows(
            self.rows[which],
            self.boot[which],
            self.window[which],
            self.mask[which],
            cells,
            valid,
            self.current[which],
            self.in_order[which],
            self.known[which],
            values,
            self.judged.take(which),
            self.summary[which],
        )


def _frame_values(cells: dict[str, Array]) -> dict[str, Array]:
    """Per frame, window and axis: peak over the local level (g), fast power (g^2), crest."""
    peak = np.maximum(np.maximum(cells["maximum"] - cells["high"], cells["low"] - cells["minimum"]), 0)
    power = cells["fast"] / np.maximum(cells["samples"], 1)[:, :, None]
    root = np.sqrt(power)
    return {"peak": peak, "power": power, "crest": peak / np.where(root > 0, root, np.float32(np.inf))}
