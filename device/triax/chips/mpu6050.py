"""MPU-6050: 1 kHz, FIFO of 1024 bytes, I2C. The gyroscope stays off. Facts of sensors.md 8; its sources: i2cdevlib [MPU], data
sheet PS-MPU-6000A 3.4 [DSMPU], Linux inv_mpu_ring.c [LMPU], Klipper [KMPU]; and the register map RM-MPU-6000A 4.2 [RMMPU].
"""

from triax import kernels
from triax.chips import LOSS_FLAG, TEMPERATURE_RELATIVE
from triax.chips.part import Part
from triax.errors import WrongPart

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


_SELF_TEST_X = const(0x0D)  # followed by Y, Z: bits 4:2 of the axis' trim code in 7:5
_SELF_TEST_A = const(0x10)  # bits 1:0 of x in 5:4, y in 3:2, z in 1:0
_SMPLRT_DIV = const(0x19)
_CONFIG = const(0x1A)
_ACCEL_CONFIG = const(0x1C)
_FIFO_EN = const(0x23)
_INT_STATUS = const(0x3A)
_ACCEL_XOUT_H = const(0x3B)
_TEMP_H = const(0x41)
_USER_CTRL = const(0x6A)
_PWR_MGMT_1 = const(0x6B)
_PWR_MGMT_2 = const(0x6C)
_FIFO_COUNT_H = const(0x72)
_FIFO_R_W = const(0x74)
_WHO_AM_I = const(0x75)

# 0x70, 0x71, 0x73: MPU-6500, 9250 and 9255, sold on the same boards with the same registers; 0x69 and 0x75 are known bad [KMPU].
_ID = const(0x68)
_IDS = (_ID, 0x70, 0x71, 0x73)
_RESET = const(0x80)
_SLEEP = const(0x40)
_GYRO_OFF = const(0x07)
_44_HZ = const(0x03)  # CONFIG
_8_G = const(0x10)  # ACCEL_CONFIG
_ST_XYZ = const(0xE0)
_ACCELERATION = const(0x08)
_FIFO_ON = const(0x40)
_FIFO_RESET = const(0x04)
_OVERFLOW = const(0x10)
_WAKE_US = const(20_000)  # [KMPU]
_BYTES = const(1024)
_MARGIN = const(18)  # three sets: an overflow breaks the alignment, so a FIFO this full counts as overflown [LMPU]


class Mpu6050(Part):
    """See triax.chips. After an overflow the FIFO's alignment is lost (trap a): all that it holds is thrown away.

    LOWPASS: divisors of 1 kHz, the rate the filter runs at: 184 Hz by default, then 94, 44, 21, 10 and 5 Hz.
    """

    NAME = "mpu6050"
    BUSES = ("i2c",)
    I2C_ADDRESSES = (0x68, 0x69)
    FIFO_SETS = 170
    RANGES_G = (2, 4, 8, 16)
    ODRS_HZ = (4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000)  # 1 kHz / (1 + divider)
    LOWPASS = (0, 11, 23, 48, 100, 200)
    DELAY_US = (2000, 3000, 4900, 8500, 13_800, 19_000)  # of each filter: table of DLPF_CFG [RMMPU]
    ODR_TOLERANCE_PPM = 50_000  # "a few per cent" [LMPU]
    LOSS_DETECTION = LOSS_FLAG
    TEMPERATURE_CLASS = TEMPERATURE_RELATIVE
    NEAR_FULL = 0  # the margin covers it
    SELF_TEST_SIGNED = True
    SELF_TEST_STILL_MG = 24  # half of the narrowest limit, 14 % of 340 mg
    SELF_TEST_SAMPLES = 10

    def _prepare(self) -> None:
        self.device.addressing(0, 0, 0, 0)
        self._burst = self.device.burst(_FIFO_R_W, 6, self.FIFO_SETS)
        self._fifo_count = self.device.burst(_FIFO_COUNT_H, 2, 1)  # high byte first, both at once (trap b)
        self._temperature = self.device.burst(_TEMP_H, 2, 1)

    def check(self) -> None:
        """See triax.chips."""
        seen = self.device.read(_WHO_AM_I)
        if seen not in _IDS:
            raise WrongPart("register 0x75 reads 0x%02x, an mpu6050 or its kin has 0x68, 0x70, 0x71 or 0x73" % seen)

    def reset(self) -> None:
        """See triax.chips. The part sleeps afterwards."""
        self.device.write(_PWR_MGMT_1, _RESET)
        self._await(_PWR_MGMT_1, _RESET, 10_000, 20)

    def _derive(self) -> None:
        self.scale_g = self.range_g / 32768
        self.delay_us = self.DELAY_US[self.LOWPASS.index(self._lowpass)]

    def _registers(self, running: bool):
        filters = self.LOWPASS.index(self._lowpass) + 1  # 0 and 7 would make the base rate 8 kHz, with repeated values
        awake = (
            (_PWR_MGMT_1, 0),  # awake before anything else (trap d)
            (_PWR_MGMT_2, _GYRO_OFF),
            (_CONFIG, filters),
            (_SMPLRT_DIV, 1000 // self.odr_hz - 1),
            (_ACCEL_CONFIG, self.RANGES_G.index(self.range_g) << 3),
        )
        return awake if running else awake + ((_PWR_MGMT_1, _SLEEP),)

    def _run(self, watermark: int) -> None:
        self._put(_PWR_MGMT_1, 0)
        self.device.sleep_us(_WAKE_US)
        self._put(_FIFO_EN, _ACCELERATION)
        self._empty()

    def _empty(self) -> None:
        self.device.write(_USER_CTRL, 0)
        self.device.write(_USER_CTRL, _FIFO_RESET)  # only while the FIFO is off
        self.device.read(_INT_STATUS)
        self._put(_USER_CTRL, _FIFO_ON)

    def _halt(self) -> None:
        self._put(_PWR_MGMT_1, 0)
        self._put(_FIFO_EN, 0)
        self.device.write(_USER_CTRL, 0)
        self.device.write(_USER_CTRL, _FIFO_RESET)
        self._put(_PWR_MGMT_1, _SLEEP)

    def _status(self) -> int:
        overflow = self.device.read(_INT_STATUS) & _OVERFLOW
        self._fifo_count.read(1)
        buf = self._fifo_count.buffer
        start = self._fifo_count.start
        count = buf[start] << 8 | buf[start + 1]
        if count > _BYTES:
            return self.FIFO_SETS + 1
        if overflow or count > _BYTES - _MARGIN:
            self._overrun = True
            self._empty()
            return 0
        return count // 6

    def _decode(self, at: int, sets: int, out, to: int) -> int:
        kernels.take16(self._burst.buffer, at, sets, 6, 2, 1, 0, out, to)
        return sets

    def temperature_mc(self) -> int:
        """See triax.chips: raw / 340 + 36.53 degrees [DSMPU]."""
        self._temperature.read(1)
        buf = self._temperature.buffer
        start = self._temperature.start
        code = ((buf[start] << 8 | buf[start + 1]) ^ 0x8000) - 0x8000
        return 36530 + code * 50 // 17

    # Self-test at 8 g [RMMPU 4.1]; 44 Hz keep the noise far below the limits

    def _limits(self):
        """Factory trim 340 mg * (0.92 / 0.34)^((code - 1) / 30) [RMMPU 4.1] +- 14 % [DSMPU 6.2]."""
        low_bits = self.device.read(_SELF_TEST_A)
        codes = [self.device.read(_SELF_TEST_X + k) >> 5 << 2 | low_bits >> 4 - 2 * k & 3 for k in range(3)]
        seen = self.device.read(_WHO_AM_I)
        if seen != _ID:
            self.self_test_reason = "limits are known for id 0x68, this is 0x%02x" % seen
        elif 0 in codes:
            self.self_test_reason = "no factory trim in the part: codes %d, %d, %d" % tuple(codes)
        if self.self_test_reason:
            return Part._limits(self)
        trims = [340 * (0.92 / 0.34) ** ((code - 1) / 30) for code in codes]
        return tuple([int(0.86 * trim) for trim in trims]), tuple([int(1.14 * trim) for trim in trims])

    def _deflection(self):
        setup = [(_PWR_MGMT_1, 0), (_CONFIG, _44_HZ), (_SMPLRT_DIV, 9), (_ACCEL_CONFIG, _8_G)]
        return setup, (_ACCEL_CONFIG, _8_G | _ST_XYZ), (_ACCEL_CONFIG, _8_G)

    def _output(self):
        return self.device.burst(_ACCEL_XOUT_H, 6, 1), 2, 1, 0, 1000 / 4096
