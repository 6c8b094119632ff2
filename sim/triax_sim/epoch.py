"""Samples that a part makes under one configuration, and its account of what became of them. Runs on MicroPython too."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.part import Part

__all__ = ["BLOCK", "Epoch", "Truth"]

# Samples asked from the source and packed at once: numpy wants many, plain loops waste what is not read. A multiple of 256, the
# longest period of anything else in a FIFO.
BLOCK = 256 if sys.implementation.name == "micropython" else 2048
UHZ = 1_000_000_000_000  # microhertz times microseconds in one cycle


class Truth:
    """A part's own account of its samples: what really happened, for tests.

    made: by the oscillator. unstored: while the FIFO was off. overwritten: oldest ones, in stream mode. refused: newest ones,
    FIFO full and stopped. dropped: by a planted quirk. cleared: unread in the FIFO when it was reset or the part lost its
    configuration.
    """

    def __init__(self) -> None:
        self.made = 0
        self.unstored = 0
        self.overwritten = 0
        self.refused = 0
        self.dropped = 0
        self.cleared = 0

    @property
    def lost(self) -> int:
        """Samples that were made but that no driver can ever read."""
        return self.unstored + self.overwritten + self.refused + self.dropped + self.cleared


class Epoch:
    """Samples made under one configuration: their times, and their bytes in the FIFO. Numbers in here count from the epoch's
    first sample.
    """

    def __init__(self, part: "Part", number: int, first: int, start_us: int, rate_uhz: int) -> None:
        self.number = number
        self.first = first
        self.start_us = start_us
        self.rate_uhz = rate_uhz
        self.counted = 0  # samples below this are already in the account of losses
        self.shift = part._shift()
        self.layout = part._layout()
        self.clip = part._clip()
        self.unit_bytes = part._unit_bytes()
        self.units_of_block = part._units_until(BLOCK)
        self._part = part
        self._end = getattr(part.source, "samples", None)
        self._blocks: dict[int, tuple[Any, memoryview]] = {}

    def due(self, now_us: int) -> int:
        """How many samples the oscillator has made by now; a source that has an end (`samples`) stops it there."""
        made = (now_us - self.start_us) * self.rate_uhz // UHZ if now_us > self.start_us else 0
        return made if self._end is None else min(made, max(0, self._end - self.first))

    def time_of(self, samples: int) -> int:
        """The first whole microsecond at which this many samples have been made."""
        return self.start_us + -(-samples * UHZ // self.rate_uhz)

    def block(self, number: int) -> "tuple[Any, memoryview]":
        """Counts and FIFO bytes of a block; the last two stay, for a burst across their border."""
        known = self._blocks.get(number)
        if known is None:
            counts, packed = self._part._make_block(self, number)
            known = counts, memoryview(packed)
            for old in [n for n in self._blocks if n < number - 1]:
                del self._blocks[old]
            self._blocks[number] = known
        return known

    def bytes_of(self, start: int, end: int) -> "list[memoryview]":
        """FIFO bytes of units start..end, as pieces of blocks."""
        size, width = self.units_of_block, self.unit_bytes
        number, base = divmod(start, size)
        stop = base + end - start
        if stop <= size:  # nearly always
            return [self.block(number)[1][base * width : stop * width]]
        pieces = []
        while start < end:
            number = start // size
            stop = min(end, (number + 1) * size)
            base = number * size
            pieces.append(self.block(number)[1][(start - base) * width : (stop - base) * width])
            start = stop
        return pieces

    def sample(self, index: int) -> "tuple[int, int, int]":
        """x, y, z of one sample in raw counts."""
        counts = self.block(index // BLOCK)[0]
        row = index % BLOCK
        if hasattr(counts, "astype"):
            return int(counts[row, 0]), int(counts[row, 1]), int(counts[row, 2])
        return counts[3 * row], counts[3 * row + 1], counts[3 * row + 2]
