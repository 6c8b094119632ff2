"""CRC-32 of many messages that differ in few bytes, without a Python call a message.

CRC-32 is affine over XOR: for messages of one length, crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0). So what byte `v` at place `p` adds
to the checksum of a template is one entry of a table, and a frame's checksum is its template's, XORed with one entry per changed
byte: 0.07 us a frame for 24 bytes against 0.3-0.6 us for zlib called from a loop.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

__all__ = ["Patch"]

Array = np.ndarray[Any, Any]


@cache
def _table(size: int, place: int) -> Array:
    """What each value of the byte at `place` of `size` bytes adds to their CRC-32."""
    message = bytearray(size)
    zero = zlib.crc32(message)
    out = np.empty(256, np.uint32)
    for value in range(256):
        message[place] = value
        out[value] = zlib.crc32(message) ^ zero
    return out


class Patch:
    """Contribution of the bytes at `places` of rows to the CRC-32 of their bytes from `start` on, where the template has zeros
    there.

    Raises ValueError if a place lies outside what the checksum covers.
    """

    def __init__(self, size: int, start: int, places: Sequence[int]) -> None:
        if not all(start <= place < size for place in places):
            raise ValueError(f"places {places} are not all within [{start}, {size})")
        self.places = np.array(places, np.intp)
        self._tables = np.concatenate([_table(size - start, place - start) for place in places])
        self._first = np.arange(len(places)) * 256

    def of(self, rows: Array) -> Array:
        """For each row (uint8, one message each): what its bytes at `places` add."""
        return np.asarray(np.bitwise_xor.reduce(self._tables.take(rows[:, self.places] + self._first), axis=1))
