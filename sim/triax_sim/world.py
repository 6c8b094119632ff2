"""Virtual time: one clock of whole microseconds that bus transfers and `advance` move, shared by every part in a world.

Nothing here reads the machine's clock, so a run repeats exactly and goes as fast as the processor allows.
Runs on MicroPython too.
"""

__all__ = ["TICKS_PERIOD", "World"]

# MicroPython's ticks_us() counts modulo 2**30 on every port (17.9 minutes): node code must survive the wrap, so the world has it.
TICKS_PERIOD = 1 << 30


class World:
    """A place with one clock. `now_us` is virtual microseconds since the world began, an exact integer that never wraps."""

    def __init__(self, start_us: int = 0) -> None:
        self.now_us = start_us
        self._residue_ns = 0

    def advance(self, us: int) -> int:
        """Let `us` microseconds pass and return the new time. Time never runs backwards: a negative step is a ValueError."""
        if us < 0:
            raise ValueError(f"time cannot go back by {-us} us")
        self.now_us += us
        return self.now_us

    def advance_to(self, when_us: int) -> int:
        """Let time pass until `when_us`; a moment already gone changes nothing. Returns the new time."""
        if when_us > self.now_us:
            self.now_us = when_us
        return self.now_us

    def spend_ns(self, ns: int) -> None:
        """Let nanoseconds pass, carrying what is less than a microsecond: a byte at 10 MHz takes 800 ns and is not rounded away."""
        total = self._residue_ns + ns
        self.now_us += total // 1000
        self._residue_ns = total % 1000

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the world began: what transfers at odd clocks have taken is in it."""
        return self.now_us * 1000 + self._residue_ns

    def ticks_us(self) -> int:
        """Microseconds as MicroPython's time.ticks_us() gives them: modulo 2**30."""
        return self.now_us & (TICKS_PERIOD - 1)

    def ticks_ms(self) -> int:
        """Milliseconds as MicroPython's time.ticks_ms() gives them: modulo 2**30."""
        return (self.now_us // 1000) & (TICKS_PERIOD - 1)

    def sleep_us(self, us: int) -> None:
        """Stand in for time.sleep_us: the world's time passes, the caller's does not."""
        self.advance(us)

    def sleep_ms(self, ms: int) -> None:
        """Stand in for time.sleep_ms."""
        self.advance(ms * 1000)
