"""What all parts share: the loop that takes sets out of the FIFO, registers that are read back, settings that are checked."""

from array import array

from triax import kernels
from triax.chips import FAIL, GAP_AXIS, GAP_OVERRUN, INCONCLUSIVE, LOSS_FLAG, PASS, TEMPERATURE_NONE
from triax.errors import BadSetting, NotTaken, WrongPart

_EIO = 5


class Part:
    """Base of the parts; `triax.chips` tells what each offers. A part fills in

    _prepare()                  make bursts, tell the device its addressing
    _status()                   poll: returns the sets that wait (before the cut to FIFO_SETS), sets `_overrun`
    _decode(at, sets, out, to)  sets of the burst's buffer from byte `at` on into `out` from index `to` on; how many follow on
    _resync(at, sets)           the set at byte `at` does not follow on: go to the next one that begins a run; how many sets are
                                left. May change `_at`, `gap_modulo`; may clear the FIFO
    _derive()                   what follows from the settings
    _registers(running)         [(register, value), ..] of the configuration in the order of writing; `running`: as they read then
    _run(watermark)             FIFO on, measuring
    _halt()                     standby, FIFO off and empty
    _limits()                   (low, high) of the self-test where they are not the same for all parts
    _deflection()               (setup, one, other): [(register, value), ..] to measure with, and the (register, value) of the two
                                states: the response is the mean in `one` minus that in `other`, which comes first
    _output()                   (burst of the output registers, step, low, shift, mg per count) as then set up; see kernels.take16
    """

    BUSES = ("spi",)
    SPI_MODE = 0
    SPI_MAX_HZ = 10_000_000
    I2C_ADDRESSES = ()
    COUNT_BITS = 16
    LOWPASS = (0,)
    HIGHPASS = (0,)
    ODR_TOLERANCE_PPM = 30_000
    LOSS_DETECTION = LOSS_FLAG
    LOSS_PERIOD = 0
    TEMPERATURE_CLASS = TEMPERATURE_NONE
    SET_BYTES = 6  # of one set in a FIFO burst
    SELF_TEST_LOW_MG = (0, 0, 0)  # x, y, z: least and most response of a good part
    SELF_TEST_HIGH_MG = (0, 0, 0)
    SELF_TEST_SIGNED = False  # whether a source states the sign of the response, too
    SELF_TEST_STILL_MG = 0  # spread over the samples of one mean above which it cannot judge
    SELF_TEST_SAMPLES = 5
    SELF_TEST_STEP_US = 20_000  # from one to the next
    SELF_TEST_SETTLE_US = 100_000
    NEAR_FULL = 8  # sets: what may still come between the poll of the level and the burst

    def __init__(self, device) -> None:
        self.device = device
        self.range_g = 0
        self.odr_hz = 0
        self.scale_g = 0.0
        self.clip_low = -(1 << self.COUNT_BITS - 1)
        self.clip_high = (1 << self.COUNT_BITS - 1) - 1
        self.delay_us = 0
        self.serial = b""
        self.gap = 0
        self.gap_modulo = -1
        self.self_test_mg = (0, 0, 0)
        self.self_test_low_mg = (0, 0, 0)
        self.self_test_high_mg = (0, 0, 0)
        self.self_test_reason = ""
        self._lowpass = 0
        self._highpass = 0
        self._watermark = 1
        self._running = False
        self._testing = False  # registers of the self-test may be in force
        self._burst = None
        self._overrun = False
        self._next_gap = 0  # of the first set of the next `read_fifo`
        self._waiting = 0  # sets that the last poll found and that are still in the FIFO
        self._held = 0  # sets in the burst's buffer, from byte `_at` on
        self._at = 0
        self._prepare()

    # Settings

    def validate(self, range_g: int, odr_hz: float, lowpass: int, highpass: int) -> None:
        """Raise BadSetting where `configure` would; touches nothing."""
        self._choose("range_g", range_g, self.RANGES_G)
        self._choose("odr_hz", odr_hz, self.ODRS_HZ)
        self._choose("lowpass", lowpass, self.LOWPASS)
        self._choose("highpass", highpass, self.HIGHPASS)

    def configure(self, range_g: int, odr_hz: float, lowpass: int = 0, highpass: int = 0) -> None:
        """See triax.chips. The part must be in standby."""
        self.validate(range_g, odr_hz, lowpass, highpass)
        self.assume((range_g, odr_hz, lowpass, highpass))
        self._write_all()

    def settings(self):
        """What `configure` was called with last; None before."""
        return (self.range_g, self.odr_hz, self._lowpass, self._highpass) if self.odr_hz else None

    def assume(self, settings) -> None:
        """Take legal settings for those in force without a word to the part: `recover` writes them."""
        self.range_g, self.odr_hz, self._lowpass, self._highpass = settings
        self._derive()

    def start(self, watermark: int) -> None:
        """See triax.chips."""
        if not self.odr_hz:
            raise BadSetting("configure the %s before start" % self.NAME)
        if not 1 <= watermark < self.FIFO_SETS:
            raise BadSetting("watermark is 1 to %d sets, not %s" % (self.FIFO_SETS - 1, watermark))
        self._watermark = watermark
        self._forget()
        self._run(watermark)
        self._running = True

    def stop(self) -> None:
        """See triax.chips."""
        self._halt()
        self._running = False
        self._forget()

    def expect(self, watermark: int) -> None:
        """See triax.chips."""
        self._watermark = watermark
        self._running = True

    def recover(self) -> bool:
        """See triax.chips. Raises OSError, WrongPart or NotTaken if that does not help: try again later."""
        self.check()
        lost = self._testing
        for register, value in self._registers(self._running):
            if self.device.read(register) != value:
                lost = True
        if lost:
            self.reset()
        else:
            self._halt()
        self._write_all()
        self._testing = False
        self._forget()
        if self._running:
            self._run(self._watermark)
        return lost

    # FIFO

    def level(self) -> int:
        """See triax.chips. OSError if the part says what cannot be: the bus is stuck."""
        self._overrun = False
        sets = self._status()
        if self._overrun:
            self._next_gap |= GAP_OVERRUN
        if sets > self.FIFO_SETS:
            raise OSError(_EIO)
        self._waiting = sets
        return sets

    def read_fifo(self, out) -> int:
        """See triax.chips."""
        self.gap = self._next_gap
        self.gap_modulo = -1
        self._next_gap = 0
        watch = self._waiting > self.FIFO_SETS - self.NEAR_FULL
        burst = self._burst
        unit = self.SET_BYTES
        done = 0
        while True:
            if not self._held:
                if not self._waiting:
                    return done
                self._held = burst.read(self._waiting)
                self._at = burst.start
                self._waiting -= self._held
                if watch:  # it may have overflowed between the poll and the burst: then before the first set of this burst
                    watch = False
                    self._overrun = False
                    self._status()
                    if self._overrun:
                        self.gap |= GAP_OVERRUN
            good = self._decode(self._at, self._held, out, 3 * done)
            done += good
            self._at += good * unit
            self._held -= good
            if self._held:
                if done:  # the gap is before what comes next: the caller must see it first
                    return done
                if not self.gap:
                    self.gap = GAP_AXIS
                self._held = self._resync(self._at, self._held)

    def _forget(self) -> None:
        """The FIFO was emptied."""
        self._waiting = 0
        self._held = 0
        self._next_gap = 0
        self.gap = 0

    # Registers

    def _write_all(self) -> None:
        for register, value in self._registers(False):
            self._put(register, value)

    def _put(self, register: int, value: int) -> None:
        """Write and read back."""
        self.device.write(register, value)
        seen = self.device.read(register)
        if seen != value:
            raise NotTaken("%s: register 0x%02x reads 0x%02x after 0x%02x was written" % (self.NAME, register, seen, value))

    def _identify(self, register: int, wanted: int, mask: int = 0xFF) -> None:
        seen = self.device.read(register)
        if seen & mask != wanted:
            hint = " (nothing answers: wiring, supply, chip select?)" if seen in (0, 0xFF) else ""
            raise WrongPart("register 0x%02x reads 0x%02x, an %s has 0x%02x%s" % (register, seen, self.NAME, wanted, hint))

    def _await(self, register: int, mask: int, step_us: int, tries: int) -> None:
        """Wait until all bits of `mask` read 0."""
        for _ in range(tries):
            self.device.sleep_us(step_us)
            if not self.device.read(register) & mask:
                return
        raise NotTaken("%s: register 0x%02x does not finish in %d us" % (self.NAME, register, step_us * tries))

    def _choose(self, name: str, value, legal) -> None:
        if value not in legal:
            raise BadSetting("%s of the %s is one of %s, not %s" % (name, self.NAME, ", ".join([str(v) for v in legal]), value))

    # Self-test

    def self_test(self) -> int:
        """See triax.chips."""
        self.self_test_reason = ""
        self.self_test_low_mg, self.self_test_high_mg = self._limits()
        setup, one, other = self._deflection()
        registers = [register for register, _ in setup]
        if one[0] not in registers:
            registers.append(one[0])
        kept = [(register, self.device.read(register)) for register in registers]
        means = []
        spreads = []
        self._testing = True
        try:
            for register, value in setup:
                self._put(register, value)
            for register, value in (other, one):
                self._put(register, value)
                self._mean_mg(means, spreads)
        finally:
            for register, value in reversed(kept):
                self._put(register, value)
            self._testing = False
        return self._judge([a - b for a, b in zip(means[1], means[0])], max(spreads))

    def _limits(self):
        """Least and most response of a good part, mg; where nothing tells them, `self_test_reason` says why."""
        return self.SELF_TEST_LOW_MG, self.SELF_TEST_HIGH_MG

    def _mean_mg(self, means, spreads) -> None:
        """Append the mean of some samples and the largest spread of an axis, both mg."""
        data, step, low, shift, scale_mg = self._output()
        samples = self.SELF_TEST_SAMPLES
        counts = array("i", bytes(12 * samples))
        self.device.sleep_us(self.SELF_TEST_SETTLE_US)
        for k in range(samples):
            self.device.sleep_us(self.SELF_TEST_STEP_US)
            data.read(1)
            kernels.take16(data.buffer, data.start, 1, 6, step, low, shift, counts, 3 * k)
        axes = [[counts[3 * k + axis] for k in range(samples)] for axis in range(3)]
        means.append([int(sum(axis) * scale_mg / samples) for axis in axes])
        spreads.append(int(max([max(axis) - min(axis) for axis in axes]) * scale_mg))

    def _judge(self, response, spread: int) -> int:
        self.self_test_mg = tuple(response)
        if spread > self.SELF_TEST_STILL_MG:
            self.self_test_reason = "vibration: %d mg over the samples, above %d mg" % (spread, self.SELF_TEST_STILL_MG)
        if self.self_test_reason:
            return INCONCLUSIVE
        for axis in range(3):
            size = response[axis] if self.SELF_TEST_SIGNED else abs(response[axis])
            if not self.self_test_low_mg[axis] <= size <= self.self_test_high_mg[axis]:
                self.self_test_reason = "%s answers %d mg" % ("xyz"[axis], response[axis])
                return FAIL
        return PASS
