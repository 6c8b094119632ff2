"""Virtual ICM-42688-P: three-axis accelerometer (and gyro) up to 32 kHz, 16 or 18 bits, FIFO of 2048 bytes in packets, SPI or I2C.

Source: facts of the ICM-42688-P register map (Linux inv_icm42600, Zephyr icm4268x, PX4, data sheet DS-000347 1.8). What no
source states is marked unconfirmed. Not modelled: filters' effect on the data, the gyro (reads 0 when on), little-endian output,
external clock.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

DEVICE_CONFIG, DRIVE_CONFIG, INT_CONFIG, FIFO_CONFIG = 0x11, 0x13, 0x14, 0x16
TEMP_DATA1, ACCEL_X1, GYRO_X1, GYRO_Z0 = 0x1D, 0x1F, 0x25, 0x2A
INT_STATUS, FIFO_COUNTH, FIFO_COUNTL, FIFO_DATA = 0x2D, 0x2E, 0x2F, 0x30
SIGNAL_PATH_RESET, INTF_CONFIG0, INTF_CONFIG1, PWR_MGMT0 = 0x4B, 0x4C, 0x4D, 0x4E
GYRO_CONFIG0, ACCEL_CONFIG0, GYRO_CONFIG1, GYRO_ACCEL_CONFIG0, ACCEL_CONFIG1 = 0x4F, 0x50, 0x51, 0x52, 0x53
TMST_CONFIG, FIFO_CONFIG1, FIFO_CONFIG2, FIFO_CONFIG3 = 0x54, 0x5F, 0x60, 0x61
INT_CONFIG0, INT_CONFIG1, INT_SOURCE0, INT_SOURCE3 = 0x63, 0x64, 0x65, 0x68
FIFO_LOST_PKT0, FIFO_LOST_PKT1, SELF_TEST_CONFIG, WHO_AM_I, BANK_SEL = 0x6C, 0x6D, 0x70, 0x75, 0x76
BANK2 = 0x200
AAF_DELT, AAF_DELTSQR, AAF_SHIFT = BANK2 | 0x03, BANK2 | 0x04, BANK2 | 0x05
XA_ST_DATA, YA_ST_DATA, ZA_ST_DATA = BANK2 | 0x3B, BANK2 | 0x3C, BANK2 | 0x3D
NOWHERE = 0x7FF  # a burst write goes no further than its first register

BYPASS, STREAM = 0, 1
OFF, LOW_POWER, LOW_NOISE = 0, 2, 3
RATES_HZ = (0.0, 32000.0, 16000.0, 8000.0, 4000.0, 2000.0, 1000.0, 200.0, 100.0, 50.0, 25.0, 12.5, 6.25, 3.125, 1.5625, 500.0)
INVALID = -32768
CODE_X, CODE_Y, CODE_Z = 112, 104, 131  # written at the factory: what this part answered to the self-test there


def trim_g(code: int) -> float:
    """Self-test response that a factory code stands for."""
    return float(2620 / 16384 * 1.01 ** (code - 1))


class Twin(Part):
    """The part."""

    NAME = "icm42688p"
    BUSES = ("spi", "i2c")
    SPI_MODES = (0, 3)
    SPI_MAX_HZ = 24_000_000
    I2C_ADDRESSES = (0x68, 0x69)
    I2C_MAX_HZ = 1_000_000
    FIFO_UNITS = 2048 // 8
    REGISTERS = 0x500
    IDENTITY = {WHO_AM_I: 0x47}
    RESET = {
        INTF_CONFIG0: 0x30,
        INTF_CONFIG1: 0x91,
        ACCEL_CONFIG0: 0x06,
        GYRO_CONFIG0: 0x06,
        GYRO_CONFIG1: 0x16,
        GYRO_ACCEL_CONFIG0: 0x11,
        ACCEL_CONFIG1: 0x0D,
        TMST_CONFIG: 0x23,
        INT_CONFIG1: 0x10,
        INT_SOURCE0: 0x10,
        AAF_DELT: 0x30,
        AAF_DELTSQR: 0x40,
        AAF_SHIFT: 0x62,
        XA_ST_DATA: CODE_X,
        YA_ST_DATA: CODE_Y,
        ZA_ST_DATA: CODE_Z,
    }
    WRITABLE = {
        DEVICE_CONFIG: 0x11,
        DRIVE_CONFIG: 0x3F,
        INT_CONFIG: 0x3F,
        FIFO_CONFIG: 0xC0,
        SIGNAL_PATH_RESET: 0x6E,
        INTF_CONFIG0: 0xF3,
        INTF_CONFIG1: 0xDF,
        PWR_MGMT0: 0x3F,
        GYRO_CONFIG0: 0xEF,
        ACCEL_CONFIG0: 0xEF,
        GYRO_CONFIG1: 0xEF,
        GYRO_ACCEL_CONFIG0: 0xFF,
        ACCEL_CONFIG1: 0x1F,
        TMST_CONFIG: 0x3F,
        FIFO_CONFIG1: 0x7F,
        FIFO_CONFIG2: 0xFF,
        FIFO_CONFIG3: 0x0F,
        INT_CONFIG0: 0x3F,
        INT_CONFIG1: 0x70,
        INT_SOURCE0: 0x7F,
        INT_SOURCE3: 0x7F,
        SELF_TEST_CONFIG: 0x7F,
        AAF_DELT: 0x7F,
        AAF_DELTSQR: 0xFF,
        AAF_SHIFT: 0xFF,
    }
    # While a sensor runs only rate, full scale and mode may change.
    STANDBY_ONLY = (
        INTF_CONFIG0,
        INTF_CONFIG1,
        GYRO_ACCEL_CONFIG0,
        ACCEL_CONFIG1,
        TMST_CONFIG,
        FIFO_CONFIG1,
        AAF_DELT,
        AAF_DELTSQR,
        AAF_SHIFT,
    )

    TURN_ON_US = 10_000
    RESET_US = 1000
    QUIET_US = 200  # after a write of PWR_MGMT0 nothing else may be written
    SELF_TEST_G = (trim_g(CODE_X), trim_g(CODE_Y), trim_g(CODE_Z))

    _quiet_until_us = 0
    _first_count = True  # the first FIFO count read after a reset is 0
    _reset_done = True
    _lost = 0
    _full = False

    def _rate_hz(self) -> float:
        return RATES_HZ[self.registers[ACCEL_CONFIG0] & 0x0F]

    def _fine(self) -> bool:
        return bool(self.registers[FIFO_CONFIG1] & 0x10)

    def _lsb_per_g(self) -> float:
        """20-bit packets hold 18 bits at +-16 g whatever the full scale."""
        return 8192.0 if self._fine() else 2048.0 * (1 << (self.registers[ACCEL_CONFIG0] >> 5))

    def _clip(self) -> "tuple[int, int]":
        """The lowest code marks invalid data; a saturated axis stops some codes above it."""
        return (-131064, 131071) if self._fine() else (-32766, 32767)

    def _shift(self) -> "tuple[int, int, int]":
        """Self-test deflection of each axis, which needs its supply, too."""
        test = self.registers[SELF_TEST_CONFIG]
        x, y, z = (round(g * self._lsb_per_g()) if test & 0x40 else 0 for g in self.SELF_TEST_G)
        return x * (test >> 3 & 1), y * (test >> 4 & 1), z * (test >> 5 & 1)

    def _layout(self) -> "tuple[int, bool]":
        return self.registers[FIFO_CONFIG1], self._gyro_on()

    def _gyro_on(self) -> bool:
        return self.registers[PWR_MGMT0] >> 2 & 3 == 3

    def _unit_bytes(self) -> int:
        config = self.registers[FIFO_CONFIG1]
        if config & 0x10:
            return 20
        return 16 if config & 3 == 3 else 8

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        config, gyro_on = epoch.layout
        gyro = 0 if gyro_on else INVALID
        degrees = self.temperature_c - 25.0
        coarse = max(-128, min(127, round(degrees * 2.07))) & 0xFF
        if epoch.unit_bytes == 8:
            head = 0x40 if config & 1 else 0x20
            return pack.packets8(counts if config & 1 else pack.filled(counts, gyro), head, coarse)
        times = [epoch.time_of(first + i + 1) & 0xFFFF for i in range(pack.length(counts))] if config & 8 else None
        head = 0x60 | (0x08 if config & 8 else 0)
        if epoch.unit_bytes == 16:
            return pack.packets16(counts, head, gyro, coarse, times)
        return pack.packets20(counts, head | 0x10, gyro, round(degrees * 132.48) & 0xFFFF, times)

    def _storing(self) -> bool:
        return self.registers[FIFO_CONFIG] >> 6 != BYPASS and bool(self.registers[FIFO_CONFIG1] & 3)

    def _keeps_newest(self) -> bool:
        return self.registers[FIFO_CONFIG] >> 6 == STREAM

    def _keep(self, epoch: "Epoch", first: int, last: int) -> None:
        before = self._account.overwritten + self._account.refused
        Part._keep(self, epoch, first, last)
        self._lost += self._account.overwritten + self._account.refused - before
        self._full = self._full or self.fifo.level >= self.fifo.capacity

    def _watermark(self) -> int:
        """In packets; the registers count bytes, or records if INTF_CONFIG0 bit 6 says so."""
        value = self.registers[FIFO_CONFIG3] << 8 | self.registers[FIFO_CONFIG2]
        return value if self._counts_records() else -(-value // self._unit_bytes())

    def _counts_records(self) -> bool:
        return bool(self.registers[INTF_CONFIG0] & 0x40)

    def _decode(self, command: int) -> "tuple[int, bool]":
        return self._banked(command & 0x7F), bool(command & 0x80)

    def _sub_address(self, byte: int) -> int:
        return self._banked(byte)

    def _banked(self, address: int) -> int:
        return address if address == BANK_SEL else (self.registers[BANK_SEL] & 7) << 8 | address

    def _next(self, address: int) -> int:
        if not self._reading:
            return NOWHERE
        return address if address == FIFO_DATA else address + 1

    def _is_port(self, address: int) -> bool:
        return address == FIFO_DATA

    def _take(self, units: int) -> bytes:
        data = Part._take(self, units)
        if len(data) < units * self._unit_bytes():
            data = data + b"\x80" + b"\xff" * (self._unit_bytes() - 1)  # header bit 7: nothing there
        return data

    def _get(self, address: int) -> int:
        if address in (TEMP_DATA1, TEMP_DATA1 + 1):
            return round((self.temperature_c - 25.0) * 132.48) >> 8 * (TEMP_DATA1 + 1 - address) & 0xFF
        if ACCEL_X1 <= address < GYRO_X1:
            return self._data(address)
        if GYRO_X1 <= address <= GYRO_Z0:
            return 0 if self._gyro_on() else INVALID >> 8 * (1 - (address - GYRO_X1) % 2) & 0xFF
        if address == INT_STATUS:
            flags = self._flags()
            self._full = self._reset_done = self._fresh = False
            return flags
        if address in (FIFO_COUNTH, FIFO_COUNTL):
            return self._count(address)
        if address in (FIFO_LOST_PKT0, FIFO_LOST_PKT1):
            return self._lost >> 8 * (address - FIFO_LOST_PKT0) & 0xFF
        return self.registers[address] if address < self.REGISTERS else 0

    def _data(self, address: int) -> int:
        if self.epoch is None:
            return INVALID >> 8 * (1 - (address - ACCEL_X1) % 2) & 0xFF
        axis, low = divmod(address - ACCEL_X1, 2)
        value = self.latest()[axis] >> 2 if self._fine() else self.latest()[axis]
        return value >> 8 * (1 - low) & 0xFF

    def _count(self, address: int) -> int:
        if self._first_count:
            self._first_count = address != FIFO_COUNTL
            return 0
        count = self.fifo.level * (1 if self._counts_records() else self._unit_bytes())
        return count >> 8 if address == FIFO_COUNTH else count & 0xFF

    def _flags(self) -> int:
        """FIFO full (1, latched), threshold (2), data ready (3), reset done (4, latched)."""
        return self._full << 1 | (0 < self._watermark() <= self.fifo.level) << 2 | self._fresh << 3 | self._reset_done << 4

    def write_register(self, address: int, value: int) -> None:
        """The bank register is reachable in every bank; after PWR_MGMT0 the part wants rest."""
        if address == BANK_SEL:
            if value > 4:
                self.refuse(address, value, "no such bank")
            else:
                self.registers[BANK_SEL] = value
        elif self.world.now_us < self._quiet_until_us and not self.world.now_us < self._busy_until_us:
            self.refuse(address, value, "written within 200 us of PWR_MGMT0")
        else:
            Part.write_register(self, address, value)

    def _check(self, address: int, value: int) -> "str | None":
        if address == INTF_CONFIG0 and value & 0x30 != 0x30:
            return "little-endian output is not modelled"
        if address == PWR_MGMT0:
            return self._check_power(value)
        if address == ACCEL_CONFIG0 and (value >> 5 > 3 or value & 0x0F == 0):
            return "reserved full scale or rate"
        if address == ACCEL_CONFIG0 and self.epoch is not None and self._too_fast(self.registers[PWR_MGMT0], value):
            return "rate above 500 Hz needs low-noise mode"
        if address == FIFO_CONFIG1 and value & 0x10 and value & 3 != 3:
            return "20-bit packets hold both sensors"
        if address in (FIFO_CONFIG2, FIFO_CONFIG3) and self.registers[INT_SOURCE0] & 4:
            return "watermark changed with its interrupt on"
        if address == INT_SOURCE0 and value & 4 and not self.registers[FIFO_CONFIG2] | self.registers[FIFO_CONFIG3]:
            return "watermark of zero"
        return None

    def _too_fast(self, power: int, rate: int) -> bool:
        return power & 3 == LOW_POWER and RATES_HZ[rate & 0x0F] > 500.0

    def _check_power(self, value: int) -> "str | None":
        if value & 3 == 1 or value >> 2 & 3 == 2:
            return "reserved mode"
        if self._too_fast(value, self.registers[ACCEL_CONFIG0]):
            return "rate above 500 Hz needs low-noise mode"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == DEVICE_CONFIG and value & 1:
            self.reset(self.RESET_US)
        elif address == PWR_MGMT0:
            self._quiet_until_us = self.world.now_us + self.QUIET_US
            self._power(old, value)
        elif address in (ACCEL_CONFIG0, SELF_TEST_CONFIG) and value != old and self.epoch is not None:
            self._start(0)
        elif address == SIGNAL_PATH_RESET:
            self.registers[SIGNAL_PATH_RESET] = 0
            if value & 0x02:
                self._clear_fifo()
        elif address == FIFO_CONFIG and value >> 6 == BYPASS:
            self._clear_fifo()
        elif address == FIFO_CONFIG1:
            self._clear_fifo()
            self.fifo.capacity = 2048 // self._unit_bytes()

    def _power(self, old: int, value: int) -> None:
        if value & 3 == OFF:
            self._stop()
        elif (value ^ old) & 3 or ((value ^ old) & 0x0C and self.epoch is not None):
            self._start(0 if old & 3 else self.TURN_ON_US)

    def reset(self, busy_us: int) -> None:
        """Back to reset values: counters and the first-count trap too."""
        Part.reset(self, busy_us)
        self.fifo.capacity = self.FIFO_UNITS
        self._quiet_until_us = 0
        self._first_count = self._reset_done = True
        self._full = False
        self._lost = 0

    def int1(self) -> int:
        """Level of the INT1 pin: nothing comes out before INT_ASYNC_RESET is cleared; INT_CONFIG bit 0 makes it active high."""
        return self._pin(INT_SOURCE0, self.registers[INT_CONFIG] & 1)

    def int2(self) -> int:
        """Level of the INT2 pin."""
        return self._pin(INT_SOURCE3, self.registers[INT_CONFIG] >> 3 & 1)

    def _pin(self, source: int, active_high: int) -> int:
        self.catch_up()
        works = not self.registers[INT_CONFIG1] & 0x10
        return int(works and bool(self.registers[source] & self._flags() & 0x0E)) ^ active_high ^ 1
