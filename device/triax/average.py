"""What a frame sums up: window sums, extremes and squares of raw counts, in buffers made once."""

from array import array

from triax import kernels
from triax.errors import BadSetting
from triax.kernels_data import DECIMATION, DONE, FILL, MAXIMUM, MINIMUM, NO_MINIMUM, SAMPLES, STATE_WORDS, VALUES


class Average:
    """Sums of `decimation` counts, up to `values` of them an axis, with minimum, maximum and sum of squares of every count.

    `count_bits`: width of the counts. Raises BadSetting where a window of full-scale counts would leave 31 bits.
    """

    def __init__(self, decimation: int, values: int, count_bits: int) -> None:
        longest = 1 << (30 - count_bits)  # 2^30: the small int of a 32-bit MicroPython; squares of 20 bits fit for as long
        if not 1 <= decimation < longest:
            raise BadSetting("decimation of %d-bit counts is 1 to %d, not %d" % (count_bits, longest - 1, decimation))
        if not 1 <= values <= 1000:
            raise BadSetting("a frame has 1 to 1000 values, not %d" % values)
        self.decimation = decimation
        self.length = values  # of a full frame
        self.state = array("i", bytes(4 * STATE_WORDS))
        self.values = array("i", bytes(12 * values))
        self.state[DECIMATION] = decimation
        self.state[VALUES] = values
        self.clear()

    def clear(self) -> None:
        """Start a frame and its first window."""
        state = self.state
        for i in range(FILL, STATE_WORDS):
            state[i] = 0
        for axis in range(3):
            state[MINIMUM + axis] = NO_MINIMUM
            state[MAXIMUM + axis] = -NO_MINIMUM

    def fold(self, counts, at: int, sets: int) -> int:
        """Add sets of `counts`, array("i") of x, y, z, from set `at` on. Stops at a full frame; returns the sets taken."""
        return kernels.fold(counts, at, sets, self.state, self.values)

    def samples(self) -> int:
        """Raw samples in the frame so far."""
        return self.state[SAMPLES]

    def full(self) -> bool:
        return self.state[DONE] == self.length

    def reaches(self, low: int, high: int) -> bool:
        """Whether a count was at `low` or below, or at `high` or above."""
        state = self.state
        for axis in range(3):
            if state[MINIMUM + axis] <= low or state[MAXIMUM + axis] >= high:
                return True
        return False
