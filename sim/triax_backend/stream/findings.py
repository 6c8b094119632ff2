"""Events out of what the detectors say of windows: missing frames, dead axes, levels, scores."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from triax_proto.v1.event_pb2 import Event

from triax_backend.stream import level
from triax_backend.stream.events import NO_AXIS, event_rows
from triax_backend.stream.state import FRAMES, State

__all__ = ["BEARING", "axis_events", "follow_dead", "follow_level", "follow_score", "missing"]

Array = np.ndarray[Any, Any]
# kind, quantity, threshold
BEARING = (Event.KIND_BEARING, "crest", 2.0)
_DEAD = (Event.KIND_DEAD_AXIS, "value_g", 0.0)
_SHIFT = (Event.KIND_LEVEL_SHIFT, "step_g", level.SHIFT_LIMIT)
_DRIFT = (Event.KIND_DRIFT, "slope_g_per_s", level.DRIFT_LIMIT)


def missing(
    state: State, rows: Array, boot: Array, window: Array, mask: Array, summary: Array, current: Array, in_order: Array
) -> Iterator[Array]:
    """EVENT rows of frames that are not there: holes of windows that went out with one, and whole windows skipped."""
    devices = state.devices
    places = np.arange(FRAMES)
    there = (mask.astype(np.uint32)[:, None] >> places.astype(np.uint32)) & 1 != 0
    if not there.all():
        # before the first frame that the stream saw of a boot nothing is missing, nor after the last one of a boot that is over
        begins = (window.astype(np.int64) == devices["first"][rows]) & (window > 0)
        last = FRAMES - 1 - there[:, ::-1].argmax(axis=1)
        holes = ~there & ~((begins | ~current)[:, None] & (places < there.argmax(axis=1)[:, None]))
        holes &= ~(~current[:, None] & (places > last[:, None]))
        hit = np.flatnonzero(holes.any(axis=1))
        base = window[hit] * np.uint32(FRAMES)
        first = base + holes[hit].argmax(axis=1).astype(np.uint32)
        end = base + (FRAMES - 1 - holes[hit][:, ::-1].argmax(axis=1)).astype(np.uint32)
        yield _gap(devices, rows[hit], boot[hit], window[hit], summary[hit], first, end, holes[hit].sum(axis=1))
    newest = devices["newest"][rows]
    hit = np.flatnonzero(in_order & (newest >= 0) & (window.astype(np.int64) > newest + 1))
    if not len(hit):
        return
    slots = state.slots[rows[hit]]
    number = slots["window"].astype(np.int64)
    started = (slots["mask"] != 0) & (slots["boot"] == boot[hit][:, None])
    started &= (number > newest[hit][:, None]) & (number < window[hit][:, None])
    absent = window[hit] - newest[hit] - 1 - started.sum(axis=1)
    hit, absent = hit[absent > 0], absent[absent > 0]
    first = ((newest[hit] + 1) * FRAMES).astype(np.uint32)
    end = window[hit] * np.uint32(FRAMES) - np.uint32(1)
    events = _gap(devices, rows[hit], boot[hit], window[hit], summary[hit], first, end, absent * FRAMES)
    events["window"] = newest[hit] + 1
    yield events


def _gap(devices: Array, rows: Array, boot: Array, window: Array, summary: Array, first: Array, last: Array, count: Array) -> Array:
    out = event_rows(Event.KIND_MISSING, "frames", len(rows), axis=NO_AXIS, first_sequence=first, last_sequence=last, value=count)
    out["device"], out["boot"], out["window"] = devices["device"][rows], boot, window
    out["time_us"], out["time_error_us"] = summary["time_us"], summary["time_error_us"]
    return out


def axis_events(
    what: tuple[int, str, float],
    devices: Array,
    rows: Array,
    boot: Array,
    window: Array,
    summary: Array,
    found: Array,
    value: Array,
    score: Array,
    began: Array | None = None,
) -> Array:
    """One EVENT row for each axis that is `found` (rows, 3); it rests on the windows from `began` to this one."""
    hit, axis = np.nonzero(found)
    kind, quantity, threshold = what
    out = event_rows(kind, quantity, len(hit), axis=axis, value=value[hit, axis], score=score[hit, axis], threshold=threshold)
    out["device"], out["boot"], out["window"] = devices["device"][rows[hit]], boot[hit], window[hit]
    out["time_us"], out["time_error_us"] = summary["time_us"][hit], summary["time_error_us"][hit]
    first = window[hit] if began is None else began[hit, axis]
    out["first_sequence"] = first * np.uint32(FRAMES)
    out["last_sequence"] = window[hit] * np.uint32(FRAMES) + np.uint32(FRAMES - 1)
    return out


def follow_dead(devices: Array, rows: Array, boot: Array, window: Array, summary: Array, dead: Array) -> Iterator[Array]:
    """EVENT rows of axes that died with these windows; level and slope of an axis start anew when it dies and when it is back."""
    before = devices["dead"][rows]
    changed = dead != before
    if not changed.any():
        return
    yield axis_events(_DEAD, devices, rows, boot, window, summary, dead & ~before, summary["minimum"], np.zeros(dead.shape))
    devices["dead"][rows] = dead
    devices["recents"][rows] = np.where(changed, 0, devices["recents"][rows])
    level.forget(devices, rows, changed)


def follow_level(devices: Array, rows: Array, boot: Array, window: Array, summary: Array, alive: Array) -> Iterator[Array]:
    """EVENT rows of level shifts and drifts."""
    mean = summary["total"] / np.maximum(summary["samples"], 1.0)[:, None]
    closed = level.take(devices, rows, window, mean, alive)
    found, step, score, began = level.shifts(devices, rows)
    yield axis_events(_SHIFT, devices, rows, boot, window, summary, found, step, score, began)
    if not closed.any():
        return
    at, boot, window, summary = rows[closed], boot[closed], window[closed], summary[closed]
    found, slope, score, began = level.drifts(devices, at)
    seconds = FRAMES * summary["samples"] / np.maximum(summary["frames"], 1) / np.maximum(summary["rate_hz"], 1e-3)
    yield axis_events(_DRIFT, devices, at, boot, window, summary, found, slope / seconds[:, None], score, began)


def follow_score(devices: Array, rows: Array, summary: Array, features: Array, thresholds: Array) -> Array:
    """EVENT rows of windows whose model score crossed its threshold."""
    now = features["score"] > thresholds
    hit = np.flatnonzero(now & ~devices["strange"][rows])
    devices["strange"][rows] = now
    out = event_rows(Event.KIND_ANOMALY, "score", len(hit), axis=NO_AXIS, threshold=thresholds[hit])
    for name in ("device", "boot", "window", "model"):
        out[name] = features[name][hit]
    out["time_us"], out["time_error_us"] = summary["time_us"][hit], summary["time_error_us"][hit]
    out["value"] = out["score"] = features["score"][hit]
    out["first_sequence"] = features["window"][hit] * np.uint32(FRAMES)
    out["last_sequence"] = out["first_sequence"] + np.uint32(FRAMES - 1)
    return out
