"""FrameBatch, the value of a Kafka record: `repeated bytes frames = 1`, written and cut without a parser."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from triax_proto.errors import Malformed, Truncated
from triax_proto.frame import VALUES, wire_size

__all__ = ["join", "join_array", "split", "split_array"]

_TAG = 0x0A


def _head(size: int) -> bytes:
    out = bytearray([_TAG])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def join(frames: Iterable[bytes]) -> bytes:
    """Frames of any sizes as the bytes of a FrameBatch."""
    parts: list[bytes] = []
    for frame in frames:
        parts.append(_head(len(frame)))
        parts.append(frame)
    return b"".join(parts)


def join_array(frames: np.ndarray[Any, Any]) -> bytes:
    """Frames of one size, uint8 (count, size), as the bytes of a FrameBatch."""
    count, size = frames.shape
    head = _head(size)
    out = np.empty((count, len(head) + size), np.uint8)
    out[:, : len(head)] = np.frombuffer(head, np.uint8)
    out[:, len(head) :] = frames
    return out.tobytes()


def split(data: bytes) -> list[bytes]:
    """Frames of a FrameBatch as they are. Raises Truncated, Malformed (another field than 1)."""
    out: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if data[at] != _TAG:
            raise Malformed(f"byte {at} of a FrameBatch is no tag of `frames`: {data[at]:#x}")
        at += 1
        size = shift = 0
        while True:
            if at >= end:
                raise Truncated("a FrameBatch ends inside a length")
            byte = data[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 28:
                raise Malformed(f"length of more than 5 bytes at byte {at}")
        if at + size > end:
            raise Truncated(f"a FrameBatch ends {at + size - end} bytes before its last frame does")
        out.append(data[at : at + size])
        at += size
    return out


def split_array(data: bytes, values: int = VALUES) -> np.ndarray[Any, Any] | None:
    """Frames of a FrameBatch in which all have the size for `values`: uint8 (count, size), a view; None if any has not."""
    size = wire_size(values)
    head = np.frombuffer(_head(size), np.uint8)
    step = len(head) + size
    raw = np.frombuffer(data, np.uint8)
    if raw.size == 0 or raw.size % step:
        return None
    rows = raw.reshape(-1, step)
    if not (rows[:, : len(head)] == head).all():
        return None
    return rows[:, len(head) :]
