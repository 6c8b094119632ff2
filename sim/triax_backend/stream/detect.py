"""What is usual for a device, and the spikes, glitches and bearing suspicions that stand out of it. State changes in order only.

The usual peak (g), power (g^2) and crest are medians over frames, followed one window at a time (robust.follow) with their
deviations; until WARM windows have been seen they are averages of the windows' own medians, and no spike is raised.

Bearing suspicion: the median crest of a window's frames (peak over the local level / square root of the fast power) lies above
usual + max(2 deviations, 25 %) for five windows in a row while the median power is not below the usual one. Impacts at every
passage of a defect raise the crest of every frame; a shock raises that of one, a louder machine none. The reference rests
meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from triax_proto.v1.event_pb2 import Event

from triax_backend.stream.events import event_rows
from triax_backend.stream.glitch import LIMIT, Judged
from triax_backend.stream.robust import MAD_TO_SIGMA, follow, masked_median
from triax_backend.stream.state import FRAMES

__all__ = [
    "PERSISTENT",
    "QUIET",
    "WARM",
    "bearings",
    "dead_axes",
    "glitches",
    "hold_spikes",
    "learn",
    "pending_spikes",
    "spikes",
    "usual",
]

WARM = 5  # windows
PERSISTENT = 4  # frames of a window that may stand out; more of them are a change of state, not a spike
QUIET = 3  # windows without a spike before the next one is an event of its own
_GAIN, _SLOW_GAIN = np.float32(0.1), np.float32(0.02)
_CREST_DEVIATIONS, _CREST_RISE = np.float32(2), np.float32(0.25)
_CREST_WINDOWS, _CREST_WARM = 5, 10

Array = np.ndarray[Any, Any]
# a quantity and its deviation, fields of DEVICE
_TRACKED = {"peak": "peak_dev", "power": "power_dev", "crest": "crest_dev"}


def own_usual(values: dict[str, Array], valid: Array | None, names: Sequence[str] = tuple(_TRACKED)) -> dict[str, Array]:
    """Median and deviation of each tracked quantity over the window's own frames."""
    out: dict[str, Array] = {}
    for name in names:
        out[name] = masked_median(values[name], valid)
        out[_TRACKED[name]] = MAD_TO_SIGMA * masked_median(np.abs(values[name] - out[name]), valid)
    return out


def usual(devices: Array, rows: Array, values: dict[str, Array], valid: Array | None, known: Array) -> dict[str, Array]:
    """Median and deviation of each tracked quantity: the device's where `known`, else the window's own."""
    out = {name: devices[name][rows] for pair in _TRACKED.items() for name in pair}
    if known.all():
        return out
    young = np.flatnonzero(~known)
    own = own_usual(_take(values, young), None if valid is None else valid[:, young])
    for name, value in own.items():
        out[name][young] = value
    return out


def _take(values: dict[str, Array], which: Array) -> dict[str, Array]:
    return {name: value[:, which] for name, value in values.items()}


def learn(devices: Array, rows: Array, values: dict[str, Array], valid: Array | None, alive: Array) -> None:
    """Move what is usual towards this window's frames (in order); axes that are dead keep what they had."""
    warm = devices["warm"][rows]
    young = np.flatnonzero(warm < WARM)
    own = own_usual(_take(values, young), None if valid is None else valid[:, young]) if len(young) else {}
    share = (1 / (warm[young] + np.float32(1)))[:, None].astype(np.float32)
    for centre, deviation in _TRACKED.items():
        old, old_dev = devices[centre][rows], devices[deviation][rows]
        rate = _GAIN if centre != "crest" else np.where(devices["impulsive"][rows] > 0, np.float32(0), _SLOW_GAIN)
        new, new_dev = follow(old, old_dev, values[centre], valid, rate)
        if len(young):
            new[young] = old[young] + (own[centre] - old[young]) * share
            new_dev[young] = old_dev[young] + (own[deviation] - old_dev[young]) * share
        devices[centre][rows] = np.where(alive, new, old)
        devices[deviation][rows] = np.where(alive, new_dev, old_dev)


def glitches(found: "Found") -> Array:
    """EVENT rows: windows with glitches, one each, at the highest of them."""
    judged = found.judged
    if judged.calm:
        return event_rows(Event.KIND_GLITCH, "samples", 0)
    glitchy = judged.glitch_high | judged.glitch_low
    hit = np.flatnonzero(glitchy.any(axis=(0, 2)))
    count = judged.glitch_high[:, hit].sum(axis=(0, 2)) + judged.glitch_low[:, hit].sum(axis=(0, 2))
    return found.at_highest(Event.KIND_GLITCH, "samples", glitchy, hit, count)


def spikes(found: "Found", allowed: Array) -> tuple[Array, Array, Array]:
    """EVENT rows of windows with a shock; the windows they are of; and which windows stand out for too long to be one."""
    judged = found.judged
    if judged.calm:
        return event_rows(Event.KIND_SPIKE, "peak_g", 0), np.zeros(0, np.int64), np.zeros(len(allowed), bool)
    glitchy = judged.glitch_high | judged.glitch_low
    persistent = np.asarray((judged.stands_out & ~glitchy).any(axis=2).sum(axis=0) > PERSISTENT)
    hit = np.flatnonzero(judged.shock.any(axis=(0, 2)) & ~persistent & allowed)
    return found.at_highest(Event.KIND_SPIKE, "peak_g", judged.shock, hit, None), hit, persistent


@dataclass(frozen=True)
class Found:
    """What events are made of: windows and what stands out in their frames."""

    device: Array
    boot: Array
    window: Array
    cells: dict[str, Array]
    peaks: Array
    judged: Judged

    def at_highest(self, kind: int, quantity: str, which: Array, hit: Array, value: Array | None) -> Array:
        """One EVENT row for each window of `hit`, at the frame and axis of the highest score among `which`."""
        out = event_rows(kind, quantity, len(hit), threshold=LIMIT)
        if not len(hit):
            return out
        score = np.where(which[:, hit], self.judged.score[:, hit], -np.inf).transpose(1, 0, 2).reshape(len(hit), -1)
        flat = score.argmax(axis=1)
        place, axis = flat // 3, flat % 3
        out["device"], out["boot"], out["window"], out["axis"] = self.device[hit], self.boot[hit], self.window[hit], axis
        out["time_us"] = self.cells["time_us"][place, hit]
        out["time_error_us"] = self.cells["time_error_us"][place, hit]
        out["value"] = self.peaks[place, hit, axis] if value is None else value
        out["score"] = self.judged.score[place, hit, axis]
        out["first_sequence"] = out["last_sequence"] = self.window[hit] * np.uint32(FRAMES) + place.astype(np.uint32)
        return out


# field of DEVICE after "spike_", field of EVENT
_HELD = (
    ("axis", "axis"),
    ("window", "window"),
    ("value", "value"),
    ("score", "score"),
    ("first", "first_sequence"),
    ("last", "last_sequence"),
    ("time_us", "time_us"),
    ("error_us", "time_error_us"),
)


def hold_spikes(devices: Array, rows: Array, events: Array) -> None:
    """Keep these spikes until the next window says whether they go on."""
    devices["spike"][rows] = True
    for held, name in _HELD:
        devices[f"spike_{held}"][rows] = events[name]


def pending_spikes(devices: Array, rows: Array, dismissed: Array) -> Array:
    """EVENT rows of the spikes that waited on these rows, those dismissed or soon after another left out; none waits afterwards."""
    waiting = devices["spike"][rows]
    at = rows[waiting]
    devices["spike"][rows] = False
    if not len(at):
        return event_rows(Event.KIND_SPIKE, "peak_g", 0)
    window, hot = devices["spike_window"][at].astype(np.int64), devices["spike_hot"][at]
    due = ~dismissed[waiting] & ((hot < 0) | (window - hot > QUIET))
    devices["spike_hot"][at] = window
    at = at[due]
    out = event_rows(Event.KIND_SPIKE, "peak_g", len(at), threshold=LIMIT)
    out["device"], out["boot"] = devices["device"][at], devices["boot"][at]
    for held, name in _HELD:
        out[name] = devices[f"spike_{held}"][at]
    return out


def dead_axes(cells: dict[str, Array], valid: Array | None) -> Array:
    """True (windows, 3) where at least five frames hold one single value on an axis and not on all of them."""
    low, high = cells["minimum"], cells["maximum"]
    if valid is None:
        flat = low.min(axis=0) == high.max(axis=0)
    else:
        shown = valid[:, :, None]
        flat = np.where(shown, low, np.inf).min(axis=0) == np.where(shown, high, -np.inf).max(axis=0)
        flat &= (valid.sum(axis=0) >= 5)[:, None]
    return np.asarray(flat & ~flat.all(axis=1)[:, None])


def bearings(
    devices: Array, rows: Array, values: dict[str, Array], valid: Array | None, alive: Array
) -> tuple[Array, Array, Array]:
    """Axes (rows, 3) on which a bearing becomes suspect with this window (in order), the crest of each and how much it rose."""
    crest, deviation = devices["crest"][rows], devices["crest_dev"][rows]
    now = masked_median(values["crest"], valid)
    rise = now - crest
    above = (rise > np.maximum(_CREST_DEVIATIONS * deviation, _CREST_RISE * crest)) & alive
    count = devices["impulsive"][rows]
    score = rise / np.maximum(deviation, np.float32(1e-6))
    if not above.any() and not count.any():
        return above, now, score
    hot = count > _CREST_WINDOWS
    louder = masked_median(values["power"], valid) >= devices["power"][rows]
    starts = above & ~hot & louder & (devices["warm"][rows] >= _CREST_WARM)[:, None]
    found = starts & (count == _CREST_WINDOWS - 1)
    cold = np.where(starts, count + 1, 0)
    # once suspect, the power's reference has caught up: only the crest, low for five windows, ends it
    warm = np.where(above, 2 * _CREST_WINDOWS, count - 1)
    warm = np.where(warm > _CREST_WINDOWS, warm, 0)
    devices["impulsive"][rows] = np.where(found, 2 * _CREST_WINDOWS, np.where(hot, warm, cold))
    return np.asarray(found), now, score
