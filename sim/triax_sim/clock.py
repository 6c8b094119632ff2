"""UTC for a run on one host: the monotonic clock, tied to the wall clock once a second so that all processes agree."""

import time

__all__ = ["Clock"]


class Clock:
    """Call it for UTC in microseconds. Between two `tie`s it cannot jump.

    A wall clock that is being slewed (some 100 ppm) is followed; what it moved by at once is kept in `worst_step_us`: a run whose
    clock stepped by more than its gates allow has no true latencies.
    """

    def __init__(self) -> None:
        self._monotonic_ns = time.monotonic_ns
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.worst_step_us = 0

    def __call__(self) -> int:
        return (self._offset_ns + self._monotonic_ns()) // 1000

    def tie(self) -> int:
        """Take the wall clock's UTC again; returns by how much it had moved, us."""
        offset = time.time_ns() - time.monotonic_ns()
        moved = (offset - self._offset_ns) // 1000
        self._offset_ns = offset
        self.worst_step_us = max(self.worst_step_us, abs(moved))
        return moved
