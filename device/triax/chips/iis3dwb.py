"""IIS3DWB: 26.7 kHz, FIFO of 512 tagged words, SPI. Section numbers are those of sensors.md 2; its sources: ST's iis3dwb_reg
[S3DWB] and examples [SEx], Zephyr [Z3DWB], data sheet front page [IG1], application note excerpt [AN5444].
"""

from triax import kernels
from triax.chips import LOSS_MODULO, TEMPERATURE_RELATIVE
from triax.chips.part import Part
from triax.errors import BadSetting

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# 2.2 registers [S3DWB]
_FIFO_CTRL1 = const(0x07)  # watermark, low byte
_FIFO_CTRL2 = const(0x08)  # bit 0: watermark bit 8
_FIFO_CTRL3 = const(0x09)  # bits 3:0: 10 = batched at 26.667 kHz
_FIFO_CTRL4 = const(0x0A)  # bits 2:0: mode
_INT1_CTRL = const(0x0D)
_WHO_AM_I = const(0x0F)
_CTRL1_XL = const(0x10)
_CTRL3_C = const(0x12)
_CTRL4_C = const(0x13)
_CTRL5_C = const(0x14)
_CTRL8_XL = const(0x17)
_OUT_TEMP_L = const(0x20)
_OUTX_L_A = const(0x28)
_FIFO_STATUS1 = const(0x3A)
_FIFO_DATA_OUT_TAG = const(0x78)

_ID = const(0x7B)  # 2.1
_ON = const(0xA0)  # CTRL1_XL 7:5 = 101
_LPF2 = const(0x02)
_ST_POSITIVE = const(0x01)  # CTRL5_C
_FULL_SCALE = (2, 16, 4, 8)  # codes 0 to 3: not ascending (trap a)
_SW_RESET = const(0x01)
_IF_INC_BDU = const(0x44)
_I2C_DISABLE = const(0x04)
_FDS = const(0x04)
_BYPASS = const(0)
_CONTINUOUS = const(6)  # 2.4
_BDR_ON = const(10)
_TAG_ACCELERATION = const(2)  # 2.5


class Iis3dwb(Part):
    """See triax.chips. Each FIFO word carries a counter of two bits, so lost samples are known modulo 4."""

    NAME = "iis3dwb"
    SPI_MODE = 3  # [Z3DWB]
    SPI_MAX_HZ = 10_000_000  # unconfirmed
    FIFO_SETS = 512  # words of 6 bytes and a tag [IG1, SEx]
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = (26667,)
    LOWPASS = (0, 4, 10, 20, 45, 100, 200, 400, 800)  # 0: the default path, corner about 6.3 kHz [S3DWB, AN5444]
    HIGHPASS = (0, 4, 10, 20, 45, 100, 200, 400, 800)  # 4: slope filter
    ODR_TOLERANCE_PPM = 50_000  # "several percent" (2.6); register 0x63 tells it in steps of 0.15 %
    LOSS_DETECTION = LOSS_MODULO
    LOSS_PERIOD = 4
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE  # no source states a tolerance of the offset
    SET_BYTES = 7
    NEAR_FULL = 16  # 0.6 ms
    SELF_TEST_LOW_MG = (800, 800, 800)  # limits and procedure of ST's self-test example, at 4 g [SEx]
    SELF_TEST_HIGH_MG = (3200, 3200, 3200)
    SELF_TEST_STILL_MG = 200

    def _prepare(self) -> None:
        self.device.addressing(0, 0x80, 0, 0)
        self._burst = self.device.burst(_FIFO_DATA_OUT_TAG, 7, self.FIFO_SETS)  # the address wraps 0x7E -> 0x78 (2.4)
        self._fifo_status = self.device.burst(_FIFO_STATUS1, 2, 1)  # both in one burst, so that they match (trap i)
        self._temperature = self.device.burst(_OUT_TEMP_L, 2, 1)
        self._counter = -1  # of the next word; -1: any

    def check(self) -> None:
        """See triax.chips."""
        self._identify(_WHO_AM_I, _ID)

    def reset(self) -> None:
        """See triax.chips."""
        self.device.write(_CTRL3_C, _SW_RESET)
        self._await(_CTRL3_C, _SW_RESET, 50, 20)

    def validate(self, range_g: int, odr_hz: float, lowpass: int, highpass: int) -> None:
        """See triax.chips."""
        Part.validate(self, range_g, odr_hz, lowpass, highpass)
        if lowpass and highpass:
            raise BadSetting("the iis3dwb has a low-pass or a high-pass, not both")

    def _derive(self) -> None:
        self.scale_g = {2: 61e-6, 4: 122e-6, 8: 244e-6, 16: 488e-6}[self.range_g]  # 2.6 [S3DWB, IG1]

    def _control(self) -> int:
        return _FULL_SCALE.index(self.range_g) << 2 | (_LPF2 if self._lowpass else 0)

    def _registers(self, running: bool):
        corner = 0
        if self._lowpass:
            corner = (self.LOWPASS.index(self._lowpass) - 1) << 5
        elif self._highpass:
            corner = (self.HIGHPASS.index(self._highpass) - 1) << 5 | _FDS
        return (
            (_CTRL3_C, _IF_INC_BDU),
            (_CTRL4_C, _I2C_DISABLE),
            (_CTRL8_XL, corner),
            (_CTRL1_XL, self._control() | (_ON if running else 0)),
        )

    def _run(self, watermark: int) -> None:
        # Watermark, batching, mode and interrupt first, sensor last (trap f). Leaving bypass empties the FIFO.
        self._put(_FIFO_CTRL4, _BYPASS)
        self._put(_FIFO_CTRL1, watermark & 255)
        self._put(_FIFO_CTRL2, watermark >> 8)
        self._put(_FIFO_CTRL3, _BDR_ON)
        self._put(_FIFO_CTRL4, _CONTINUOUS)
        self._put(_INT1_CTRL, 0x08)
        self._put(_CTRL1_XL, self._control() | _ON)

    def _halt(self) -> None:
        self._put(_CTRL1_XL, self._control())
        self._put(_FIFO_CTRL4, _BYPASS)

    def _forget(self) -> None:
        Part._forget(self)
        self._counter = -1

    def _status(self) -> int:
        self._fifo_status.read(1)
        buf = self._fifo_status.buffer
        start = self._fifo_status.start
        flags = buf[start + 1]
        if flags & 0x48:  # overrun now or latched since the last read
            self._overrun = True
        return buf[start] | (flags & 3) << 8

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        buf = self._burst.buffer
        counter = self._counter
        if counter < 0:
            counter = buf[at] >> 1 & 3
        # The parity bit is not looked at: no source confirms its sense.
        good = kernels.leading_counted(buf, at, sets, 7, _TAG_ACCELERATION, counter)
        kernels.take16(buf, at + 1, good, 7, 2, 0, 0, out, to)
        if good:
            if to == 0 and self.gap and self.gap_modulo < 0 and self._counter >= 0:
                self.gap_modulo = 0  # lost, but the tags go on: a multiple of 4
            self._counter = (counter + good) & 3
        return good

    def _resync(self, at: int, sets: int) -> int:
        """Go to the first word whose successor follows on it: a flipped bit in a tag costs one word, a hole none."""
        buf = self._burst.buffer
        while sets:
            counter = buf[at] >> 1 & 3
            pair = 2 if sets > 1 else 1
            if kernels.leading_counted(buf, at, pair, 7, _TAG_ACCELERATION, counter) == pair:
                if self._counter >= 0:
                    self.gap_modulo = (counter - self._counter) & 3
                self._counter = counter
                break
            at += 7
            sets -= 1
        self._at = at
        return sets

    def temperature_mc(self) -> int:
        """See triax.chips: 256 codes a degree, 0 at 25 degrees (2.6)."""
        self._temperature.read(1)
        buf = self._temperature.buffer
        start = self._temperature.start
        code = ((buf[start] | buf[start + 1] << 8) ^ 0x8000) - 0x8000
        return 25000 + code * 125 // 32

    # Self-test, without the filters: a high-pass would undo the deflection

    def _deflection(self):
        setup = [(_CTRL8_XL, 0), (_CTRL1_XL, _FULL_SCALE.index(4) << 2 | _ON)]
        return setup, (_CTRL5_C, _ST_POSITIVE), (_CTRL5_C, 0)

    def _output(self):
        return self.device.burst(_OUTX_L_A, 6, 1), 2, 0, 0, 0.122
