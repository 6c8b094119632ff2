"""Virtual MPU-6050: three-axis accelerometer (and gyro) at 1 kHz, FIFO of 1024 bytes without packet marks, I2C only.

Source: facts of the MPU-6050 register map (i2cdevlib, Linux inv_mpu6050, data sheet page 13, RM-MPU-6000A 4.2). What no source
states is marked unconfirmed. Not modelled: filters' effect on the data, the gyro (reads 0), FSYNC, the auxiliary bus, cycle mode.
"""

from triax_sim import pack
from triax_sim.epoch import BLOCK
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

SELF_TEST_X, SELF_TEST_Y, SELF_TEST_Z, SELF_TEST_A = 0x0D, 0x0E, 0x0F, 0x10
SMPLRT_DIV, CONFIG, GYRO_CONFIG, ACCEL_CONFIG = 0x19, 0x1A, 0x1B, 0x1C
FIFO_EN, INT_PIN_CFG, INT_ENABLE, INT_STATUS = 0x23, 0x37, 0x38, 0x3A
ACCEL_XOUT_H, TEMP_OUT_H, GYRO_XOUT_H, GYRO_ZOUT_L = 0x3B, 0x41, 0x43, 0x48
SIGNAL_PATH_RESET, USER_CTRL, PWR_MGMT_1, PWR_MGMT_2 = 0x68, 0x6A, 0x6B, 0x6C
FIFO_COUNT_H, FIFO_COUNT_L, FIFO_R_W, WHO_AM_I = 0x72, 0x73, 0x74, 0x75
SLEEP = 0x40
ACCELERATION_HZ = 1000.0
TRIM_X, TRIM_Y, TRIM_Z = 12, 17, 23  # five bits each, written at the factory: what this part answered to the self-test there


def trim_g(code: int) -> float:
    """Self-test response that a factory code stands for."""
    return float(0.34 * (0.92 / 0.34) ** ((code - 1) / 30))


class Twin(Part):
    """The part. It overwrites single bytes when full, so what a driver reads after an overflow starts in the middle of a set."""

    NAME = "mpu6050"
    BUSES = ("i2c",)
    I2C_ADDRESSES = (0x68, 0x69)
    FIFO_UNITS = 1024
    IDENTITY = {WHO_AM_I: 0x68}
    RESET = {
        PWR_MGMT_1: SLEEP,
        SELF_TEST_X: TRIM_X >> 2 << 5,
        SELF_TEST_Y: TRIM_Y >> 2 << 5,
        SELF_TEST_Z: TRIM_Z >> 2 << 5,
        SELF_TEST_A: (TRIM_X & 3) << 4 | (TRIM_Y & 3) << 2 | TRIM_Z & 3,
    }
    WRITABLE = {
        SMPLRT_DIV: 0xFF,
        CONFIG: 0x3F,
        GYRO_CONFIG: 0xF8,
        ACCEL_CONFIG: 0xF8,
        FIFO_EN: 0xFF,
        INT_PIN_CFG: 0xFE,
        INT_ENABLE: 0x19,
        SIGNAL_PATH_RESET: 0x07,
        USER_CTRL: 0x77,
        PWR_MGMT_1: 0xEF,
        PWR_MGMT_2: 0xFF,
    }

    TURN_ON_US = 20_000  # the wake-up wait that drivers use
    RESET_US = 1000  # unconfirmed
    SELF_TEST_G = (trim_g(TRIM_X), trim_g(TRIM_Y), trim_g(TRIM_Z))
    _count = 0

    def _awake(self) -> bool:
        return not self.registers[PWR_MGMT_1] & SLEEP and self.registers[PWR_MGMT_2] & 0x38 != 0x38

    def _output_hz(self) -> float:
        """Rate at which the FIFO and the data registers are written."""
        base = 8000.0 if self.registers[CONFIG] & 7 in (0, 7) else 1000.0
        return base / (1 + self.registers[SMPLRT_DIV])

    def _rate_hz(self) -> float:
        return self._output_hz()

    def _lsb_per_g(self) -> float:
        return 16384.0 / (1 << (self.registers[ACCEL_CONFIG] >> 3 & 3))

    def _layout(self) -> "tuple[int, float]":
        return self.registers[FIFO_EN], self._output_hz()

    def _unit_bytes(self) -> int:
        return 1

    def _units_per_sample(self) -> int:
        """Bytes of a set: acceleration 6, temperature 2, gyro axes 2 each, as FIFO_EN chooses."""
        enabled = self.registers[FIFO_EN]
        size = 6 * (enabled >> 3 & 1) + 2 * ((enabled >> 7) + (enabled >> 6 & 1) + (enabled >> 5 & 1) + (enabled >> 4 & 1))
        return size or 1

    def _make_block(self, epoch: "Epoch", number: int) -> "tuple[Any, bytes]":
        """At more than 1 kHz the same acceleration is written again until the next one is there."""
        output_hz = epoch.layout[1]
        if output_hz <= ACCELERATION_HZ:
            return Part._make_block(self, epoch, number)
        first = number * BLOCK
        rows = [int((first + i) * ACCELERATION_HZ / output_hz) for i in range(BLOCK)]
        counts = pack.shifted(self.source(epoch.first + rows[0], rows[-1] - rows[0] + 1), epoch.shift, *epoch.clip)
        counts = pack.rows(counts, [row - rows[0] for row in rows])
        return counts, self._pack(epoch, first, counts)

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        """Register order: acceleration, temperature, gyro x, y, z. Without acceleration only its place is missing."""
        enabled = epoch.layout[0]
        width = 3 if enabled & 0x08 else 0
        chosen = pack.select(counts, (0, 1, 2)[:width])
        for value, bit in ((self._temperature_code(), 0x80), (0, 0x40), (0, 0x20), (0, 0x10)):
            if enabled & bit:
                chosen = pack.with_column(chosen, width, value)
                width += 1
        return pack.big16(chosen)

    def _storing(self) -> bool:
        return bool(self.registers[USER_CTRL] & 0x40 and self.registers[FIFO_EN] & 0xF8)

    def _keeps_newest(self) -> bool:
        return True

    def _watermark(self) -> int:
        return 0

    def _shift(self) -> "tuple[int, int, int]":
        control = self.registers[ACCEL_CONFIG]
        x, y, z = (round(g * self._lsb_per_g()) for g in self.SELF_TEST_G)
        return x * (control >> 7), y * (control >> 6 & 1), z * (control >> 5 & 1)

    def _is_port(self, address: int) -> bool:
        return address == FIFO_R_W

    def _next(self, address: int) -> int:
        return address if address == FIFO_R_W else address + 1 & 0x7F

    def _temperature_code(self) -> int:
        return max(-32768, min(32767, round((self.temperature_c - 36.53) * 340.0)))

    def _get(self, address: int) -> int:
        if address == INT_STATUS:
            flags = self._flags()
            self._overrun = self._fresh = False
            return flags
        if ACCEL_XOUT_H <= address < TEMP_OUT_H:
            axis, low = divmod(address - ACCEL_XOUT_H, 2)
            return self.latest()[axis] >> 8 * (1 - low) & 0xFF
        if address in (TEMP_OUT_H, TEMP_OUT_H + 1):
            return self._temperature_code() >> 8 * (TEMP_OUT_H + 1 - address) & 0xFF
        if GYRO_XOUT_H <= address <= GYRO_ZOUT_L:
            return 0
        if address == FIFO_COUNT_H:
            self._count = self.fifo.level  # the low byte belongs to the moment at which the high one was read
            return self._count >> 8
        if address == FIFO_COUNT_L:
            return self._count & 0xFF
        return self.registers[address]

    def _flags(self) -> int:
        """FIFO overflow (4), data ready (0)."""
        return self._overrun << 4 | self._fresh

    def _check(self, address: int, value: int) -> "str | None":
        asleep = self.registers[PWR_MGMT_1] & SLEEP
        if asleep and address != PWR_MGMT_1 and value != self.registers[address]:
            return "the part sleeps: clear SLEEP first"
        if address == PWR_MGMT_1 and value & 0x20:
            return "cycle mode is not modelled"
        if address == PWR_MGMT_1 and value & 7 == 6:
            return "reserved clock source"
        if address == FIFO_EN and value & 7:
            return "the auxiliary bus is not modelled"
        if address == FIFO_EN and self.fifo.level and value & ~self.registers[FIFO_EN]:
            return "other sets with bytes in the FIFO"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == PWR_MGMT_1 and value & 0x80:
            self.reset(self.RESET_US)
        elif address in (PWR_MGMT_1, PWR_MGMT_2):
            self._power()
        elif address == USER_CTRL:
            self._control_fifo(value)
        elif address in (SMPLRT_DIV, CONFIG, ACCEL_CONFIG, FIFO_EN) and value != old and self.epoch is not None:
            self._start(0)

    def _power(self) -> None:
        if not self._awake():
            self._stop()
        elif self.epoch is None:
            self._start(self.TURN_ON_US)

    def _control_fifo(self, value: int) -> None:
        """Bit 2 empties the FIFO, which works only while bit 6 is clear, and clears itself."""
        if value & 0x04:
            self.registers[USER_CTRL] = value & ~0x07
            if value & 0x40:
                self.refuse(USER_CTRL, value, "FIFO reset while the FIFO is enabled")
            else:
                self._clear_fifo()

    def int1(self) -> int:
        """Level of the INT pin: overflow and data ready as enabled; INT_PIN_CFG bit 7 makes it active low. There is no
        watermark.
        """
        self.catch_up()
        return int(bool(self._flags() & self.registers[INT_ENABLE])) ^ self.registers[INT_PIN_CFG] >> 7
