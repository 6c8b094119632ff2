"""Frames of any shape as one array of what the stream needs of them, in g, in the order of arrival."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from triax_proto import batch, frame
from triax_proto.errors import FrameError

__all__ = ["CELL", "COLUMNS", "of_frames", "of_records"]

# One frame of an open window. Single precision: 6e-8 of a level of 1 g is below a count of every part.
CELL = [
    ("samples", "<f4"),
    ("values", "<f4"),  # raw samples that the 10 ms values cover; 0: no mean
    ("mean", "<f4", 3),
    ("fast", "<f4", 3),  # sum of squares about the 10 ms values, g^2
    ("slow", "<f4", 3),  # sum of squares of the 10 ms values about the frame's mean, times decimation
    ("low", "<f4", 3),  # smallest and largest 10 ms value
    ("high", "<f4", 3),
    ("minimum", "<f4", 3),
    ("maximum", "<f4", 3),
    ("scale_g", "<f4"),
    ("time_us", "<i8"),
    ("time_error_us", "<u4"),
    ("rate_hz", "<f4"),
    ("lost_samples", "<u4"),
    ("flags", "<u4"),
    ("temperature_mc", "<i4"),
]
COLUMNS = np.dtype([("device", "<u8"), ("partition", "<i4"), ("boot", "<u4"), ("sequence", "<u4"), ("cell", CELL)])
_COPIED = ("samples", "scale_g", "time_us", "time_error_us", "rate_hz", "lost_samples", "flags", "temperature_mc")
_CHUNK = 1024  # frames worked on at a time: their thirty values in double precision stay in the cache


def of_frames(frames: np.ndarray[Any, Any], partition: int | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """COLUMNS of frames of one `frame_dtype`.

    With S_k the k-th sum of `decimation` counts, N samples, Q the sum of squares and mean m = sum(S_k) / (K decimation):
    slow = sum(S_k^2) / decimation - K decimation m^2, fast = Q - sum(S_k^2) / decimation - (N - K decimation) m^2, each times
    scale_g^2. Samples past the last whole window (only in a frame that a gap closed) are taken about m.
    """
    out = np.zeros(len(frames), COLUMNS)
    for name in ("device", "boot", "sequence"):
        out[name] = frames[name]
    out["partition"] = partition
    cell = out["cell"]
    for name in _COPIED:
        cell[name] = frames[name]
    for start in range(0, len(frames), _CHUNK):
        part = slice(start, start + _CHUNK)
        _values(frames[part], cell[part])
    return out


def _values(frames: np.ndarray[Any, Any], cell: np.ndarray[Any, Any]) -> None:
    """Fill what is computed of the 10 ms values, extremes and squares."""
    scale = frames["scale_g"].astype(np.float64)
    for name in ("minimum", "maximum"):
        cell[name] = (frames[name].T * scale).T
    if "x" not in (frames.dtype.names or ()):
        return
    count = frames["x"].shape[1]
    sums = np.empty((3, count, len(frames)))
    for axis, name in enumerate("xyz"):
        sums[axis] = frames[name].T
    decimation = np.maximum(frames["decimation"].astype(np.float64), 1.0)
    covered = count * decimation
    # along an axis that is not the last numpy adds row after row: every version rounds it alike
    total, square = sums.sum(axis=1), (sums * sums).sum(axis=1)
    mean = total / covered
    between = square / decimation
    power = mean * mean
    rest = frames["samples"] - covered
    scale2 = scale * scale
    cell["values"] = covered
    cell["mean"] = (mean * scale).T
    cell["slow"] = (np.maximum(between - covered * power, 0.0) * scale2).T
    cell["fast"] = (np.maximum(frames["sum_squares"].T.astype(np.float64) - between - rest * power, 0.0) * scale2).T
    g = scale / decimation
    cell["low"] = (sums.min(axis=1) * g).T
    cell["high"] = (sums.max(axis=1) * g).T


def _mixed(data: bytes, partition: int) -> tuple[np.ndarray[Any, Any], int]:
    frames = batch.split(data)
    parts: list[np.ndarray[Any, Any]] = []
    order: list[int] = []
    bad = 0
    for indices, array in frame.groups(frames):
        if isinstance(array, FrameError):
            bad += 1
            continue
        parts.append(of_frames(array, partition))
        order.extend(indices)
    if not parts:
        return np.zeros(0, COLUMNS), bad
    return np.concatenate(parts)[np.argsort(order)], bad


def of_records(records: Sequence[tuple[int, bytes]] | Iterable[tuple[int, bytes]]) -> tuple[np.ndarray[Any, Any], int]:
    """COLUMNS of the frames of Kafka records (partition, FrameBatch), in order; and how many frames or records could not be read.

    Frames that were proved on their way into Kafka are not proved again; those of an odd shape are, since parsing them does it.
    """
    parts: list[np.ndarray[Any, Any]] = []
    run: list[tuple[int, bytes, np.ndarray[Any, Any]]] = []
    bad = 0

    def flush() -> None:
        nonlocal bad
        if not run:
            return
        seen = frame.decode(np.concatenate([rows for _, _, rows in run]).reshape(-1))
        if seen is not None:
            places = np.repeat(np.array([partition for partition, _, _ in run], np.int32), [len(rows) for _, _, rows in run])
            parts.append(of_frames(seen, places))
        else:  # a frame of another layout has the length of an ordinary one
            for partition, data, _ in run:
                columns, wrong = _mixed(data, partition)
                bad += wrong
                parts.append(columns)
        run.clear()

    for partition, data in records:
        rows = batch.split_array(data)
        if rows is not None:
            run.append((partition, data, rows))
            continue
        flush()
        try:
            columns, wrong = _mixed(data, partition)
        except FrameError:
            columns, wrong = np.zeros(0, COLUMNS), 1
        bad += wrong
        parts.append(columns)
    flush()
    return (np.concatenate(parts) if parts else np.zeros(0, COLUMNS)), bad
