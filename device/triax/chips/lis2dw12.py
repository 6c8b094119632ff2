"""LIS2DW12: 14 bits, up to 1600 Hz, FIFO of 32 sets, SPI or I2C. Facts of sensors.md 7; its sources: ST's lis2dw12_reg [S2DW],
Klipper [KLIS].
"""

from triax import kernels
from triax.chips import LOSS_FLAG, TEMPERATURE_RELATIVE
from triax.chips.part import Part

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_OUT_T_L = const(0x0D)
_WHO_AM_I = const(0x0F)
_CTRL1 = const(0x20)
_CTRL2 = const(0x21)
_CTRL3 = const(0x22)
_CTRL4 = const(0x23)
_CTRL6 = const(0x25)
_OUT_X_L = const(0x28)
_FIFO_CTRL = const(0x2E)
_FIFO_SAMPLES = const(0x2F)
_CTRL7 = const(0x3F)

_ID = const(0x44)
_SOFT_RESET = const(0x40)
_ADD_INC = const(0x04)
_BDU = const(0x08)
_HIGH_PERFORMANCE = const(0x04)  # CTRL1 3:2 = 1
_LOW_NOISE = const(0x04)  # CTRL6
_THRESHOLD_INT1 = const(0x02)  # CTRL4
_INTERRUPTS = const(0x20)  # CTRL7
_CONTINUOUS = const(0xC0)  # FIFO_CTRL 7:5 = 6
_OVERRUN = const(0x40)  # FIFO_SAMPLES
_100_HZ = const(0x50)  # CTRL1
_4_G = const(0x10)  # CTRL6
_ST_POSITIVE = const(0x40)  # CTRL3 7:6 = 1


class Lis2dw12(Part):
    """See triax.chips. The slowest rate exists in low-power mode 1 only: 12 bits."""

    NAME = "lis2dw12"
    BUSES = ("spi", "i2c")
    SPI_MODE = 3  # [KLIS]
    SPI_MAX_HZ = 5_000_000  # what Klipper runs; 10 MHz is unconfirmed
    I2C_ADDRESSES = (0x18, 0x19)
    FIFO_SETS = 32
    COUNT_BITS = 14
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = (1.6, 12.5, 25, 50, 100, 200, 400, 800, 1600)
    LOWPASS = (0, 4, 10, 20)  # 0: ODR / 2
    ODR_TOLERANCE_PPM = 100_000  # in no source
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE
    NEAR_FULL = 4
    SELF_TEST_LOW_MG = (70, 70, 70)  # limits of ST's self-test code for its boards
    SELF_TEST_HIGH_MG = (1500, 1500, 1500)
    SELF_TEST_STILL_MG = 35  # half of the smallest response

    def _prepare(self) -> None:
        self.device.addressing(0, 0x80, 0, 0)
        self._burst = self.device.burst(_OUT_X_L, 6, self.FIFO_SETS)  # the address wraps 0x2D -> 0x28 [KLIS]
        self._temperature = self.device.burst(_OUT_T_L, 2, 1)
        self._justify = 2

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_WHO_AM_I, _ID)

    def reset(self) -> None:
        """See triax.chips."""
        self.device.write(_CTRL2, _SOFT_RESET)
        self._await(_CTRL2, _SOFT_RESET, 50, 100)

    def _derive(self) -> None:
        slow = self.odr_hz < 12.5
        self._justify = 4 if slow else 2
        self.scale_g = 0.000122 * self.range_g * (4 if slow else 1)  # 0.244 mg at 2 g; 0.976 in low-power mode 1
        half = 2048 if slow else 8192
        self.clip_low = -half
        self.clip_high = half - 1

    def _control(self) -> int:
        code = self.ODRS_HZ.index(self.odr_hz) + 1
        return code << 4 | (_HIGH_PERFORMANCE if code > 1 else 0)

    def _registers(self, running: bool):
        return (
            (_CTRL1, self._control() if running else 0),
            (_CTRL2, _ADD_INC | _BDU),
            (_CTRL4, _THRESHOLD_INT1),
            (_CTRL6, self.LOWPASS.index(self._lowpass) << 6 | self.RANGES_G.index(self.range_g) << 4 | _LOW_NOISE),
            (_CTRL7, _INTERRUPTS),
        )

    def _run(self, watermark: int) -> None:
        self._put(_FIFO_CTRL, 0)  # bypass empties
        self._put(_FIFO_CTRL, _CONTINUOUS | watermark)
        self._put(_CTRL1, self._control())

    def _halt(self) -> None:
        self._put(_CTRL1, 0)
        self._put(_FIFO_CTRL, 0)

    def _status(self) -> int:
        samples = self.device.read(_FIFO_SAMPLES)
        if samples & _OVERRUN:
            self._overrun = True
        return samples & 63

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        kernels.take16(self._burst.buffer, at, sets, 6, 2, 0, self._justify, out, to)
        return sets

    def temperature_mc(self) -> int:
        """See triax.chips: 256 codes a degree, 0 at 25 degrees."""
        self._temperature.read(1)
        buf = self._temperature.buffer
        start = self._temperature.start
        code = ((buf[start] | buf[start + 1] << 8) ^ 0x8000) - 0x8000
        return 25000 + code * 125 // 32

    # Self-test at 100 Hz and 4 g, so that deflection and gravity fit

    def _deflection(self):
        setup = [(_CTRL6, _4_G | _LOW_NOISE), (_CTRL1, _100_HZ | _HIGH_PERFORMANCE)]
        return setup, (_CTRL3, _ST_POSITIVE), (_CTRL3, 0)

    def _output(self):
        return self.device.burst(_OUT_X_L, 6, 1), 2, 0, 2, 0.488
