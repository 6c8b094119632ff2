"""ICM-42688-P: up to 32 kHz, FIFO of 2048 bytes in packets with a header, SPI or I2C. The gyroscope stays off. Section numbers are
those of sensors.md 3; its sources: Zephyr icm4268x [Z426], Linux inv_icm42600 [L426], PX4, data sheet excerpts [DS426]; and the
whole data sheet DS-000347 1.8 [DS347], InvenSense's self-test for this family, Ixm42xxxSelfTest.c [IST].
"""

from triax import kernels
from triax.chips import LOSS_FLAG, TEMPERATURE_RELATIVE
from triax.chips.part import Part
from triax.errors import NotTaken

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# 3.2 registers of bank 0 [Z426, L426]
_DEVICE_CONFIG = const(0x11)
_FIFO_CONFIG = const(0x16)
_TEMP_DATA1 = const(0x1D)
_ACCEL_DATA_X1 = const(0x1F)
_INT_STATUS = const(0x2D)  # followed by FIFO_COUNT, high byte first at reset
_FIFO_DATA = const(0x30)
_SIGNAL_PATH_RESET = const(0x4B)
_PWR_MGMT0 = const(0x4E)
_ACCEL_CONFIG0 = const(0x50)
_GYRO_ACCEL_CONFIG0 = const(0x52)
_ACCEL_CONFIG1 = const(0x53)
_FIFO_CONFIG1 = const(0x5F)
_FIFO_CONFIG2 = const(0x60)
_FIFO_CONFIG3 = const(0x61)
_INT_CONFIG1 = const(0x64)
_INT_SOURCE0 = const(0x65)
_SELF_TEST_CONFIG = const(0x70)
_WHO_AM_I = const(0x75)
_REG_BANK_SEL = const(0x76)
_XA_ST_DATA = const(0x3B)  # bank 2, followed by Y, Z: factory codes of the self-test [DS347 16.4]

_ID = const(0x47)
_SOFT_RESET = const(0x01)
_FULL = const(0x02)  # INT_STATUS
_STREAM = const(0x40)
_ACCELERATION = const(0x01)  # FIFO_CONFIG1: packets of 8 bytes (3.4)
_WATERMARK_LEVEL = const(0x20)  # interrupt while at or above the watermark
_THRESHOLD = const(0x04)  # INT_SOURCE0
_FLUSH = const(0x02)
_LOW_NOISE = const(3)
_LOW_POWER = const(2)
_PWR_US = const(300)  # no register write for 200 us after PWR_MGMT0 [DS426, L426]
_HEADER_BITS = const(0xF0)  # message, acceleration, gyroscope, 20 bits; the rest may change with rate and timestamps
_HEADER = const(0x40)
_BYTES = const(2048)
_FILTER_BW = const(0x11)  # acceleration (7:4) and gyroscope: a quarter of the rate or of 400 Hz, as at reset [DS347 14.40]
_FILTER_ORDER = const(0x0D)  # second order, as at reset [DS347 14.41]
_TENTH_BW = const(0x41)  # a tenth
_THIRD_ORDER = const(0x15)
_2_G_1_KHZ = const(0x66)
_ST_XYZ = const(0x78)  # and its supply

# 3.3: code of ACCEL_CONFIG0 by rate, slowest first
_CODES = (14, 13, 12, 11, 10, 9, 8, 7, 15, 6, 5, 4, 3, 2, 1)


class Icm42688p(Part):
    """See triax.chips. A header that is not acceleration means a FIFO out of step: it is flushed (trap e)."""

    NAME = "icm42688p"
    BUSES = ("spi", "i2c")
    SPI_MODE = 3
    SPI_MAX_HZ = 24_000_000
    I2C_ADDRESSES = (0x68, 0x69)  # unconfirmed
    FIFO_SETS = 256
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = (1.5625, 3.125, 6.25, 12.5, 25, 50, 100, 200, 500, 1000, 2000, 4000, 8000, 16000, 32000)
    ODR_TOLERANCE_PPM = 20_000  # about 1 %, unconfirmed (3.5)
    LOSS_DETECTION = LOSS_FLAG  # FIFO_LOST_PKT counts, but no source says from when on
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE
    SET_BYTES = 8
    NEAR_FULL = 16  # 0.5 ms at 32 kHz
    # Of the filter above at each rate [DS347 5.5], 0: not stated for low power. The anti-alias filter before it is not counted.
    DELAY_US = (0, 0, 0, 5100, 5100, 5100, 5100, 5100, 4100, 2100, 800, 400, 200, 100, 100)
    SELF_TEST_LOW_MG = (50, 50, 50)  # where an axis has no factory code [IST]
    SELF_TEST_HIGH_MG = (1200, 1200, 1200)
    SELF_TEST_STILL_MG = 25  # half of the smallest response
    SELF_TEST_SAMPLES = 20  # over 0.2 s, as [IST]
    SELF_TEST_STEP_US = 10_000

    def _prepare(self) -> None:
        self.device.addressing(0, 0x80, 0, 0)
        self._burst = self.device.burst(_FIFO_DATA, 8, self.FIFO_SETS)
        self._fifo_status = self.device.burst(_INT_STATUS, 3, 1)
        self._temperature = self.device.burst(_TEMP_DATA1, 2, 1)

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_WHO_AM_I, _ID)

    def reset(self) -> None:
        """See triax.chips."""
        self.device.write(_REG_BANK_SEL, 0)
        self.device.write(_DEVICE_CONFIG, _SOFT_RESET)
        self.device.sleep_us(1000)
        if self.device.read(_DEVICE_CONFIG) & _SOFT_RESET:
            raise NotTaken("icm42688p: the reset does not finish")
        self._fifo_status.read(1)  # the first count after a reset is always 0 (trap a)

    def recover(self) -> bool:
        """See triax.chips."""
        self.device.write(_REG_BANK_SEL, 0)  # a self-test may have broken off in another bank, where nothing is what it seems
        return Part.recover(self)

    def _derive(self) -> None:
        self.scale_g = self.range_g / 32768
        self.delay_us = self.DELAY_US[self.ODRS_HZ.index(self.odr_hz)]
        self.clip_low = -32766  # -32768 marks an invalid value; -32767 does not occur either [DS347 14.34]

    def _mode(self) -> int:
        # Low noise is needed at high rates; the slowest exist in low power only.
        return _LOW_NOISE if self.odr_hz >= 12.5 else _LOW_POWER

    def _registers(self, running: bool):
        # At 4 kHz and above the interrupt pulse is 8 us (bits 6, 5); bit 4, set at reset, blocks interrupts (trap i).
        pulse = 0x60 if self.odr_hz >= 4000 else 0
        span = 3 - self.RANGES_G.index(self.range_g)
        return (
            (_PWR_MGMT0, self._mode() if running else 0),
            (_ACCEL_CONFIG0, span << 5 | _CODES[self.ODRS_HZ.index(self.odr_hz)]),
            (_GYRO_ACCEL_CONFIG0, _FILTER_BW),
            (_ACCEL_CONFIG1, _FILTER_ORDER),
            (_INT_CONFIG1, pulse),
        )

    def _run(self, watermark: int) -> None:
        size = 8 * watermark
        self._put(_INT_SOURCE0, 0)  # the watermark changes with its interrupt off (trap b)
        self._put(_FIFO_CONFIG2, size & 255)
        self._put(_FIFO_CONFIG3, size >> 8)
        self._put(_FIFO_CONFIG1, _ACCELERATION | _WATERMARK_LEVEL)
        self._put(_FIFO_CONFIG, _STREAM)
        self._flush()
        self._put(_INT_SOURCE0, _THRESHOLD)
        self._put(_PWR_MGMT0, self._mode())

    def _put(self, register: int, value: int) -> None:
        try:
            Part._put(self, register, value)
        finally:  # whatever became of it, the next write may be that of a recovery
            if register == _PWR_MGMT0:
                self.device.sleep_us(_PWR_US)

    def _flush(self) -> None:
        self.device.write(_SIGNAL_PATH_RESET, _FLUSH)
        self._fifo_status.read(1)  # clears the flags

    def _halt(self) -> None:
        self._put(_PWR_MGMT0, 0)
        self._put(_FIFO_CONFIG, 0)
        self._flush()

    def _status(self) -> int:
        self._fifo_status.read(1)
        buf = self._fifo_status.buffer
        start = self._fifo_status.start
        count = buf[start + 1] << 8 | buf[start + 2]
        if count > _BYTES:
            return self.FIFO_SETS + 1
        # "Full" alone is no loss, but what came since cannot be told from one.
        if buf[start] & _FULL:
            self._overrun = True
        return count >> 3

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        buf = self._burst.buffer
        good = kernels.leading(buf, at, sets, 8, _HEADER_BITS, _HEADER)
        kernels.take16(buf, at + 1, good, 8, 2, 1, 0, out, to)
        return good

    def _resync(self, at: int, sets: int) -> int:
        self._flush()
        self._waiting = 0
        return 0

    def temperature_mc(self) -> int:
        """See triax.chips: raw / 132.48 + 25 degrees (3.5)."""
        self._temperature.read(1)
        buf = self._temperature.buffer
        start = self._temperature.start
        code = ((buf[start] << 8 | buf[start + 1]) ^ 0x8000) - 0x8000
        return 25000 + code * 3125 // 414

    # Self-test at 2 g, 1 kHz, filtered to 100 Hz [IST]

    def _limits(self):
        """Half to one and a half times the response at the factory, 2620 counts at 2 g * 1.01^(code - 1) [IST]."""
        self._put(_REG_BANK_SEL, 2)
        codes = [self.device.read(_XA_ST_DATA + k) for k in range(3)]
        self._put(_REG_BANK_SEL, 0)
        if 0 in codes:
            return Part._limits(self)
        trims = [2620000 / 16384 * 1.01 ** (code - 1) for code in codes]
        return tuple([int(0.5 * trim) for trim in trims]), tuple([int(1.5 * trim) for trim in trims])

    def _deflection(self):
        # All but the self-test itself is set, and reset, in standby (trap c).
        filters = [(_GYRO_ACCEL_CONFIG0, _TENTH_BW), (_ACCEL_CONFIG1, _THIRD_ORDER)]
        setup = [(_ACCEL_CONFIG0, _2_G_1_KHZ)] + filters + [(_SELF_TEST_CONFIG, 0), (_PWR_MGMT0, _LOW_NOISE)]
        return setup, (_SELF_TEST_CONFIG, _ST_XYZ), (_SELF_TEST_CONFIG, 0)

    def _output(self):
        return self.device.burst(_ACCEL_DATA_X1, 6, 1), 2, 1, 0, 1000 / 16384
