"""UTC as an offset to the time since boot: it can be corrected or stepped, the spacing of samples cannot.

What is known is an interval, `offset` +- `error`, that widens with the error of the board's crystal and narrows with each exchange.
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


class Utc:
    """Offset of UTC to the time since boot.

    `crystal_ppm`: bound on the error of the monotonic clock's rate.
    """

    def __init__(self, crystal_ppm: int) -> None:
        self.stepped = False  # whoever reports it clears it
        self._crystal_ppm = crystal_ppm
        self._offset = bytearray(8)
        self._error = -1  # not known
        self._lag = 0  # what frames still carry of an older offset, to be slewed
        self._age = 0  # since the last exchange, in 2^20 us
        self._age_us = 0

    def known(self) -> bool:
        return self._error >= 0

    def pass_time(self, us: int) -> None:
        """The monotonic clock went on by `us`, below 2^29."""
        self._age_us += us
        if self._age_us > 0xFFFFF:
            self._age += self._age_us >> 20
            self._age_us &= 0xFFFFF

    def error_us(self) -> int:
        """Bound on the error of the offset now."""
        drift = self._crystal_ppm * (self._age + 1)
        error = self._error + drift + (drift >> 4)  # 2^20 us are 1.05 s
        return error if error < _LIMIT else _LIMIT

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
        kernels.add(buf, at, 8, self._lag)
        return self.error_us() + (self._lag if self._lag >= 0 else -self._lag)

    def offset_us(self) -> int:
        """The offset. May allocate."""
        offset = int.from_bytes(self._offset, "little")
        return offset - (1 << 64) if offset >> 63 else offset

    def set(self, offset: int, error_us: int) -> None:
        """An exchange says: the offset is `offset` +- `error_us`. May allocate: this runs once an exchange.

        What is known so far and this must agree: both hold, so their overlap holds, and frames move to its middle by at most
        500 us each. If they do not overlap, somebody stepped the clock: taken at once, `stepped` is set.
        """
        error = min(max(int(error_us), 1), _LIMIT)
        lag = 0
        if self._error >= 0:
            known = self.offset_us()
            known_error = self.error_us()
            low = max(known - known_error, offset - error)
            high = min(known + known_error, offset + error)
            self.stepped = True
            if low <= high:
                offset = (low + high) // 2
                error = (high - low + 1) // 2 + 1
                lag = known + self._lag - offset
                self.stepped = abs(lag) > _STEP_US
        self._lag = 0 if self.stepped else lag
        self._offset[:] = (offset & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        self._error = error
        self._age = 0
        self._age_us = 0
