"""Rows of the table `frames` in PostgreSQL's binary COPY form, as numpy arrays: written and read without looking at single rows.

A row is a run of `frames` consecutive frames that all have `per_axis` values, so every row of one (frames, per_axis) has the same
bytes but for the data, and a structured dtype lays over it. Unsigned 32 and 64 bit fields are stored in PostgreSQL's signed types
with the same bits. Binary COPY: big-endian; a field is its length, then its bytes; an array is ndim, flags, element type, size,
lower bound, then each element with its length.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
from triax_proto import frame

__all__ = ["COLUMNS", "COPY_END", "COPY_HEAD", "EPOCH_US", "MOST_FRAMES", "blank", "fill", "read", "reassemble", "with_originals"]

Array = np.ndarray[Any, Any]

MOST_FRAMES = 10  # of a run
EPOCH_US = 946_684_800_000_000  # PostgreSQL counts from 2000-01-01
COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"

_INT4, _INT8, _FLOAT4 = 23, 20, 700  # object ids of PostgreSQL's types
_TYPES = {"u4": _INT4, "i4": _INT4, "u8": _INT8, "i8": _INT8, "f4": _FLOAT4}

# name, big-endian type
_SCALARS: tuple[tuple[str, str], ...] = (
    ("frames", ">i2"),
    ("per_axis", ">i2"),
    ("time", ">i8"),
    ("time_end", ">i8"),
    ("received", ">i8"),
    ("device", ">u8"),
    ("boot", ">i8"),
    ("first_sequence", ">i8"),
    ("own_clock", ">u1"),
    ("doubtful", ">u1"),
)
# name (of the frame's field too), type of an element, elements per frame; None: per_axis of them
_ARRAYS: tuple[tuple[str, str, int | None], ...] = (
    ("checksum", "u4", 1),
    ("first_sample", "u8", 1),
    ("samples", "u4", 1),
    ("time_us", "i8", 1),
    ("time_error_us", "u4", 1),
    ("rate_hz", "f4", 1),
    ("decimation", "u4", 1),
    ("scale_g", "f4", 1),
    ("x", "i4", None),
    ("y", "i4", None),
    ("z", "i4", None),
    ("minimum", "i4", 3),
    ("maximum", "i4", 3),
    ("sum_squares", "u8", 3),
    ("lost_samples", "u4", 1),
    ("flags", "u4", 1),
    ("config", "u4", 1),
    ("temperature_mc", "i4", 1),
)
COLUMNS: tuple[str, ...] = (*(name for name, _ in _SCALARS), *(name for name, _, _ in _ARRAYS), "original")
_SHAPE_AT = 6  # of the lengths and values of `frames` and `per_axis`: count of fields, length, frames, length, per_axis
_SHAPE = struct.Struct(">2xihih")


@cache
def _layout(frames: int, per_axis: int) -> tuple[np.dtype[Any], bytes]:
    """dtype of a whole row, and a row with every length in place and every value zero."""
    fields: list[tuple[str, Any]] = [("fields", ">i2")]
    row = bytearray(struct.pack(">h", len(COLUMNS)))
    for name, kind in _SCALARS:
        size = np.dtype(kind).itemsize
        fields += [(f"{name}_size", ">i4"), (name, kind)]
        row += struct.pack(">i", size) + bytes(size)
    for name, kind, items in _ARRAYS:
        count = frames * (per_axis if items is None else items)
        size = np.dtype(kind).itemsize
        head = struct.pack(">iii", 1 if count else 0, 0, _TYPES[kind]) + (struct.pack(">ii", count, 1) if count else b"")
        fields += [(f"{name}_size", ">i4"), (f"{name}_head", f"V{len(head)}")]
        row += struct.pack(">i", len(head) + count * (4 + size)) + head
        if count:
            fields.append((name, np.dtype([("size", ">i4"), ("value", f">{kind}")]), (count,)))  # type: ignore[arg-type]
            row += (struct.pack(">i", size) + bytes(size)) * count
    fields.append(("original_size", ">i4"))
    row += struct.pack(">i", -1)
    return np.dtype(fields), bytes(row)


def blank(count: int, frames: int, per_axis: int) -> Array:
    """`count` rows with lengths in place, `original` NULL, everything else zero."""
    dtype, row = _layout(frames, per_axis)
    return np.frombuffer(bytearray(row) * count, dtype)


def fill(rows: Array, found: Array) -> None:
    """Put frames into rows: `found` has shape (rows, frames of a run) and a `frame_dtype`."""
    for name, _, items in _ARRAYS:
        if name in rows.dtype.names:
            values = found[name]
            rows[name]["value"] = values.reshape(len(rows), -1) if items != 1 else values


def with_originals(rows: Array, originals: Iterable[bytes]) -> bytes:
    """COPY bytes of rows whose frame has another shape: each ends with its wire bytes instead of NULL."""
    size = rows.dtype.itemsize
    raw = rows.tobytes()
    return b"".join(raw[i * size : (i + 1) * size - 4] + struct.pack(">i", len(o)) + o for i, o in enumerate(originals))


def read(chunks: Iterable[bytes], extra: bool = False, batch: int = 20_000) -> Iterator[tuple[Array, list[bytes] | None, Array]]:
    """Rows of `COPY (SELECT <COLUMNS>) TO STDOUT (FORMAT binary)`, one chunk a row, as arrays of one layout each.

    Yields (rows, None, extra), or (one row, its frame's wire bytes, extra) for a frame of another shape. Order among layouts is not
    kept. `extra`: the select has one bigint more behind them; zeros otherwise.
    """
    plain: dict[tuple[int, int], list[bytes]] = {}
    tail = 12 if extra else 0
    for number, chunk in enumerate(chunks):
        at = len(COPY_HEAD) if number == 0 else 0
        if chunk[at : at + 2] in (COPY_END, b""):
            continue
        _, frames, _, per_axis = _SHAPE.unpack_from(chunk, at)
        size = _layout(frames, per_axis)[0].itemsize
        if len(chunk) - at - tail > size:
            more = int.from_bytes(chunk[-8:], "big", signed=True) if extra else 0
            row = np.frombuffer(chunk[at : at + size], _layout(frames, per_axis)[0])
            yield row, [chunk[at + size : len(chunk) - tail]], np.array([more])
            continue
        waiting = plain.setdefault((frames, per_axis), [])
        waiting.append(chunk[at:])
        if len(waiting) == batch:
            yield _cut_plain(plain.pop((frames, per_axis)), frames, per_axis, extra)
    for (frames, per_axis), waiting in plain.items():
        yield _cut_plain(waiting, frames, per_axis, extra)


def _cut_plain(chunks: list[bytes], frames: int, per_axis: int, extra: bool) -> tuple[Array, None, Array]:
    row = _layout(frames, per_axis)[0]
    if not extra:
        return np.frombuffer(b"".join(chunks), row), None, np.zeros(len(chunks), np.int64)
    both = np.frombuffer(b"".join(chunks), np.dtype([("row", row), ("size", ">i4"), ("extra", ">i8")]))
    return both["row"], None, both["extra"].astype(np.int64)


def reassemble(rows: Array) -> Array:
    """The frames of rows of one layout, encoded again, `checksum` as stored; shape (rows x frames,), of a `frame_dtype`."""
    frames, per_axis = int(rows["frames"][0]), int(rows["per_axis"][0])
    out = frame.empty(len(rows) * frames, per_axis)
    out["device"] = np.repeat(rows["device"], frames)
    out["boot"] = np.repeat(rows["boot"], frames)
    out["sequence"] = (rows["first_sequence"][:, None] + np.arange(frames)).reshape(-1)
    for name, _, _ in _ARRAYS:
        if name in rows.dtype.names:
            out[name] = rows[name]["value"].reshape(out[name].shape)
    return out
