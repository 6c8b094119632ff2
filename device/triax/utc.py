"""UTC as an offset to the time since boot: it can be corrected or stepped, the spacing of samples cannot.

What is known is an interval, `offset` +- `error`, and another of the rate at which the offset moves: the crystal's error. Each
exchange narrows both: the offset must lie in every interval there was, and two of them bound the rate in between. All bounds hold
whatever the delays were, so the truth never leaves them; where delays vary, the least of each way is what remains.

A rate may wander: by less than _WANDER_PPM within half an hour, for a matter of temperature as a crystal is (an AT cut has at most
0.3 ppm/K between 10 and 50 C). One that moves more comes to contradict the exchanges, and is learned anew.
"""

from triax import kernels

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_LIMIT = const(0x20000000)
_SLEW_US = const(500)  # most that a correction moves one frame: the spacing of frames stays right within 1 ms
_STEP_US = const(2_000_000)  # a correction above this would take more than 7 minutes of frames: made at once
_STRAY_US = const(20_000)  # so far can a crystal stray that wanders more than it may; a contradiction above this is a step

_WANDER_PPM = const(2)
_PPM = const(1074)  # rates are parts of 2^30: 1 ppm is 1073.7
_UNIT = const(16384)  # a rate of 1 for this many units of age (2^16 us) is 1 us
_SPAN = const(15_625)  # 1024 s of such units: age of the oldest exchange that bounds the rate, and how long a rate is trusted
_FAR = const(0x1000000)  # 12.7 days
_KEPT = const(16)


class Utc:
    """Offset of UTC to the time since boot.

    `crystal_ppm`: bound on the error of the monotonic clock's rate.
    """

    def __init__(self, crystal_ppm: int) -> None:
        self.stepped = False  # whoever reports it clears it
        self._crystal = crystal_ppm * _PPM
        self._offset = bytearray(8)  # at the last exchange
        self._error = -1  # not known
        self._rate = 0
        self._rate_error = self._crystal
        self._lag = 0  # what frames still carry of an older offset, to be slewed
        self._age = 0  # since the last exchange, in 2^16 us
        self._age_us = 0
        self._kept = []  # the last exchanges, as [microseconds ago, lowest offset, highest offset]

    def known(self) -> bool:
        return self._error >= 0

    def pass_time(self, us: int) -> None:
        """The monotonic clock went on by `us`, below 2^29."""
        self._age_us += us
        if self._age_us > 0xFFFF:
            if self._age < _LIMIT:  # a year
                self._age += self._age_us >> 16
            self._age_us &= 0xFFFF

    def error_us(self) -> int:
        """Bound on the error of the offset now."""
        age = self._age + 1
        error = self._error + (self._crystal >> 14) + 2
        if age > _SPAN:
            if age > _FAR:
                return _LIMIT
            error += kernels.muldiv(age - _SPAN, self._crystal, _UNIT)
            age = _SPAN
        error += kernels.muldiv(age, self._rate_error, _UNIT)
        return error if error < _LIMIT else _LIMIT

    def _drift(self) -> int:
        """How far the offset has moved since the last exchange."""
        age = self._age if self._age < _SPAN else _SPAN
        if self._rate >= 0:
            return kernels.muldiv(age, self._rate, _UNIT)
        return -kernels.muldiv(age, -self._rate, _UNIT)

    def apply(self, buf, at: int) -> int:
        """Make the time since boot at `at` UTC, for the next frame; returns the bound on the error that this adds."""
        step = self._lag >> 4  # a sixteenth a frame: fast while far, unseen when near
        if step > _SLEW_US:
            step = _SLEW_US
        elif step < -_SLEW_US:
            step = -_SLEW_US
        elif step == 0:
            step = self._lag
        self._lag -= step
        kernels.add_bytes(buf, at, 8, self._offset)
        kernels.add(buf, at, 8, self._drift() + self._lag)
        return self.error_us() + (self._lag if self._lag >= 0 else -self._lag)

    # These run once an exchange and may allocate.

    def offset_us(self) -> int:
        """The offset now."""
        offset = int.from_bytes(self._offset, "little")
        return (offset - (1 << 64) if offset >> 63 else offset) + self._drift()

    def set(self, offset: int, error_us: int) -> None:
        """An exchange says: the offset is `offset` +- `error_us`.

        What is known so far and this must agree: both hold, so their overlap holds, and frames move to its middle by at most
        500 us each. If they are far from overlapping, somebody stepped the clock: taken at once, `stepped` is set.
        """
        error = min(max(int(error_us), 1), _LIMIT)
        low = offset - error
        high = offset + error
        self.stepped = False
        if self._error >= 0:
            was = self.offset_us()
            known = self._known(low, high)
            low = max(low, was - known)
            high = min(high, was + known)
            self._lag += was - (low + high) // 2
            self.stepped = abs(self._lag) > (_STEP_US if known < _LIMIT else _STRAY_US)
        if self.stepped:
            self._lag = 0
        self._learn(low, high, (self._age << 16) + self._age_us)
        self._offset[:] = ((low + high) // 2 & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        self._error = (high - low + 1) // 2 + 1
        self._age = 0
        self._age_us = 0

    def _known(self, low: int, high: int) -> int:
        """Bound on the error of what is known that lets `low` to `high` be true: with the learned rate, else with any rate of this
        crystal, else none."""
        was = self.offset_us()
        any_rate = self._error + ((self._age + 1) * (self._crystal + abs(self._rate)) >> 14) + 2
        for error in (self.error_us(), any_rate):
            if max(low, was - error) <= min(high, was + error):
                return error
            self._kept = []
        return 1 << 62

    def _learn(self, low: int, high: int, passed_us: int) -> None:
        """Bound the rate by this exchange, `passed_us` after the last one, and those that are kept."""
        least = -self._crystal
        most = self._crystal
        for one in self._kept:
            one[0] += passed_us
        self._kept = [one for one in self._kept if one[0] < _SPAN << 16]
        for ago_us, lowest, highest in self._kept:
            if ago_us:
                least = max(least, ((low - highest) << 30) // ago_us - _WANDER_PPM * _PPM)
                most = min(most, -(((lowest - high) << 30) // ago_us) + _WANDER_PPM * _PPM)
        if least > most:
            self._kept.clear()
            least = -self._crystal
            most = self._crystal
        self._kept = self._kept[1 - _KEPT :] + [[0, low, high]]
        self._rate = (least + most) // 2
        self._rate_error = (most - least + 1) // 2 + 1
