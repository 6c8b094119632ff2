"""ADXL382: 16, 32 or 64 kHz, FIFO of 320 axis entries with channel tags, SPI or I2C. Section numbers are those of sensors.md 1; its
sources: Linux adxl380.c [L380], no-OS adxl38x [N38x], an ADXL382 example for the Pico [P382]; and the data sheet of the ADXL380,
Rev. A [DS380]. All code for the family uses stream mode in high performance; [DS380] supports it in its slow modes only, and
promises the overrun flag in the other FIFO modes only: so a full FIFO counts as overrun, too.
"""

from triax import kernels
from triax.chips import LOSS_FLAG, NOT_MEASURED, TEMPERATURE_RELATIVE
from triax.chips.entries import EntryPart

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# 1.3 registers [N38x]
_DEVID_AD = const(0x00)
_DEVID_MST = const(0x01)
_PART_ID = const(0x02)
_SERIAL_NUMBER_0 = const(0x04)
_STATUS0 = const(0x11)
_XDATA_H = const(0x15)
_FIFO_DATA = const(0x1D)
_FIFO_STATUS0 = const(0x1E)  # entries, low byte first (trap g)
_MISC0 = const(0x20)
_OP_MODE = const(0x26)
_DIG_EN = const(0x27)
_REG_RESET = const(0x2A)
_INT0_MAP0 = const(0x2B)
_FIFO_CFG0 = const(0x30)
_FIFO_CFG1 = const(0x31)
_SNSR_AXIS_EN = const(0x38)
_TRIG_CFG = const(0x49)
_FILTER = const(0x50)
_MISO = const(0x58)

_RESET_CODE = const(0x52)  # 1.1
_XYZ_FIFO = const(0x78)  # DIG_EN (1.6)
_XYZT_FIFO = const(0xF8)
_TAGS = const(0x40)  # FIFO_CFG0 bit 6 (1.8)
_STREAM = const(0x20)
_OVERRUN = const(0x04)  # STATUS0 (1.4)
_HIGH_PERFORMANCE = const(12)  # OP_MODE (1.5)
_VERY_LOW_POWER = const(3)
_MODE_SETTLE_US = const(2000)  # 1.5 [N38x]
_RESET_US = const(500)
_EQ_BYPASS = const(0x40)  # whenever a low-pass is on (trap j)
_ST_ON = const(0xC0)  # SNSR_AXIS_EN: ST_MODE, ST_FORCE; bit 5 reverses
_ST_REVERSE = const(0x20)
_ENTRIES = const(320)


class Adxl382(EntryPart):
    """See triax.chips.

    `burst_sets`: most sets a transfer. Register traffic under way when a sample is due is said to lose that sample (trap a): at
    8 MHz and 16 kHz 6 sets take 55 us, less than the 62.5 us between samples. 0: all at once, fewest transfers.

    `temperature`: the part measures its temperature only if that goes through the FIFO too (1.6): a set is four entries then, the
    FIFO holds 80 of them (5 ms at 16 kHz), and a third more bytes cross the bus. Without, temperature is NOT_MEASURED.
    """

    NAME = "adxl382"
    BUSES = ("spi", "i2c")
    SPI_MODE = 0  # [N38x, P382]
    SPI_MAX_HZ = 8_000_000
    I2C_ADDRESSES = (0x54, 0x1D)  # [L380]; 0x1D from one third-party project
    FIFO_SETS = 106  # of 320 entries; whole sets only (1.8)
    RANGES_G = (15, 30, 60)
    ODRS_HZ = (1000, 16000, 32000, 64000)  # 1.7
    LOWPASS = (0, 4, 8, 16)
    HIGHPASS = (0, 405, 1611, 6433, 25893, 104822, 420168)  # ODR x 24.7e-4 .. 0.0238e-4 as divisors
    ODR_TOLERANCE_PPM = 30_000  # in no source
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE  # the sources differ by 20 codes, 2 degrees, on the offset (1.10)
    SET_BYTES = 9
    _FIFO = _FIFO_DATA
    NEAR_FULL = 12  # 0.75 ms at 16 kHz

    FAMILY = 0x80  # MISC0 bit 7: the part id is 380 on both (trap i)
    G_PER_COUNT = (500e-6, 1000e-6, 2000e-6)  # 1.10 [N38x]
    TEMPERATURE_25C = 570  # 12-bit code [L380]
    SELF_TEST_RANGE = 2  # that of the example [N38x]: the response differs between ranges [DS380]
    SELF_TEST_LOW_MG = (3100, 3100, 2600)  # forward minus reverse (1.10)
    SELF_TEST_HIGH_MG = (4200, 4200, 3400)
    SELF_TEST_STILL_MG = 500  # a sixth of the smallest response
    SELF_TEST_SAMPLES = 25
    SELF_TEST_STEP_US = 10_000
    SELF_TEST_SETTLE_US = 10_000

    def __init__(self, device, burst_sets: int = 0, temperature: bool = False) -> None:
        if temperature:
            self.PER_SET = 4
            self.SET_BYTES = 12
            self.FIFO_SETS = _ENTRIES // 4
        self._limit_sets = burst_sets or self.FIFO_SETS
        EntryPart.__init__(self, device)

    def _begin(self) -> None:
        self.device.addressing(1, 1, 0, 0)  # 1.2: command = address << 1 | read
        self._fifo_status = self.device.burst(_FIFO_STATUS0, 2, 1)
        self._code = 0  # of the temperature

    def _burst_sets(self) -> int:
        return self._limit_sets

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_DEVID_AD, 0xAD)
        self._identify(_DEVID_MST, 0x1D)
        self._identify(_PART_ID, 0x17)
        self._identify(_MISC0, self.FAMILY, 0x80)
        self.serial = bytes([self.device.read(_SERIAL_NUMBER_0 + i) for i in range(7)])

    def reset(self) -> None:
        """See triax.chips."""
        self.device.write(_REG_RESET, _RESET_CODE)
        self.device.sleep_us(_RESET_US)
        self._identify(_DEVID_AD, 0xAD)

    def _derive(self) -> None:
        self.scale_g = self.G_PER_COUNT[self.RANGES_G.index(self.range_g)]

    def _mode(self) -> int:
        return _VERY_LOW_POWER if self.odr_hz == self.ODRS_HZ[0] else _HIGH_PERFORMANCE

    def _registers(self, running: bool):
        rate = (0x00, 0x00, 0x80, 0x40)[self.ODRS_HZ.index(self.odr_hz)]  # DEC_2X, SINC_RATE
        corner = self.HIGHPASS.index(self._highpass)
        lowpass = self.LOWPASS.index(self._lowpass)
        # Bit 3 puts the high-pass into the data path.
        filters = lowpass << 4 | (_EQ_BYPASS if lowpass else 0) | (corner | 8 if corner else 0)
        span = self.RANGES_G.index(self.range_g) << 6
        return (
            (_OP_MODE, span | (self._mode() if running else 0)),  # first of all to standby (trap h)
            (_MISO, 0x01),  # strong driver, needed at 8 MHz [P382]
            (_TRIG_CFG, rate),
            (_FILTER, filters),
            (_INT0_MAP0, 0x08),  # the FIFO watermark alone (1.9)
        )

    def _set_mode(self, mode: int) -> None:
        self._put(_OP_MODE, self.RANGES_G.index(self.range_g) << 6 | mode)
        self.device.sleep_us(_MODE_SETTLE_US)

    def _run(self, watermark: int) -> None:
        entries = self.PER_SET * watermark
        self._put(_FIFO_CFG0, 0)
        self._put(_DIG_EN, _XYZ_FIFO if self.PER_SET == 3 else _XYZT_FIFO)
        self._put(_FIFO_CFG1, entries & 255)
        self._put(_FIFO_CFG0, _TAGS | _STREAM | entries >> 8)
        self.device.read(_STATUS0)  # an old overrun
        self._set_mode(self._mode())

    def _halt(self) -> None:
        self._set_mode(0)
        self._put(_FIFO_CFG0, 0)  # mode 0 empties
        self._put(_DIG_EN, 0)

    def _status(self) -> int:
        if self.device.read(_STATUS0) & _OVERRUN:
            self._overrun = True
        self._fifo_status.read(1)
        buf = self._fifo_status.buffer
        start = self._fifo_status.start
        sets = self._count(buf[start] | (buf[start + 1] & 1) << 8, _ENTRIES)
        if sets == self.FIFO_SETS:
            self._overrun = True
        return sets

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        buf = self._burst.buffer
        leading = kernels.leading
        stride = self.SET_BYTES
        good = sets
        for channel in range(self.PER_SET):
            good = leading(buf, at + 3 * channel, good, stride, 0xFF, channel)
        kernels.take16(buf, at + 1, good, stride, 3, 1, 0, out, to)
        if good and stride == 12:
            last = at + stride * good - 2
            self._code = buf[last] << 4 | buf[last + 1] >> 4  # 12 bits, left justified
        return good

    def _whole(self, at: int) -> bool:
        buf = self._burst.buffer
        for channel in range(self.PER_SET):
            if buf[at + 3 * channel] != channel:
                return False
        return True

    def temperature_mc(self) -> int:
        """See triax.chips: of the last set, 10.2 codes a degree (1.10)."""
        if not self._code:
            return NOT_MEASURED
        return 25000 + (self._code - self.TEMPERATURE_25C) * 10000 // 102

    # Self-test: forward minus reverse deflection, 25 samples 10 ms apart (1.10), without the high-pass, which would undo it

    def _deflection(self):
        running = self.SELF_TEST_RANGE << 6 | _HIGH_PERFORMANCE
        setup = [(_FILTER, 0), (_DIG_EN, _XYZ_FIFO & 0x70), (_OP_MODE, running)]
        return setup, (_SNSR_AXIS_EN, _ST_ON), (_SNSR_AXIS_EN, _ST_ON | _ST_REVERSE)

    def _output(self):
        return self.device.burst(_XDATA_H, 6, 1), 2, 1, 0, 1000 * self.G_PER_COUNT[self.SELF_TEST_RANGE]
