"""LIS3DH: 12 bits up to 1344 Hz, 8 bits up to 5376 Hz, FIFO of 32 sets, SPI or I2C. Facts of sensors.md 6; its sources: ST's
lis3dh_reg [S3DH], Klipper [KLIS].
"""

from triax import kernels
from triax.chips import LOSS_FLAG, NOT_MEASURED, TEMPERATURE_NONE
from triax.chips.part import Part

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_WHO_AM_I = const(0x0F)
_CTRL1 = const(0x20)
_CTRL3 = const(0x22)
_CTRL4 = const(0x23)
_CTRL5 = const(0x24)
_OUT_X_L = const(0x28)
_FIFO_CTRL = const(0x2E)
_FIFO_SRC = const(0x2F)

_ID = const(0x33)
_XYZ = const(0x07)
_LOW_POWER = const(0x08)  # CTRL1: 8 bits
_HIGH_RESOLUTION = const(0x08)  # CTRL4: 12 bits
_FIFO_ENABLE = const(0x40)  # CTRL5
_WATERMARK_INT1 = const(0x04)  # CTRL3
_STREAM = const(0x80)  # FIFO_CTRL 7:6 = 2
_OVERRUN = const(0x40)  # FIFO_SRC
_EMPTY = const(0x20)
_100_HZ = const(0x50)  # CTRL1
_4_G = const(0x10)  # CTRL4
_ST_POSITIVE = const(0x02)
_CODES = (1, 2, 3, 4, 5, 6, 7, 9, 8, 9)  # CTRL1 7:4 by ODRS_HZ


class Lis3dh(Part):
    """See triax.chips. The two fastest rates are the low-power mode's: 8 bits.

    Not measured: temperature (its register is in no source read).
    """

    NAME = "lis3dh"
    BUSES = ("spi", "i2c")
    SPI_MODE = 3  # [KLIS]
    SPI_MAX_HZ = 5_000_000  # what Klipper runs; 10 MHz is unconfirmed
    I2C_ADDRESSES = (0x18, 0x19)
    FIFO_SETS = 32
    COUNT_BITS = 12
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = (1, 10, 25, 50, 100, 200, 400, 1344, 1620, 5376)
    ODR_TOLERANCE_PPM = 100_000  # in no source; ST's small parts are trimmed no better than some per cent
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_NONE
    NEAR_FULL = 4
    SELF_TEST_LOW_MG = (68, 68, 68)  # 17 to 360 digits of 4 mg: limits of ST's self-test example
    SELF_TEST_HIGH_MG = (1440, 1440, 1440)
    SELF_TEST_STILL_MG = 34  # half of the smallest response

    def _prepare(self) -> None:
        self.device.addressing(0, 0x80, 0x40, 0x80)
        self._burst = self.device.burst(_OUT_X_L, 6, self.FIFO_SETS)  # the address wraps 0x2D -> 0x28 with the FIFO on [KLIS]
        self._justify = 4

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_WHO_AM_I, _ID)

    def reset(self) -> None:
        """See triax.chips: the part has no reset command, so the registers in use get their reset values."""
        for register in (_FIFO_CTRL, _CTRL5, _CTRL4, _CTRL3):
            self._put(register, 0)
        self._put(_CTRL1, _XYZ)

    def _fast(self) -> bool:
        return self.odr_hz in (1620, 5376)

    def _derive(self) -> None:
        at = self.RANGES_G.index(self.range_g)
        digit_mg = (1, 2, 4, 12)[at]  # 12 at 16 g, not 8
        self._justify = 8 if self._fast() else 4
        self.scale_g = digit_mg * (16 if self._fast() else 1) / 1000
        half = 128 if self._fast() else 2048
        self.clip_low = -half
        self.clip_high = half - 1

    def _control(self) -> int:
        code = _CODES[self.ODRS_HZ.index(self.odr_hz)]
        return code << 4 | (_LOW_POWER if self._fast() else 0) | _XYZ

    def _registers(self, running: bool):
        return (
            (_CTRL1, self._control() if running else _XYZ),
            (_CTRL3, _WATERMARK_INT1),
            (_CTRL4, self.RANGES_G.index(self.range_g) << 4 | (0 if self._fast() else _HIGH_RESOLUTION)),
            (_CTRL5, _FIFO_ENABLE),
        )

    def _run(self, watermark: int) -> None:
        self._put(_FIFO_CTRL, 0)  # bypass empties
        self._put(_FIFO_CTRL, _STREAM | watermark)
        self._put(_CTRL1, self._control())

    def _halt(self) -> None:
        self._put(_CTRL1, _XYZ)
        self._put(_FIFO_CTRL, 0)

    def _status(self) -> int:
        source = self.device.read(_FIFO_SRC)
        if source & _EMPTY and source & 31:
            return self.FIFO_SETS + 1  # empty and not: the bus lies
        if source & _OVERRUN:
            # Full: the count stops at 31 while 32 are there. What came since cannot be told from a loss.
            self._overrun = True
            return self.FIFO_SETS
        return source & 31

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        kernels.take16(self._burst.buffer, at, sets, 6, 2, 0, self._justify, out, to)
        return sets

    def temperature_mc(self) -> int:
        """See triax.chips."""
        return NOT_MEASURED

    # Self-test at 100 Hz and 4 g, so that deflection and gravity fit

    def _deflection(self):
        still = _4_G | _HIGH_RESOLUTION
        return [(_CTRL1, _100_HZ | _XYZ)], (_CTRL4, still | _ST_POSITIVE), (_CTRL4, still)

    def _output(self):
        return self.device.burst(_OUT_X_L, 6, 1), 2, 0, 4, 2.0
