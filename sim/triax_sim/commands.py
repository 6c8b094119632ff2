"""Lines on standard input as they come, without waiting for them: how a run talks to its generators, relays and planters."""

import os
import select
import sys

__all__ = ["Commands"]


class Commands:
    """Reads the descriptor itself: what a buffered reader has taken, `select` does not see."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self._rest = ""
        self.ended = False

    def lines(self, wait_s: float = 0.0) -> list[str]:
        """Whole lines that have come, after waiting up to `wait_s` for one. `ended` turns true when no more can come."""
        if self.ended or not select.select([self._descriptor], [], [], wait_s)[0]:
            return []
        data = os.read(self._descriptor, 1 << 16)
        if not data:
            self.ended = True
        *lines, self._rest = (self._rest + data.decode()).split("\n")
        return [line.strip() for line in lines]
