"""ADXL345: 13 bits, up to 3200 Hz, FIFO of 32 sets read one at a time, SPI or I2C. Section numbers are those of sensors.md 4; its
sources: Linux adxl345_core.c [L345], data sheet Rev. E [DS345], Klipper [K345].

On I2C the data sheet's limit is 800 Hz at 400 kHz, 200 Hz at 100 kHz (4.1).
"""

from triax import kernels
from triax.chips import LOSS_FLAG, NOT_MEASURED, TEMPERATURE_NONE
from triax.chips.part import Part

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# 4.2 registers [N345, L345]
_DEVID = const(0x00)
_BW_RATE = const(0x2C)
_POWER_CTL = const(0x2D)
_INT_ENABLE = const(0x2E)
_INT_MAP = const(0x2F)
_INT_SOURCE = const(0x30)
_DATA_FORMAT = const(0x31)
_DATAX0 = const(0x32)
_FIFO_CTL = const(0x38)
_FIFO_STATUS = const(0x39)

_MEASURE = const(0x08)
_WATERMARK = const(0x02)
_OVERRUN = const(0x01)
_FULL_RES = const(0x08)
_STREAM = const(0x80)
_100_HZ = const(0x0A)  # BW_RATE, also at reset; normal power
_16_G = const(0x03)  # DATA_FORMAT
_SELF_TEST = const(0x80)
_POP_US = const(5)  # between the end of a data read and the next read of FIFO or its status (4.3); I2C is slow enough


class Adxl345(Part):
    """See triax.chips."""

    NAME = "adxl345"
    BUSES = ("spi", "i2c")
    SPI_MODE = 3
    SPI_MAX_HZ = 5_000_000
    I2C_ADDRESSES = (0x53, 0x1D)
    FIFO_SETS = 32
    COUNT_BITS = 13
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = tuple([3200 / (1 << k) for k in range(15, -1, -1)])
    ODR_TOLERANCE_PPM = 50_000  # users measured up to -3.5 % (4.5)
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_NONE
    NEAR_FULL = 4  # 1.2 ms at 3200 Hz
    # Table 15 (2.5 V, full resolution) times Table 14: the response grows with the square of the supply, which the driver does not
    # know, so these are the least at 2.0 V and the most at 3.6 V. At 3.3 V a good part answers at least 346, -346 and 430 mg.
    SELF_TEST_LOW_MG = (125, -4451, 234)
    SELF_TEST_HIGH_MG = (4451, -125, 5776)
    SELF_TEST_SIGNED = True
    SELF_TEST_STILL_MG = 62  # half of the smallest response
    SELF_TEST_SAMPLES = 10  # "Using Self-Test" [DS345]: 0.1 s of data, after about four samples to settle
    SELF_TEST_STEP_US = 10_000

    def _prepare(self) -> None:
        self.device.addressing(0, 0x80, 0x40, 0)
        self._burst = self.device.burst(_DATAX0, 6, 1)  # one read of the six pops one set
        self._pop_us = _POP_US if self.device.KIND == "spi" else 0

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_DEVID, 0xE5)

    def reset(self) -> None:
        """See triax.chips: the part has no reset command, so the registers in use get their reset values."""
        self._put(_POWER_CTL, 0)
        for register in (_INT_ENABLE, _INT_MAP, _DATA_FORMAT, _FIFO_CTL):
            self._put(register, 0)
        self._put(_BW_RATE, _100_HZ)

    def _derive(self) -> None:
        self.scale_g = 1 / 256  # FULL_RES at any range (4.4), +- 10 %
        half = 256 * self.range_g
        self.clip_low = -half
        # At 1600 and 3200 Hz the last bit is always 0 (trap b).
        self.clip_high = half - (2 if self.odr_hz >= 1600 else 1)

    def _registers(self, running: bool):
        return (
            (_POWER_CTL, _MEASURE if running else 0),  # configured in standby (4.3)
            (_BW_RATE, self.ODRS_HZ.index(self.odr_hz)),
            (_DATA_FORMAT, _FULL_RES | self.RANGES_G.index(self.range_g)),
            (_INT_MAP, 0),  # before INT_ENABLE (trap i)
            (_INT_ENABLE, _WATERMARK),
        )

    def _run(self, watermark: int) -> None:
        self._put(_FIFO_CTL, 0)  # bypass empties
        self._put(_FIFO_CTL, _STREAM | watermark)
        self._put(_POWER_CTL, _MEASURE)

    def _halt(self) -> None:
        self._put(_POWER_CTL, 0)
        self._put(_FIFO_CTL, 0)

    def _status(self) -> int:
        if self.device.read(_INT_SOURCE) & _OVERRUN:
            self._overrun = True
        return self.device.read(_FIFO_STATUS) & 0x3F

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        kernels.take16(self._burst.buffer, at, sets, 6, 2, 0, 0, out, to)
        if self._pop_us:
            self.device.sleep_us(self._pop_us)
        return sets

    def temperature_mc(self) -> int:
        """See triax.chips."""
        return NOT_MEASURED

    # Self-test at 100 Hz, full resolution and 16 g, as [DS345] recommends; of DATA_FORMAT only its bit may change while measuring

    def _deflection(self):
        still = _FULL_RES | _16_G
        setup = [(_BW_RATE, _100_HZ), (_DATA_FORMAT, still), (_POWER_CTL, _MEASURE)]
        return setup, (_DATA_FORMAT, still | _SELF_TEST), (_DATA_FORMAT, still)

    def _output(self):
        return self._burst, 2, 0, 0, 1000 / 256
