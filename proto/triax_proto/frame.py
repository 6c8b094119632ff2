"""Frames as numpy arrays: a thousand frames of one layout are one structured array over their bytes.

A `Frame` of `values` values per axis has one layout (frame.proto), so `frame_dtype(values)` lays a structured dtype over the wire
bytes, tags included: reading is a view, writing is filling fields of a template. Frames of any other shape go through Google's
parser into the same dtype, and keep their original bytes.
"""

import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from triax_proto.errors import FrameError, Malformed, Truncated
from triax_proto.v1.frame_pb2 import Frame

__all__ = [
    "CHECKSUM_START",
    "NO_TEMPERATURE",
    "NO_UTC",
    "VALUES",
    "checksums_ok",
    "decode",
    "empty",
    "encode",
    "frame_dtype",
    "parse",
    "values_of",
    "wire_size",
]

VALUES = 10  # of an ordinary frame: 100 ms of 10 ms means
CHECKSUM_START = 5  # the CRC covers every byte after field 1, its tag and four bytes
NO_UTC = 0xFFFFFFFF  # time_error_us
NO_TEMPERATURE = -(2**31)  # temperature_mc

_FIXED32, _FIXED64, _LENGTH = 5, 1, 2

# number, name, numpy type; None: packed list of `values`
_FIELDS: tuple[tuple[int, str, str, int | None], ...] = (
    (1, "checksum", "<u4", 0),
    (2, "device", "<u8", 0),
    (3, "boot", "<u4", 0),
    (4, "sequence", "<u4", 0),
    (5, "first_sample", "<u8", 0),
    (6, "samples", "<u4", 0),
    (7, "time_us", "<i8", 0),
    (8, "time_error_us", "<u4", 0),
    (9, "rate_hz", "<f4", 0),
    (10, "decimation", "<u4", 0),
    (11, "scale_g", "<f4", 0),
    (12, "x", "<i4", None),
    (13, "y", "<i4", None),
    (14, "z", "<i4", None),
    (15, "minimum", "<i4", 3),
    (16, "maximum", "<i4", 3),
    (17, "sum_squares", "<u8", 3),
    (18, "lost_samples", "<u4", 0),
    (19, "flags", "<u4", 0),
    (20, "config", "<u4", 0),
    (21, "temperature_mc", "<i4", 0),
)
SCALARS = tuple(name for _, name, _, count in _FIELDS if count == 0)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@cache
def _layout(values: int) -> tuple[np.dtype[Any], bytes, np.ndarray[Any, Any]]:
    """dtype over the wire bytes, a frame of zeros, and a mask that is True where every frame has the same byte."""
    if values < 0:
        raise ValueError(f"a frame has no {values} values")
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    wire = bytearray()
    fixed = bytearray()
    for number, name, kind, count in _FIELDS:
        items = values if count is None else count
        size = np.dtype(kind).itemsize
        if count == 0:
            wire_type, prefix, length = (_FIXED64 if size == 8 else _FIXED32), b"", size
        elif items == 0:  # an empty packed list is not on the wire
            continue
        else:
            wire_type, length = _LENGTH, items * size
            prefix = _varint(length)
        head = _varint(number << 3 | wire_type) + prefix
        names.append(name)
        formats.append(kind if count == 0 else (kind, (items,)))
        offsets.append(len(wire) + len(head))
        wire += head + bytes(length)
        fixed += b"\1" * len(head) + bytes(length)
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(wire)})
    return dtype, bytes(wire), np.frombuffer(bytes(fixed), dtype=bool)


def frame_dtype(values: int = VALUES) -> np.dtype[Any]:
    """Structured dtype of the wire bytes of a frame with `values` values per axis (273 bytes for ten)."""
    return _layout(values)[0]


def wire_size(values: int = VALUES) -> int:
    """Bytes of a frame with `values` values per axis."""
    return _layout(values)[0].itemsize


@cache
def values_of(size: int) -> int | None:
    """Values per axis of a frame of `size` bytes, None if no frame has that size."""
    values = max(0, (size - wire_size(0)) // 12)
    for candidate in range(max(0, values - 2), values + 1):
        if wire_size(candidate) == size:
            return candidate
    return None


def empty(count: int, values: int = VALUES) -> np.ndarray[Any, Any]:
    """`count` frames with tags in place and every field zero; fill the fields, then `encode`."""
    dtype, wire, _ = _layout(values)
    return np.frombuffer(bytearray(wire) * count, dtype=dtype)


def encode(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Set each frame's checksum, in place; return the wire bytes as uint8, shape (count, size), sharing memory."""
    size = frames.dtype.itemsize
    data = frames.view(np.uint8).reshape(-1, size)
    view = memoryview(data.data).cast("B")
    crc32 = zlib.crc32
    frames["checksum"] = [crc32(view[at + CHECKSUM_START : at + size]) for at in range(0, len(view), size)]
    return data


def checksums_ok(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """True where a frame's bytes give its stored checksum. `frames`: C-contiguous, of any `frame_dtype`."""
    size = frames.dtype.itemsize
    view = memoryview(frames.view(np.uint8).data).cast("B")
    crc32 = zlib.crc32
    seen = np.array([crc32(view[at + CHECKSUM_START : at + size]) for at in range(0, len(view), size)], dtype=np.uint32)
    return np.asarray(seen == frames["checksum"])


def decode(data: bytes | bytearray | memoryview | np.ndarray[Any, Any], values: int = VALUES) -> np.ndarray[Any, Any] | None:
    """Frames of one layout, back to back, as a view over `data`; None if any byte of a tag or length differs.

    Does not check checksums. Raises Truncated if `data` is not a whole number of frames.
    """
    dtype, wire, fixed = _layout(values)
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size % dtype.itemsize:
        raise Truncated(f"{raw.size} bytes are no whole number of {dtype.itemsize}-byte frames")
    rows = raw.reshape(-1, dtype.itemsize)
    if not (rows[:, fixed] == np.frombuffer(wire, dtype=np.uint8)[fixed]).all():
        return None
    return raw.view(dtype)


def parse(data: bytes) -> np.ndarray[Any, Any]:
    """One frame of any shape, as an array of one with the dtype of its number of values.

    Fields unknown to this version are dropped from the array (the caller keeps `data`); absent scalars are zero. The checksum is
    proved against `data`. Raises Malformed.
    """
    values = values_of(len(data))
    if values is not None:
        frames = decode(data, values)
        if frames is not None:
            if not checksums_ok(frames)[0]:
                raise Malformed("the checksum does not match: the frame was changed on its way")
            return frames
    message = Frame()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Malformed(f"{len(data)} bytes are no protobuf Frame: {error}") from None
    if not message.HasField("device") or not message.HasField("sequence"):
        raise Malformed("a frame without device or sequence")
    if data[:1] != b"\x0d" or zlib.crc32(data[CHECKSUM_START:]) != message.checksum:
        raise Malformed("the checksum does not match: the frame was changed on its way")
    if not len(message.x) == len(message.y) == len(message.z):
        raise Malformed(f"x, y, z have {len(message.x)}, {len(message.y)}, {len(message.z)} values")
    frame = empty(1, len(message.x))
    for name in SCALARS:
        if message.HasField(name):  # type: ignore[arg-type]
            frame[name] = getattr(message, name)
    for name in ("x", "y", "z") if len(message.x) else ():
        frame[name] = getattr(message, name)
    for name in ("minimum", "maximum", "sum_squares"):
        items = getattr(message, name)
        if len(items) not in (0, 3):
            raise Malformed(f"{name} has {len(items)} values, not 3")
        if len(items):
            frame[name] = items
    return frame


def groups(frames: Sequence[bytes]) -> Iterable[tuple[list[int], np.ndarray[Any, Any] | FrameError]]:
    """Frames of mixed shapes as few arrays as possible: (indices into `frames`, array or the error of that one frame).

    Every frame of an array has passed its checksum.
    """
    by_size: dict[int, list[int]] = {}
    for index, data in enumerate(frames):
        by_size.setdefault(len(data), []).append(index)
    for size, indices in by_size.items():
        values = values_of(size)
        if values is not None:
            array = decode(b"".join([frames[i] for i in indices]), values)
            if array is not None and checksums_ok(array).all():
                yield indices, array
                continue
        for index in indices:
            try:
                yield [index], parse(frames[index])
            except FrameError as error:
                yield [index], error
