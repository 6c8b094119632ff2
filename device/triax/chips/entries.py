"""Parts whose FIFO holds axes, not sets: a burst may begin in the middle of a set, and then goes on at the next X.

ADXL382 and ADXL355: three bytes an entry, marked so that an X is known.
"""

from triax.chips import GAP_AXIS
from triax.chips.part import Part

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_ENTRY = const(3)  # bytes
_MAX_FAILURES = const(3)  # bursts that may be noise; then the FIFO is started anew


class EntryPart(Part):
    """A part fills in `_FIFO`, the register of the FIFO, and

    _whole(at)      whether a whole set lies at byte `at` of the burst's buffer, by its marks
    _begin()        addressing, other buffers
    """

    PER_SET = 3  # entries

    def _prepare(self) -> None:
        self._begin()
        per_set = self.PER_SET
        # Room behind a burst for the entries that complete its last set.
        self._burst = self.device.burst(self._FIFO, _ENTRY * per_set, self._burst_sets(), _ENTRY * (per_set - 1))
        self._entry = self.device.burst(self._FIFO, _ENTRY, 1)
        self._loose = 0  # entries in the FIFO beyond the whole sets of the last poll
        self._failures = 0  # bursts without one whole set, in a row

    def _burst_sets(self) -> int:
        return self.FIFO_SETS

    def _count(self, entries: int, most: int) -> int:
        """Sets among `entries`, rounded down; beyond `most` the bus lies."""
        if entries > most:
            return self.FIFO_SETS + 1
        self._loose = entries % self.PER_SET
        return entries // self.PER_SET

    def _resync(self, at: int, sets: int) -> int:
        """Go on at the next whole set: after an overrun the oldest entry need not be an X."""
        entry = 0
        per_set = self.PER_SET
        entries = per_set * sets
        while entry + per_set <= entries:
            if self._whole(at + _ENTRY * entry):
                self._failures = 0
                self._at = at + _ENTRY * entry
                return (entries - entry) // per_set + self._complete(entry % per_set, at + _ENTRY * entries)
            entry += 1
        self._failures += 1
        if self._failures > _MAX_FAILURES:
            self._failures = 0
            self._halt()
            self._run(self._watermark)
            self._waiting = 0
            self._loose = 0
        return 0

    def _complete(self, missing: int, end: int) -> int:
        """The last set of the burst lacks `missing` entries: fetch them one by one behind it. Returns 1 if it is whole now."""
        if not missing:
            return 0
        if self.PER_SET * self._waiting + self._loose < missing:
            self._next_gap |= GAP_AXIS
            return 0
        buf = self._burst.buffer
        for _ in range(missing):
            self._entry.read(1)
            start = self._entry.start
            for i in range(_ENTRY):
                buf[end + i] = self._entry.buffer[start + i]
            end += _ENTRY
        if self._loose < missing:
            self._waiting -= 1
            self._loose += self.PER_SET
        self._loose -= missing
        return 1
