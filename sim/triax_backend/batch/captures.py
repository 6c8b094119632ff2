"""Raw captures out of the lake: raw frames of one command put together, in g, with the holes said."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["Capture", "captures"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Capture:
    """One capture, cut where samples are missing: `start` counts from 0 within the command's capture."""

    device: int
    boot: int
    capture: int  # Command.id
    start: int
    first_sample: int
    time_us: int
    time_error_us: int
    rate_hz: float
    g: Array  # (samples, 3), uncalibrated

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.g) / self.rate_hz


def captures(tables: Iterable[pa.Table]) -> Iterator[Capture]:
    """Captures in rows of the lake's `raw`, each stretch without a hole one of its own; repeats are taken once."""
    found: dict[tuple[int, int, int], dict[int, dict[str, Any]]] = {}
    for table in tables:
        for row in table.select(_NEEDED).to_pylist():
            key = int(np.int64(row["device"]).astype(np.uint64)), row["boot"], row["capture"]
            found.setdefault(key, {}).setdefault(row["first_sample"], row)
    for (device, boot, capture), pieces in sorted(found.items()):
        run: list[dict[str, Any]] = []
        begun = 0
        for first in sorted(pieces):
            row = pieces[first]
            if run and first != run[-1]["first_sample"] + len(run[-1]["x"]):
                yield _capture(device, boot, capture, begun, run)
                begun += 1
                run = []
            run.append(row)
        if run:
            yield _capture(device, boot, capture, begun, run)


_NEEDED = ["device", "boot", "capture", "first_sample", "time_us", "time_error_us", "rate_hz", "scale_g", "x", "y", "z"]


def _capture(device: int, boot: int, capture: int, start: int, rows: list[dict[str, Any]]) -> Capture:
    counts = np.concatenate([np.array([row["x"], row["y"], row["z"]], np.float64).T * row["scale_g"] for row in rows])
    head = rows[0]
    rate = float(np.mean([row["rate_hz"] for row in rows]))
    return Capture(device, boot, capture, start, head["first_sample"], head["time_us"], head["time_error_us"], rate, counts)
