"""Steps and slopes of a window's mean, per axis, on windows in order.

Level shift: of the last fifteen windows, let D be the median of the last five minus the median of the first five. It is a shift if
|D| >= max(8 s, 10 mg), s the usual deviation of a window's mean (from differences of neighbours, so a slope does not enter); both
fives are settled (range <= 0.3 |D|); and the way between them is short (the largest difference of two neighbours, with the
larger of the two beside it, >= 0.7 |D|). After a shift the last five are the new beginning, for the slope too.

Drift: the means of the last twelve (at least six) blocks of five windows, a straight line through them. It is a drift if the line
rises by >= 5 mg over them and its slope is >= 12 standard errors: a step in the middle of twelve blocks gives 5.5.
"""

from typing import Any

import numpy as np

from triax_backend.stream.robust import follow, masked_median
from triax_backend.stream.state import RECENT, TREND

__all__ = ["BLOCK", "DRIFT_FLOOR_G", "DRIFT_LIMIT", "SHIFT_FLOOR_G", "SHIFT_LIMIT", "drifts", "forget", "shifts", "take"]

BLOCK = 5  # windows
SHIFT_LIMIT, SHIFT_FLOOR_G = 8.0, 0.010  # 10 mg: a mount that tilted by 0.6 degrees
DRIFT_LIMIT, DRIFT_FLOOR_G = 12.0, 0.005
_LEAST_BLOCKS = 6
_SETTLED, _SHORT = 0.3, 0.7
_WARM = 5  # differences averaged before they are followed
_GAIN = np.float32(0.1)
_MEAN_TO_SIGMA = 1.2533141373155  # sqrt(pi / 2): mean of |normal|
_SQRT2 = 1.4142135623731

Array = np.ndarray[Any, Any]


def take(devices: Array, rows: Array, window: Array, mean: Array, alive: Array) -> Array:
    """Append window means (rows, 3) of the axes that are alive; return True where a block of five has just been closed."""
    recent, count = devices["recent"][rows], devices["recents"][rows]
    step = devices["step"][rows]
    difference = (mean - recent[:, -1]) / _SQRT2
    known = alive & (count > 0)
    first = np.abs(difference) * _MEAN_TO_SIGMA
    averaged = step + (first - step) / np.maximum(count, 1)
    followed = follow(np.zeros_like(step), step, difference[None], known[None], _GAIN)[1]
    devices["step"][rows] = np.where(known, np.where(count <= _WARM, averaged, followed), step)
    recent[:, :-1] = recent[:, 1:]
    recent[:, -1] = mean
    devices["recent"][rows] = recent
    numbers = devices["recent_window"][rows]
    numbers[:, :-1] = numbers[:, 1:]
    numbers[:, -1] = window
    devices["recent_window"][rows] = numbers
    devices["recents"][rows] = np.where(alive, np.minimum(count + 1, RECENT), 0)
    return _block(devices, rows, window, mean, alive)


def _block(devices: Array, rows: Array, window: Array, mean: Array, alive: Array) -> Array:
    held = devices["block_windows"][rows]
    first = np.where(held == 0, window, devices["block_first"][rows])
    total = np.where(held[:, None] == 0, 0.0, devices["block"][rows]) + mean
    closed = np.asarray(held + 1 == BLOCK)
    devices["block"][rows], devices["block_first"][rows] = total, first
    devices["block_windows"][rows] = np.where(closed, 0, held + 1)
    if closed.any():
        at = rows[closed]
        trend, numbers = devices["trend"][at], devices["trend_window"][at]
        trend[:, :-1], numbers[:, :-1] = trend[:, 1:], numbers[:, 1:]
        trend[:, -1], numbers[:, -1] = total[closed] / BLOCK, first[closed]
        devices["trend"][at], devices["trend_window"][at] = trend, numbers
        devices["trends"][at] = np.where(alive[closed], np.minimum(devices["trends"][at] + 1, TREND), 0)
    return closed


def shifts(devices: Array, rows: Array) -> tuple[Array, Array, Array, Array]:
    """Level shifts seen now: (found (rows, 3), step g, score, first window at the new level); a found one starts the axis anew."""
    recent = devices["recent"][rows]
    old, new = recent[:, :5], recent[:, 10:]
    step = masked_median(np.moveaxis(new, 1, 0), None) - masked_median(np.moveaxis(old, 1, 0), None)
    size = np.abs(step)
    usual = devices["step"][rows]
    score = size / np.maximum(usual, 1e-9)
    found = (devices["recents"][rows] == RECENT) & (size >= np.maximum(SHIFT_LIMIT * usual, SHIFT_FLOOR_G))
    if not found.any():
        return found, step, score, np.zeros(found.shape, np.uint32)
    for five in (old, new):
        found &= five.max(axis=1) - five.min(axis=1) <= _SETTLED * size
    jumps = np.abs(recent[:, 1:] - recent[:, :-1])
    place = jumps[:, 4:10].argmax(axis=1) + 4
    largest = np.take_along_axis(jumps, place[:, None], 1)[:, 0]
    beside = np.maximum(
        np.take_along_axis(jumps, place[:, None] - 1, 1)[:, 0],
        np.take_along_axis(jumps, np.minimum(place + 1, 13)[:, None], 1)[:, 0],
    )
    found &= largest + beside >= _SHORT * size
    began = np.take_along_axis(devices["recent_window"][rows], place + 1, 1)
    devices["recents"][rows] = np.where(found, 5, devices["recents"][rows])
    forget(devices, rows, found)
    return found, step, score, began


def forget(devices: Array, rows: Array, axes: Array) -> None:
    """Start the slope anew on these axes (rows, 3)."""
    devices["trends"][rows] = np.where(axes, 0, devices["trends"][rows])
    devices["drifting"][rows] = np.where(axes, 0, devices["drifting"][rows])
    devices["block_windows"][rows] = np.where(axes.any(axis=1), 0, devices["block_windows"][rows])


def drifts(devices: Array, rows: Array) -> tuple[Array, Array, Array, Array]:
    """Drifts that begin now: (found (rows, 3), slope g per window, score, first window of the line); call at the end of a block."""
    trend, count = devices["trend"][rows], devices["trends"][rows]
    place = np.arange(TREND, dtype=np.float64)[None, :, None]
    inside = place >= TREND - count[:, None, :]
    number = np.maximum(count, 1).astype(np.float64)
    centre = (TREND - 1) - (number - 1) / 2
    level = _sum(np.where(inside, trend, 0.0)) / number
    x, y = np.where(inside, place - centre[:, None], 0.0), np.where(inside, trend - level[:, None], 0.0)
    square = np.maximum(_sum(x * x), 1.0)
    slope = _sum(x * y) / square
    rest = y - slope[:, None] * x
    error = np.sqrt(_sum(np.where(inside, rest * rest, 0.0)) / np.maximum(number - 2, 1.0) / square)
    score = np.abs(slope) / np.maximum(error, 1e-12)
    sloping = (count >= _LEAST_BLOCKS) & (score >= DRIFT_LIMIT) & (np.abs(slope) * (number - 1) >= DRIFT_FLOOR_G)
    sign = np.where(sloping, np.sign(slope), 0).astype(np.int8)
    found = sloping & (sign != devices["drifting"][rows])
    devices["drifting"][rows] = sign
    oldest = TREND - np.maximum(count, 1).astype(np.int64)
    began = np.take_along_axis(devices["trend_window"][rows], oldest, 1)
    return found, slope / BLOCK, score, began


def _sum(values: Array) -> Array:
    total = values[:, 0].copy()
    for index in range(1, values.shape[1]):
        total += values[:, index]
    return total
