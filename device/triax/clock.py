"""When a sample was taken: sample count against the monotonic clock, as bounds that hold.

A poll of the FIFO level tells two things about the newest sample, the s-th of its segment: at the poll's end it was there, and at
the poll's begin the next one was not. So with a poll from `before` to `after`

    t(s) <= after                  t(s + 1) >= before

whatever the poll was delayed by: delays only loosen a bound. The true line t(s) = a + s * period lies under all upper bounds and
over all lower ones; their envelopes squeeze it, the period too. A *segment* is a run without a gap; a gap begins a new one, whose
line is free, and only the period's bounds are kept. Within a segment the tightest bounds are kept in _BLOCKS blocks of time that
double in length until they span about a minute.

All small ints: a period is `width` microseconds per `count` samples, with `count` fixed and `width` near 2^27, so a step of 1 is
0.007 ppm. Ticks are microseconds modulo 2^30 (ticks_us of MicroPython); they are extended here, so poll at least every 8 minutes.
UTC is an offset to the time since boot (triax.utc).
"""

from array import array

from triax import kernels
from triax.errors import BadSetting
from triax.frame import RATE_HZ, TIME_ERROR_US, TIME_US
from triax.utc import Utc

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_TICKS = const(0x3FFFFFFF)
_HALF = const(0x20000000)

_BLOCKS = const(16)
_FIRST_BLOCK_US = const(16_384)
_LAST_BLOCK_US = const(4_194_304)  # 16 blocks: 67 s; a rate that drifts by 0.1 ppm/s is off its line by 60 us then
_ENDS = const(5)  # period from the oldest against the newest blocks: they see it best
_REBASE_US = const(268_435_456)
_WIDTH_US = const(134_217_728)
_WIDE = const(8)  # period at start: nominal +- 1/8, so that a rate out of tolerance is seen and not cut off
_STRANGE = const(3)  # polls in a row that contradict the line: one is a wrong level (a flipped bit), more are a new line
_UNKNOWN_US = const(1_000_000)


def ticks_diff(later: int, earlier: int) -> int:
    """Microseconds from one tick to another, within +- 8.9 minutes."""
    return ((later - earlier + _HALF) & _TICKS) - _HALF


class SampleClock:
    """Time since boot of samples, their rate, and UTC.

    `ticks`: now, the zero of time since boot. `crystal_ppm`: bound on the error of the monotonic clock's rate (a board's crystal:
    20); it widens the error of UTC between two settings.
    """

    def __init__(self, ticks: int, crystal_ppm: int = 20) -> None:
        self.suspect = False  # the rate is out of tolerance
        self.contradicted = False  # polls contradicted the line, a new one was begun; whoever reports it clears it
        self.utc = Utc(crystal_ppm)
        self.bound = 0  # of the last `newest`
        self._crystal_ppm = crystal_ppm
        self._ticks = ticks & _TICKS
        self._u = 0  # microseconds since `_origin`
        self._origin = bytearray(8)  # since boot
        self._s = 0  # samples of the segment at the last observation
        self._upper_s = array("i", bytes(4 * _BLOCKS))
        self._upper_u = array("i", bytes(4 * _BLOCKS))
        self._lower_s = array("i", bytes(4 * _BLOCKS))
        self._lower_u = array("i", bytes(4 * _BLOCKS))
        self._blocks = 0
        self._block_us = _FIRST_BLOCK_US
        self._block_begin = 0
        self._strange = 0
        self._low = 0  # results of `_bounds`
        self._high = 0
        self._count = 0  # 0: not configured
        self._width = 0

    def configure(self, odr_hz: float, tolerance_ppm: int, delay_us: int, ahead: int = 0) -> None:
        """A new nominal rate. `delay_us`: of the part's filters. The line goes on from the sample `ahead` of the last observed."""
        if not 1e-3 <= odr_hz <= 1e6:
            raise BadSetting("odr_hz is 0.001 to 1000000, not %s" % odr_hz)
        known = self._blocks
        if known:
            self._bounds(ahead)
        self._count = max(1, int(odr_hz * _WIDTH_US / 1e6 + 0.5))
        self._nominal = int(self._count * 1e6 / odr_hz + 0.5)
        self._tolerance = int(self._nominal * tolerance_ppm / 1e6)
        self._width_low = self._nominal - self._nominal // _WIDE
        self._width_high = self._nominal + self._nominal // _WIDE
        self._width = self._nominal
        self._ppm = self._nominal // 1_000_000
        self._delay_us = delay_us
        # Rate as a float: mantissa = count * 10^6 * 2^shift / width with 23 or 24 bits at any rate near the nominal.
        self._shift = 0
        while odr_hz * (1 << self._shift) < 11_000_000:
            self._shift += 1
        self.restart()
        if known:
            self._upper_s[0] = 0
            self._upper_u[0] = self._high
            self._lower_s[0] = 0
            self._lower_u[0] = self._low
            self._blocks = 1
            self._block_begin = self._high

    def restart(self) -> None:
        """A gap: the next observation begins a segment. The period's bounds stay, a little wider for what it did meanwhile."""
        self._s = 0
        self._blocks = 0
        self._block_us = _FIRST_BLOCK_US
        self._strange = 0
        self._widen(2)

    def _widen(self, ppm: int) -> None:
        self._width_low = max(self._width_low - ppm * self._ppm, self._nominal - self._nominal // _WIDE)
        self._width_high = min(self._width_high + ppm * self._ppm, self._nominal + self._nominal // _WIDE)

    def advance(self, ticks: int) -> int:
        """Extend the clock to `ticks`; returns microseconds since `_origin`. Call it at least every 8 minutes."""
        step = ticks_diff(ticks, self._ticks)
        if step > 0:
            self._ticks = ticks & _TICKS
            self._u += step
            self.utc.pass_time(step)
            if self._u > _REBASE_US:
                self._rebase()
            return self._u
        return self._u + step

    def _rebase(self) -> None:
        """Move the origin to the oldest bound, so that all stays small."""
        if self._blocks:
            if self._upper_u[0] < _REBASE_US >> 1:
                self._extend()
            ds = self._upper_s[0]
            du = self._upper_u[0]
        else:
            ds = self._s
            du = self._u
        for k in range(self._blocks):
            self._upper_s[k] -= ds
            self._upper_u[k] -= du
            self._lower_s[k] -= ds
            self._lower_u[k] -= du
        self._s -= ds
        self._u -= du
        self._block_begin -= du
        kernels.add(self._origin, 0, 8, du)

    def _extend(self) -> None:
        """No sample was seen for minutes: the line is kept as the bounds of a sample that it says is due about now."""
        ahead = kernels.muldiv(self._u - self._upper_u[0], self._count, self._width) + self._upper_s[0] - self._s
        self._bounds(ahead)
        self._upper_s[0] = self._lower_s[0] = self._s + ahead
        self._upper_u[0] = self._high
        self._lower_u[0] = self._low
        self._blocks = 1
        self._block_begin = self._high

    # The line

    def observe(self, sets: int, before: int, after: int) -> None:
        """A poll between these ticks found that `sets` more samples of this segment had been taken."""
        upper = self.advance(after) + 1  # ticks are cut to whole microseconds
        lower = upper - 1 - ticks_diff(after, before)
        self._s += sets
        s = self._s
        if s <= 0:
            return
        if not self._blocks:
            self._open(0, s, upper, lower)
            return
        k = self._blocks - 1
        count = self._count
        past = kernels.muldiv(s + 1 - self._upper_s[k], self._width_high, count) + self._upper_u[k] + 2
        early = kernels.muldiv(s - self._lower_s[k] if s > self._lower_s[k] else 0, self._width_low, count) + self._lower_u[k] - 2
        if lower > past or (upper < early and s > self._lower_s[k]):
            self._contradiction(s, upper, lower)
            return
        self._strange = 0
        if upper - self._block_begin > self._block_us:
            self._next_block(s, upper, lower)
            return
        if upper - self._upper_u[k] <= kernels.muldiv(s - self._upper_s[k], self._width, count):
            self._upper_s[k] = s
            self._upper_u[k] = upper
        if lower - self._lower_u[k] >= kernels.muldiv(s + 1 - self._lower_s[k], self._width, count):
            self._lower_s[k] = s + 1
            self._lower_u[k] = lower
        if k < 3:
            self._fit()  # at the start each poll tells much

    def _contradiction(self, s: int, upper: int, lower: int) -> None:
        self._strange += 1
        if self._strange < _STRANGE:
            return
        self.contradicted = True
        self._strange = 0
        self._block_us = _FIRST_BLOCK_US
        self._widen(300)
        self._open(0, s, upper, lower)

    def _open(self, k: int, s: int, upper: int, lower: int) -> None:
        self._upper_s[k] = s
        self._upper_u[k] = upper
        self._lower_s[k] = s + 1
        self._lower_u[k] = lower
        self._blocks = k + 1
        self._block_begin = upper

    def _next_block(self, s: int, upper: int, lower: int) -> None:
        self._fit()
        if self._blocks == _BLOCKS:
            if self._block_us < _LAST_BLOCK_US:
                self._block_us *= 2
                for k in range(_BLOCKS // 2):
                    self._merge(2 * k, k)
                self._blocks = _BLOCKS // 2
            else:
                for k in range(_BLOCKS - 1):
                    self._copy(self._upper_s, self._upper_u, k + 1, k)
                    self._copy(self._lower_s, self._lower_u, k + 1, k)
                self._blocks = _BLOCKS - 1
        self._open(self._blocks, s, upper, lower)

    def _copy(self, samples, times, source: int, to: int) -> None:
        samples[to] = samples[source]
        times[to] = times[source]

    def _merge(self, k: int, to: int) -> None:
        """The tighter bounds of blocks k and k + 1, under the present period."""
        ds = self._upper_s[k + 1] - self._upper_s[k]
        du = self._upper_u[k + 1] - self._upper_u[k]
        self._copy(self._upper_s, self._upper_u, k + 1 if du <= kernels.muldiv(ds, self._width, self._count) else k, to)
        ds = self._lower_s[k + 1] - self._lower_s[k]
        du = self._lower_u[k + 1] - self._lower_u[k]
        self._copy(self._lower_s, self._lower_u, k + 1 if du >= kernels.muldiv(ds, self._width, self._count) else k, to)

    def _slope(self, ds: int, du: int) -> int:
        """`width` of `du` microseconds in `ds` samples; 0 where they say nothing (too short for their jitter)."""
        straight = kernels.muldiv(ds, self._width, self._count)
        rest = du - straight
        if not -straight < 4 * rest < straight:
            return 0
        if rest >= 0:
            return self._width + kernels.muldiv(rest, self._count, ds)
        return self._width - kernels.muldiv(-rest, self._count, ds)

    def _fit(self) -> None:
        """Bounds of the period: an upper bound of a late sample over a lower bound of an early one, and the other way round."""
        blocks = self._blocks
        self._widen(1)
        low = self._width_low
        high = self._width_high
        for i in range(blocks if blocks < _ENDS else _ENDS):
            for k in range(max(i + 1, blocks - _ENDS), blocks):
                ds = self._upper_s[k] - self._lower_s[i]
                if ds > 0:
                    width = self._slope(ds, self._upper_u[k] - self._lower_u[i] + 1)
                    if width and width < high:
                        high = width + 1
                ds = self._lower_s[k] - self._upper_s[i]
                if ds > 0:
                    width = self._slope(ds, self._lower_u[k] - self._upper_u[i] - 1)
                    if width > low:
                        low = width - 1
        if low > high:  # no line fits: the rate has changed
            self.contradicted = True
            self._copy(self._upper_s, self._upper_u, blocks - 1, 0)
            self._copy(self._lower_s, self._lower_u, blocks - 1, 0)
            self._blocks = 1
            self._block_begin = self._upper_u[0]
            self._block_us = _FIRST_BLOCK_US
            self._widen(300)
        else:
            self._width_low = low
            self._width_high = high
            self.suspect = high < self._nominal - self._tolerance or low > self._nominal + self._tolerance
        self._width = (self._width_low + self._width_high) >> 1

    def _bounds(self, ahead: int) -> None:
        """Bounds of the time of the sample `ahead` of the last observed, in `_low` and `_high`, microseconds since `_origin`."""
        count = self._count
        q = self._s + ahead
        muldiv = kernels.muldiv
        low = -_HALF
        high = _HALF
        for k in range(self._blocks):
            d = q - self._upper_s[k]
            t = self._upper_u[k]
            t += muldiv(d, self._width_high, count) + 1 if d >= 0 else -muldiv(-d, self._width_low, count)
            if t < high:
                high = t
            d = q - self._lower_s[k]
            t = self._lower_u[k]
            t += muldiv(d, self._width_low, count) if d >= 0 else -muldiv(-d, self._width_high, count) - 1
            if t > low:
                low = t
        if not self._blocks:  # never observed
            low = self._u - _UNKNOWN_US
            high = self._u + _UNKNOWN_US
        if low > high:  # by a hair, from rounding, or just before `_fit` finds that no line fits
            low, high = high, low
        self._low = low
        self._high = high

    def newest(self, before: int, after: int) -> int:
        """How many samples beyond the last observed one had been taken at a poll between these ticks; `bound`: +- of that.

        Uses the line of the last segment: call it before `restart`.
        """
        upper = self.advance(after) + 1
        lower = upper - 1 - ticks_diff(after, before)
        ahead = self._upper_s[self._blocks - 1] - self._s if self._blocks else 0
        self._bounds(ahead)
        most = upper - self._low
        least = lower - self._high
        most = kernels.muldiv(most, self._count, self._width_low) if most > 0 else 0
        least = kernels.muldiv(least, self._count, self._width_high) if least > 0 else 0
        self.bound = (most - least + 1) >> 1
        return ahead + ((most + least) >> 1)

    def put_time(self, buf, ahead: int) -> None:
        """Time, its error and the rate into the header of a frame whose first sample is `ahead` of the last observed (< 0)."""
        self._bounds(ahead)
        buf[TIME_US : TIME_US + 8] = self._origin
        kernels.add(buf, TIME_US, 8, ((self._low + self._high) >> 1) - self._delay_us)
        if self.utc.known():
            error = self.utc.apply(buf, TIME_US)
            kernels.put32(buf, TIME_ERROR_US, error + ((self._high - self._low + 1) >> 1) + 1)
        else:
            kernels.put32(buf, TIME_ERROR_US, -1)
        self._put_rate(buf)

    def _put_rate(self, buf) -> None:
        """count * 10^6 / width as an IEEE 754 single."""
        shift = self._shift
        left = shift - 9 if shift > 9 else 0
        mantissa = kernels.muldiv(self._count << left, 1_000_000 << shift - left, self._width)
        while mantissa < 0x800000:
            mantissa <<= 1
            shift += 1
        while mantissa > 0xFFFFFF:
            mantissa >>= 1
            shift -= 1
        exponent = 150 - shift
        buf[RATE_HZ] = mantissa & 255
        buf[RATE_HZ + 1] = mantissa >> 8 & 255
        buf[RATE_HZ + 2] = mantissa >> 16 & 127 | (exponent & 1) << 7
        buf[RATE_HZ + 3] = exponent >> 1

    def rate_mhz(self) -> int:
        """Measured rate in thousandths of a hertz. May allocate."""
        return self._count * 1_000_000_000 // self._width

    # UTC. These may allocate: they run once an exchange with a time server.

    def set_utc(self, ticks: int, utc_us: int, error_us: int) -> None:
        """UTC was `utc_us` +- `error_us` at `ticks`. See Utc.set."""
        self.utc.set(utc_us - self.since_boot_us(ticks), error_us)

    def fix(self):
        """(offset_us, error_us): time since boot + offset is UTC, for all frames of this boot that had no UTC."""
        since_boot = int.from_bytes(self._origin, "little") + self._u
        return self.utc.offset_us(), self.utc.error_us() + since_boot * self._crystal_ppm // 1_000_000 + 1

    def since_boot_us(self, ticks: int) -> int:
        """Microseconds since boot at `ticks`. May allocate."""
        u = self.advance(ticks)
        return int.from_bytes(self._origin, "little") + u
