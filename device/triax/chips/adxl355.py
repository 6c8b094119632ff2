"""ADXL355: 20 bits, up to 4 kHz, FIFO of 96 axis entries, SPI or I2C. Section numbers are those of sensors.md 5; its sources: no-OS
adxl355 [N355], Linux adxl355_core.c [L355]; and the data sheet, Rev. D [DS355].
"""

from triax import kernels
from triax.chips import LOSS_FLAG, TEMPERATURE_RELATIVE
from triax.chips.entries import EntryPart
from triax.errors import NotTaken

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# 5.2 registers [N355, L355]
_DEVID_AD = const(0x00)
_DEVID_MST = const(0x01)
_PARTID = const(0x02)
_STATUS = const(0x04)  # followed by FIFO_ENTRIES
_TEMP2 = const(0x06)
_XDATA3 = const(0x08)  # three bytes an axis, big endian, left justified
_FIFO_DATA = const(0x11)
_FILTER = const(0x28)
_FIFO_SAMPLES = const(0x29)
_INT_MAP = const(0x2A)
_RANGE = const(0x2C)
_POWER_CTL = const(0x2D)
_SELF_TEST = const(0x2E)
_RESET = const(0x2F)
_SHADOW = const(0x50)  # five registers that a reset must not change (5.1)

_RESET_CODE = const(0x52)
_RESET_US = const(5000)  # [L355]
_RESET_TRIES = const(5)
_OVERRUN = const(0x04)
_ENTRIES = const(96)
_RANGE_BITS = const(0xC0)  # I2C_HS as at reset, INT_POL active high
_STANDBY = const(0x01)
_500_HZ = const(0x03)  # FILTER, no high-pass
_8_G = const(0x03)  # RANGE
_ST1 = const(0x01)  # SELF_TEST: the mode, in which the part does not feel the world; ST2 adds the force [DS355]
_ST2 = const(0x02)
_IS_X = const(0x01)  # marks in the third byte of an entry (5.3): X, and "the FIFO was empty"
_MARKS = const(0x03)


class Adxl355(EntryPart):
    """See triax.chips."""

    NAME = "adxl355"
    BUSES = ("spi", "i2c")
    SPI_MODE = 0
    SPI_MAX_HZ = 4_000_000  # what the reference boards run; 10 MHz is unconfirmed (5.1)
    I2C_ADDRESSES = (0x1D, 0x53)
    FIFO_SETS = 32
    COUNT_BITS = 20
    RANGES_G = (2, 4, 8)
    ODRS_HZ = tuple([4000 / (1 << k) for k in range(10, -1, -1)])
    HIGHPASS = (0, 405, 1611, 6433, 25893, 104822, 420168)  # ODR x 24.7e-4 .. 0.0238e-4 as divisors; low-pass is always ODR / 4
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE
    SET_BYTES = 9
    NEAR_FULL = 4  # 1 ms at 4 kHz
    # Table 10 [DS355], of the low-pass at each rate; the high-pass, given as a figure only, is not counted.
    DELAY_US = (384_310, 189_580, 96_250, 47_590, 24_180, 12_340, 6270, 3260, 1780, 1000, 630)
    SELF_TEST_LOW_MG = (100, 100, 500)  # Table 2 [DS355], at 500 Hz, the same in any range
    SELF_TEST_HIGH_MG = (600, 600, 3000)
    SELF_TEST_STILL_MG = 50  # half of the smallest response
    _FIFO = _FIFO_DATA

    def _begin(self) -> None:
        self.device.addressing(1, 1, 0, 0)
        self._fifo_status = self.device.burst(_STATUS, 2, 1)
        self._temperature = self.device.burst(_TEMP2, 2, 1)

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_DEVID_AD, 0xAD)
        self._identify(_DEVID_MST, 0x1D)
        self._identify(_PARTID, 0xED)

    def reset(self) -> None:
        """See triax.chips. A reset can fail unseen: the shadow registers tell (trap a)."""
        shadow = [self.device.read(_SHADOW + i) for i in range(5)]
        for _ in range(_RESET_TRIES):
            self.device.write(_RESET, _RESET_CODE)
            self.device.sleep_us(_RESET_US)
            if [self.device.read(_SHADOW + i) for i in range(5)] == shadow:
                return
        raise NotTaken("adxl355: the shadow registers differ after each of %d resets: cycle its supply" % _RESET_TRIES)

    def _derive(self) -> None:
        self.scale_g = self.range_g / 512_000  # 5.4: 256,000 a g at 2 g
        self.delay_us = self.DELAY_US[self.ODRS_HZ.index(self.odr_hz)]

    def _registers(self, running: bool):
        rate = 10 - self.ODRS_HZ.index(self.odr_hz)
        return (
            (_POWER_CTL, 0 if running else _STANDBY),  # range and rate only in standby (trap b)
            (_FILTER, self.HIGHPASS.index(self._highpass) << 4 | rate),
            (_RANGE, _RANGE_BITS | self.RANGES_G.index(self.range_g) + 1),
            (_INT_MAP, 0x02),  # FULL_EN1: the watermark (trap c)
        )

    def _run(self, watermark: int) -> None:
        self._put(_FIFO_SAMPLES, 3 * watermark)
        self._put(_POWER_CTL, 0)

    def _halt(self) -> None:
        self._put(_POWER_CTL, _STANDBY)
        self._fifo_status.read(1)
        for _ in range(self._fifo_status.buffer[self._fifo_status.start + 1] & 0x7F):  # no command empties the FIFO
            self._entry.read(1)

    def _status(self) -> int:
        self._fifo_status.read(1)
        buf = self._fifo_status.buffer
        start = self._fifo_status.start
        if buf[start] & _OVERRUN:
            self._overrun = True
        return self._count(buf[start + 1] & 0x7F, _ENTRIES)

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        buf = self._burst.buffer
        leading = kernels.leading
        good = leading(buf, at + 2, sets, 9, _MARKS, _IS_X)
        good = leading(buf, at + 5, good, 9, _MARKS, 0)
        good = leading(buf, at + 8, good, 9, _MARKS, 0)
        kernels.take20(buf, at, good, out, to)
        return good

    def _whole(self, at: int) -> bool:
        buf = self._burst.buffer
        return buf[at + 2] & _MARKS == _IS_X and not buf[at + 5] & _MARKS and not buf[at + 8] & _MARKS

    def temperature_mc(self) -> int:
        """See triax.chips: code 1885 at 25 degrees, -9.05 a degree (5.4)."""
        self._temperature.read(1)
        buf = self._temperature.buffer
        start = self._temperature.start
        code = (buf[start] & 15) << 8 | buf[start + 1]
        return 25000 - (code - 1885) * 20000 // 181

    # Self-test at 500 Hz and 8 g: force minus no force, both in self-test mode

    def self_test(self) -> int:
        """See triax.chips."""
        result = EntryPart.self_test(self)
        self._halt()  # the FIFO cannot be off: it holds what was measured
        return result

    def _deflection(self):
        setup = [(_FILTER, _500_HZ), (_RANGE, _RANGE_BITS | _8_G), (_SELF_TEST, _ST1), (_POWER_CTL, 0)]
        return setup, (_SELF_TEST, _ST1 | _ST2), (_SELF_TEST, _ST1)

    def _output(self):
        return self.device.burst(_XDATA3, 9, 1), 3, 1, 0, 0.25  # the upper 16 of 20 bits at 64,000 a g
