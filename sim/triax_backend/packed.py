"""Arrays one behind the other in stored bytes."""

from typing import Any

import numpy as np

__all__ = ["BadState", "Cutter"]

Array = np.ndarray[Any, Any]


class BadState(ValueError):
    """Stored bytes are not what was stored: another version wrote them, or they were changed."""


class Cutter:
    """Takes arrays off stored bytes, one behind the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def __call__(self, kind: str, count: int) -> Array:
        size = np.dtype(kind).itemsize * count
        if self._at + size > len(self._data):
            raise BadState(f"dedup state ends after {len(self._data)} bytes, want {self._at + size}")
        out = np.frombuffer(self._data, kind, count, self._at)
        self._at += size
        return out

    def end(self) -> None:
        if self._at != len(self._data):
            raise BadState(f"{len(self._data) - self._at} bytes too many in a dedup state")
