"""Rows over 10 and 60 windows, rolling by half their length: window numbers, not time, say what belongs to them.

A row of 2 n windows ends at the end of a block of n windows (window // n) and sums up that block and the one before. It is emitted
when the first window of a later block comes in order; windows that come late are in no row that is already out.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from triax_backend.stream.records import as_bytes, pick
from triax_backend.stream.state import SUMMARY
from triax_backend.stream.summary import add

__all__ = ["FIVE", "THIRTY", "roll"]

FIVE, THIRTY = 5, 30  # windows of a block

Array = np.ndarray[Any, Any]
Row = tuple[Array, Array, int, Array]


def roll(devices: Array, rows: Array, window: Array, summary: Array) -> Iterator[Row]:
    """Take in-order windows in; yield (rows, last window, number of windows, SUMMARY) of the long rows that this closes."""
    block = (window // FIVE).astype(np.int64)
    moved = block != devices["five_block"][rows]
    if moved.any():
        yield from _move(devices, rows[moved], block[moved])
    as_bytes(devices["five"])[rows] = as_bytes(add(pick(devices["five"], rows), summary))


def _move(devices: Array, rows: Array, block: Array) -> Iterator[Row]:
    """These devices have come to a new block of five: the one before is whole, and goes into its block of thirty."""
    begun = devices["five_block"][rows] >= 0
    long, fresh = devices["thirty_block"][rows], block // (THIRTY // FIVE)
    at = rows[begun]
    as_bytes(devices["thirty"])[at] = as_bytes(add(pick(devices["thirty"], at), pick(devices["five"], at)))
    yield from _close(devices, at, "five", FIVE, block[begun])
    devices["five_block"][rows] = block
    turned = (long >= 0) & (fresh != long)
    yield from _close(devices, rows[turned], "thirty", THIRTY, fresh[turned])
    devices["thirty_block"][rows] = fresh


def _close(devices: Array, rows: Array, name: str, length: int, block: Array) -> Iterator[Row]:
    """End the block under way, `block` being the next one, and yield the row over it and the one before."""
    if not len(rows):
        return
    current, number = pick(devices[name], rows), devices[f"{name}_block"][rows]
    last = ((number + 1) * length - 1).astype(np.uint32)
    yield rows, last, 2 * length, add(pick(devices[f"{name}_before"], rows), current)
    empty = np.zeros(len(rows), SUMMARY)
    current[block != number + 1] = np.zeros((), SUMMARY)
    as_bytes(devices[f"{name}_before"])[rows] = as_bytes(current)
    as_bytes(devices[name])[rows] = as_bytes(empty)
