"""The FIFO of a virtual part, held as ranges of positions in its stream instead of bytes.

A part numbers everything it ever puts into its FIFO (axis entries, words, packets or bytes: its *units*) per configuration
epoch. What the FIFO holds is then a short list of ranges, one unless something was lost in between, and a burst of any length is
a few slices of a block packed in bulk. Runs on MicroPython too.
"""

__all__ = ["Fifo"]


class Fifo:
    """Ranges (epoch, start, end) of units, oldest first. `capacity` in units may change while it is empty."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.level = 0
        self._ranges: list[list[int]] = []

    def clear(self) -> "list[tuple[int, int, int]]":
        """Empty the FIFO; returns the ranges that were thrown away."""
        gone = self.ranges()
        self._ranges = []
        self.level = 0
        return gone

    def push(self, epoch: int, start: int, end: int) -> None:
        """Append units start..end of an epoch; the caller has made room or calls `trim` next."""
        if end <= start:
            return
        last = self._ranges[-1] if self._ranges else None
        if last is not None and last[0] == epoch and last[2] == start:
            last[2] = end
        else:
            self._ranges.append([epoch, start, end])
        self.level += end - start

    def pop(self, units: int) -> "list[tuple[int, int, int]]":
        """Remove up to `units` of the oldest and return their ranges."""
        if self._ranges and 0 < units < self._ranges[0][2] - self._ranges[0][1]:  # nearly always
            head = self._ranges[0]
            head[1] += units
            self.level -= units
            return [(head[0], head[1] - units, head[1])]
        taken = []
        while units > 0 and self._ranges:
            head = self._ranges[0]
            step = min(units, head[2] - head[1])
            taken.append((head[0], head[1], head[1] + step))
            head[1] += step
            units -= step
            self.level -= step
            if head[1] == head[2]:
                self._ranges.pop(0)
        return taken

    def trim(self) -> "list[tuple[int, int, int]]":
        """Overwrite the oldest units beyond capacity; returns their ranges."""
        return self.pop(self.level - self.capacity) if self.level > self.capacity else []

    def ranges(self) -> "list[tuple[int, int, int]]":
        """All ranges, oldest first, left in place."""
        return [(r[0], r[1], r[2]) for r in self._ranges]

    def head(self) -> "list[tuple[int, int, int]]":
        """The oldest range, left in place; empty if there is none."""
        return self.ranges()[:1]
