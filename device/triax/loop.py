"""From FIFO to frames, with an account of every sample that is missing.

Samples are numbered since boot. Windows and frames are counted in samples, so their bytes do not depend on how the FIFO was cut
into bursts. A *gap* (overrun, axis break, bus error, self-test, configuration) ends the frame at once; what follows begins its own.
How many samples are missing is known from the clock at the next undisturbed poll: those that its line says had been taken, less
those that are there. Parts whose samples carry a counter make that exact.

    poll -> level -> read_fifo .. -> [gap: close, note] -> fold -> [full: close]
                                        resolved at the next clean poll: skip, on_gap, new segment of the clock

Nothing here allocates between start and stop, except when the bus or the part fails.
"""

from array import array

from triax import frame, kernels
from triax.chips import GAP_OVERRUN, NOT_MEASURED
from triax.clock import ticks_diff
from triax.errors import PartError

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# Gap.Cause
_OVERRUN = const(1)
_BUS = const(2)
_AXIS = const(3)
SELF_TEST = const(4)
CONFIG = const(5)
_SENSOR_RESET = const(6)
_BLOCKED = const(7)

# Bits of FrameFlag.
_FIFO_OVERRUN = const(1)
_BUS_ERROR = const(2)
_AXIS_RESYNC = const(4)
_SATURATED = const(8)
_CLOCK_STEPPED = const(16)
_RATE_SUSPECT = const(32)
_TEST_PATTERN = const(64)

# Flag of the frame after the gap, by cause; those that are no fault have none.
_FLAGS = const((0, _FIFO_OVERRUN, _BUS_ERROR, _AXIS_RESYNC, 0, 0, _BUS_ERROR, _FIFO_OVERRUN))

TEMPERATURE_US = const(1_000_000)  # parts settle no faster; each reading costs bus time
_RETRY_US = const(100_000)  # between attempts to revive a part
SILENCE_US = const(50_000)  # and twenty samples: no part turns on slower
LIMIT = const(0x1FFFFFFF)  # of counts of samples that saturate


class Loop:
    """The loop and its accounts; triax.capture puts it to work. The arguments are Capture's."""

    def __init__(
        self,
        part,
        clock,
        ticks_us,
        device: int,
        boot: int,
        emit,
        on_gap,
        values: int = 10,
        sequence: int = 0,
        first_sample: int = 0,
    ) -> None:
        self.part = part
        self.clock = clock
        self.encoder = frame.FrameEncoder(device, boot, values, sequence, first_sample)
        self.average = None
        self.decimation = 0
        self.test_pattern = False
        self.blocked = False  # set before a call that blocks longer than the FIFO lasts: an overrun after it has that cause
        # Health
        self.samples = bytearray(8)  # read since boot
        self.high_water = 0  # most sets ever found
        self.worst_gap_us = 0  # between two polls
        self.bus_errors = 0
        self.overruns = 0
        self.gaps = 0
        self.temperature_mc = NOT_MEASURED
        self.running = False
        self._ticks_us = ticks_us
        self._emit = emit
        self._on_gap = on_gap
        self._values = values
        self._counts = array("i", range(3 * part.FIFO_SETS))  # of bytes() there would be as many once more for a moment
        self._flags = 0
        self._phase = first_sample % 1000  # of the test pattern
        self._unseen = 0  # samples that the clock has not been told of
        self._pending = 0  # cause of the gap whose length is not yet known
        self._cut = False  # there was a gap since the clock's last observation
        self._since_gap = 0  # samples since then
        self._modulo = -1
        self._guess = 0  # its length and bound at the poll that found it
        self._guess_bound = 0
        self._dropped = 0  # samples of frames too short to be sent, before the pending gap
        self._quota = LIMIT  # samples since the last short frame
        self._last_poll = 0
        self._last_sample = 0  # ticks
        self._temperature_at = 0
        self._tried_at = 0
        self._broken = False  # the part must be revived
        self._raw = None

    # The loop

    def poll(self, now_us: int) -> int:
        """Drain the FIFO. `now_us`: ticks before this call. Returns the samples read; call it well within FIFO_SETS / ODR."""
        late = ticks_diff(now_us, self._last_poll)
        if late > self.worst_gap_us:
            self.worst_gap_us = late
        self._last_poll = now_us
        self.clock.advance(now_us)
        if self._broken and not self._revive(now_us):
            return 0
        try:
            level = self.part.level()
            after = self._ticks_us()
            taken = self._drain(level, now_us, after)
        except OSError:
            self.bus_errors += 1
            self._fail(now_us, _BUS)
            return 0
        if taken:
            self._last_sample = after
            kernels.add(self.samples, 0, 8, taken)
        elif ticks_diff(after, self._last_sample) > self._silence_us:
            self._fail(now_us, _BUS)  # silent: the part may have lost its configuration
        self.blocked = False
        return taken

    def _drain(self, level: int, before: int, after: int) -> int:
        part = self.part
        if level > self.high_water:
            self.high_water = level
        if level and ticks_diff(after, self._temperature_at) >= TEMPERATURE_US:
            self._temperature_at = after
            self.temperature_mc = part.temperature_mc()
        taken = 0
        clean = True
        while True:
            sets = part.read_fifo(self._counts)
            if part.gap:
                clean = False
                self._note(part.gap, level - taken, before, after)
            if not sets:
                break
            if clean and taken == 0 and sets == level:
                if self._cut:
                    self._settle(sets, before, after)
                self.clock.observe(self._unseen + sets, before, after)
                self._unseen = -sets  # `_take` counts them
            taken += sets
            self._take(sets)
        if level == 0 and not self._cut:
            self.clock.observe(self._unseen, before, after)
            self._unseen = 0
        return taken

    def _take(self, sets: int) -> None:
        counts = self._counts
        if self.test_pattern:
            if self._pending:  # the pattern is that of the sample numbers, so they must be known
                self._resolve(self._guess, self._guess_bound)
            kernels.pattern(counts, sets, self._phase)
            self._phase = (self._phase + sets) % 1000
        raw = self._raw
        if raw is not None and raw.left:
            if self._pending:  # a raw frame begins: its first sample must have a number
                self._resolve(self._guess, self._guess_bound)
            while raw.take(counts, sets):
                self._close_raw(raw.at)
        average = self.average
        at = 0
        while at < sets:
            n = average.fold(counts, at, sets - at)
            at += n
            self._unseen += n
            if self._cut:
                self._since_gap += n
            if average.full():
                if self._pending:
                    self._resolve(self._guess, self._guess_bound)
                self._close(0)

    def _close(self, short: int) -> None:
        """Encode the frame and hand it over."""
        average = self.average
        samples = average.samples()
        encoder = self.encoder
        flags = self._flags
        if average.reaches(self.part.clip_low, self.part.clip_high):
            flags |= _SATURATED
        if self.test_pattern:
            flags |= _TEST_PATTERN
        clock = self.clock
        clock.put_time(encoder.buffer, self._unseen - samples + 1)
        if clock.suspect or clock.contradicted:
            flags |= _RATE_SUSPECT
            clock.contradicted = False
        if clock.utc.stepped:
            flags |= _CLOCK_STEPPED
            clock.utc.stepped = False
        length = encoder.encode(average, flags, self.temperature_mc)
        self._emit(encoder.buffer, length)
        encoder.next(samples)
        average.clear()
        self._flags = 0
        self._quota = 0 if short else min(self._quota + samples, LIMIT)

    def _close_raw(self, at: int) -> None:
        """Send the raw frame; its last sample is the one before set `at` of the counts that are next to be folded."""
        raw = self._raw
        if not raw.filled:
            return
        behind = at - raw.filled
        self.clock.put_time(raw.buffer, self._unseen + 1 + behind)
        flags = _TEST_PATTERN if self.test_pattern else 0
        raw.send(self.encoder, self.average.samples() + behind, flags, self.temperature_mc)

    # Gaps

    def _end_frame(self) -> None:
        """A gap: what there is of the frame goes out, at most one short frame in the time of a full one; else it is lost."""
        average = self.average
        samples = average.samples()
        if not samples:
            return
        if self._quota >= average.decimation * average.length:
            self._close(1)
        else:
            average.clear()
            self._dropped += samples

    def _finish(self) -> None:
        """End of capture, or something else is about to stop the samples: the frame goes out."""
        if self._pending:
            self._resolve(self._guess, self._guess_bound)
        if self.average is not None and self.average.samples():
            self._close(1)
        if self._raw is not None:
            self._close_raw(0)

    def _note(self, gap: int, behind: int, before: int, after: int) -> None:
        """Samples are missing after the last one folded; `behind` more were in the FIFO at this poll."""
        cause = _AXIS
        if gap & GAP_OVERRUN:
            cause = _BLOCKED if self.blocked else _OVERRUN
            self.overruns += 1
        self._begin_gap(cause, self.part.gap_modulo)
        self._guess = max(0, self.clock.newest(before, after) - self._unseen - behind)
        self._guess_bound = self.clock.bound
        self._last_sample = after  # it is alive

    def _begin_gap(self, cause: int, modulo: int) -> None:
        if self._pending:
            if not self.average.samples():  # nothing came in between: one gap, of the first cause
                self._modulo = -1
                return
            self._resolve(self._guess, self._guess_bound)
        self._end_frame()
        if self._raw is not None:
            self._close_raw(0)
        self._pending = cause
        self._modulo = modulo
        self._cut = True
        self._since_gap = 0

    def _settle(self, sets: int, before: int, after: int) -> None:
        """A clean poll after a gap: its length is what the clock says was taken and is not here; then a new segment begins."""
        if self._pending:
            missing = self.clock.newest(before, after) - self._unseen - sets
            self._resolve(max(0, missing), self.clock.bound)
        self.clock.restart()
        self._unseen = self._since_gap
        self._cut = False

    def _resolve(self, length: int, bound: int) -> None:
        """The pending gap is `length` +- `bound` samples long."""
        cause = self._pending
        self._pending = 0
        period = self.part.LOSS_PERIOD
        if period and self._modulo >= 0:
            off = (self._modulo - length) % period
            length += off if 2 * off <= period or length < period - off else off - period
            if 2 * bound < period:
                bound = 0
        elif length == 0 and cause in (_OVERRUN, _BLOCKED):
            length = 1  # the part says that at least one is gone
        length = min(length, LIMIT)  # hours: no count of them fits, and the clock knows
        total = length + self._dropped
        self._flags |= _FLAGS[cause]
        self.gaps += 1
        if total:
            self._on_gap(self.encoder.first_sample, total, bound, cause)
            self.encoder.skip(total)
            self._phase = (self._phase + length) % 1000
        self._quota = min(self._quota + total, LIMIT)
        self._unseen += length
        self._dropped = 0

    # Faults

    def _fail(self, now: int, cause: int) -> None:
        self._begin_gap(cause, -1)
        self._guess = 0
        self._guess_bound = LIMIT
        self._broken = True
        self._tried_at = now - _RETRY_US

    def _revive(self, now: int) -> bool:
        if ticks_diff(now, self._tried_at) < _RETRY_US:
            return False
        self._tried_at = now
        try:
            if self.part.recover() and self._pending == _BUS:
                self._pending = _SENSOR_RESET
        except (OSError, PartError):
            self.bus_errors += 1
            return False
        self._broken = False
        self._last_sample = self._ticks_us()
        return True
