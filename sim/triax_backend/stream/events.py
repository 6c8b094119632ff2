"""Findings of the stream as arrays, and the Event messages made of them.

    kind         value                       score                                   threshold
    SPIKE        peak over local level, g    robust deviations above the usual one   8
    GLITCH       bad samples of a window     height in robust deviations             8
    LEVEL_SHIFT  step, g                     step / deviation of a window's mean     8
    DRIFT        slope, g/s                  slope / its standard error              12
    DEAD_AXIS    the one value, g            0                                       0
    BEARING      median crest of frames      rise in robust deviations               2
    MISSING      frames that are not there   0                                       0
    ANOMALY      the model's score           the same                                the model's

SPIKE: a frame's extreme stands out, its energy is that of several samples (glitch.py), and the next window is not full of such
frames. LEVEL_SHIFT, DRIFT: level.py. DEAD_AXIS: every raw sample of a window has one value on this axis, and not on another one.
BEARING (detect.py): the crest has risen for five windows and the power with it; ask for a raw capture. MISSING: a window went
out with a hole, or whole windows were skipped. ANOMALY: a model's score crossed its threshold; `model` names it.

An event is the edge, not the state: what goes on raises no second one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from triax_proto.v1.event_pb2 import Event

from triax_backend.stream.features import MODEL_LENGTH

__all__ = ["EVENT", "NO_AXIS", "event_rows", "messages"]

NO_AXIS = 3  # of Finding.axis, and in the number of an event

EVENT = np.dtype(
    [
        ("device", "<u8"),
        ("boot", "<u4"),
        ("kind", "<u4"),
        ("window", "<u4"),
        ("time_us", "<i8"),
        ("time_error_us", "<u4"),
        ("axis", "<u4"),
        ("value", "<f4"),
        ("score", "<f4"),
        ("threshold", "<f4"),
        ("first_sequence", "<u4"),
        ("last_sequence", "<u4"),
        ("quantity", "S16"),
        ("model", f"S{MODEL_LENGTH}"),
    ]
)


def event_rows(kind: int, quantity: str, count: int, **fields: Any) -> np.ndarray[Any, Any]:
    """`count` EVENT rows of one kind with these fields."""
    out = np.zeros(count, EVENT)
    out["kind"], out["quantity"] = kind, quantity.encode()
    for name, value in fields.items():
        out[name] = value
    return out


def messages(rows: np.ndarray[Any, Any]) -> Iterator[Event]:
    """One Event each. Its number, window * 8 + axis, is the same however often the window is computed."""
    for row in rows:
        event = Event(device=int(row["device"]), boot=int(row["boot"]), kind=int(row["kind"]))  # type: ignore[arg-type]
        event.time_us, event.time_error_us = int(row["time_us"]), int(row["time_error_us"])
        event.number = (int(row["window"]) * 8 + int(row["axis"])) & 0xFFFFFFFF
        finding = event.finding
        finding.axis, finding.value = int(row["axis"]), float(row["value"])
        finding.score, finding.threshold = float(row["score"]), float(row["threshold"])
        finding.first_sequence, finding.last_sequence = int(row["first_sequence"]), int(row["last_sequence"])
        finding.quantity, finding.model = row["quantity"].decode(), row["model"].decode()
        yield event
