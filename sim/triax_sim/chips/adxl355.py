"""Virtual ADXL355: 4 kHz low-noise three-axis accelerometer, 20 bits, FIFO of 96 axis entries, SPI or I2C.

Source: facts of the ADXL355 register map (no-OS and Linux adxl355, data sheet Rev. D). What no source states is marked unconfirmed.
Not modelled: filters' effect on the data, activity events, external synchronisation, that in self-test mode the part does not
feel the world.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

STATUS, FIFO_ENTRIES, TEMP2, TEMP1 = 0x04, 0x05, 0x06, 0x07
XDATA3, ZDATA1, FIFO_DATA = 0x08, 0x10, 0x11
OFFSET_X_H = 0x1E
ACT_EN, ACT_THRESH_H, ACT_THRESH_L, ACT_COUNT = 0x24, 0x25, 0x26, 0x27
FILTER, FIFO_SAMPLES, INT_MAP, SYNC, RANGE, POWER_CTL, SELF_TEST, SOFT_RESET = 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x2E, 0x2F
SHADOW = 0x50  # five registers that a good reset restores

ENTRY = 3
EMPTY = b"\x00\x00\x02"  # bit 1 of the last byte: the FIFO was empty


class Twin(Part):
    """The part. Quirk, off (0): `bad_resets` n: the next n soft resets leave wrong shadow registers, to be found by comparing
    them.
    """

    NAME = "adxl355"
    BUSES = ("spi", "i2c")
    I2C_ADDRESSES = (0x1D, 0x53)
    FIFO_UNITS = 96
    CLIP_LOW, CLIP_HIGH = -(1 << 19), (1 << 19) - 1
    IDENTITY = {0x00: 0xAD, 0x01: 0x1D, 0x02: 0xED, 0x03: 0x01}
    RESET = {
        ACT_COUNT: 1,
        FIFO_SAMPLES: 0x60,
        RANGE: 0x81,
        POWER_CTL: 0x01,
        SHADOW: 0x5A,
        0x51: 0x13,
        0x52: 0x77,
        0x53: 0x21,
        0x54: 0x09,
    }
    WRITABLE = {
        ACT_EN: 0x07,
        ACT_THRESH_H: 0xFF,
        ACT_THRESH_L: 0xFF,
        ACT_COUNT: 0xFF,
        FILTER: 0x7F,
        FIFO_SAMPLES: 0x7F,
        INT_MAP: 0xFF,
        SYNC: 0x07,
        RANGE: 0xC3,
        POWER_CTL: 0x07,
        SELF_TEST: 0x03,
        SOFT_RESET: 0xFF,
    }
    STANDBY_ONLY = (FILTER, FIFO_SAMPLES, INT_MAP, SYNC, RANGE)
    QUIRKS = ("bad_resets",)

    LSB_PER_G_2G = 256_000.0
    TOP_RATE_HZ = 4000.0
    TURN_ON_US = 10_000  # unconfirmed
    RESET_US = 1000  # no-OS waits 1 ms, Linux 5 ms
    SELF_TEST_G = (0.3, 0.3, 1.5)  # typical: data sheet Rev. D, Table 2
    TEMPERATURE_25C, TEMPERATURE_SLOPE = 1885.0, -9.05  # 12-bit code, codes per degree

    def _rate_hz(self) -> float:
        return self.TOP_RATE_HZ / (1 << (self.registers[FILTER] & 0x0F))

    def _lsb_per_g(self) -> float:
        return self.LSB_PER_G_2G / (1 << ((self.registers[RANGE] & 3) - 1))

    def _unit_bytes(self) -> int:
        return ENTRY

    def _units_per_sample(self) -> int:
        return 3

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        return pack.big20_marked(counts)

    def _storing(self) -> bool:
        return True

    def _keeps_newest(self) -> bool:
        return True

    def _watermark(self) -> int:
        return self.registers[FIFO_SAMPLES]

    def _shift(self) -> "tuple[int, int, int]":
        """Self-test deflection plus the offset registers, whose weight is data bits 19:4."""
        test = self._lsb_per_g() if self.registers[SELF_TEST] & 3 == 3 else 0.0
        shifts = []
        for axis in range(3):
            at = OFFSET_X_H + 2 * axis
            offset = self.registers[at] << 8 | self.registers[at + 1]
            shifts.append(round(self.SELF_TEST_G[axis] * test) + ((offset - 65536 if offset > 32767 else offset) << 4))
        return shifts[0], shifts[1], shifts[2]

    def _decode(self, command: int) -> "tuple[int, bool]":
        return command >> 1, bool(command & 1)

    def _next(self, address: int) -> int:
        return address if address == FIFO_DATA else address + 1 & 0x7F

    def _is_port(self, address: int) -> bool:
        return address == FIFO_DATA

    def _take(self, units: int) -> bytes:
        data = Part._take(self, units)
        return data + EMPTY * (units - len(data) // ENTRY)

    def _temperature_code(self) -> int:
        return max(0, min(4095, round(self.TEMPERATURE_25C + self.TEMPERATURE_SLOPE * (self.temperature_c - 25.0))))

    def _flags(self) -> int:
        """Data ready, FIFO "full" (it is the watermark), overrun."""
        watermark = self._watermark()
        return int(self._fresh) | (0 < watermark <= self.fifo.level) << 1 | self._overrun << 2

    def _get(self, address: int) -> int:
        if address == STATUS:
            flags = self._flags()
            self._overrun = False  # unconfirmed: latched until read
            return flags
        if address == FIFO_ENTRIES:
            return self.fifo.level
        if address in (TEMP2, TEMP1):
            return self._temperature_code() >> 8 * (TEMP1 - address) & 0xFF
        if XDATA3 <= address <= ZDATA1:
            self._fresh = False
            axis, byte = divmod(address - XDATA3, 3)
            return self.latest()[axis] << 4 >> 8 * (2 - byte) & 0xFF
        return self.registers[address]

    def write_register(self, address: int, value: int) -> None:
        """The six offset registers take any value, in standby only."""
        if OFFSET_X_H <= address < OFFSET_X_H + 6:
            if self._measuring() and value != self.registers[address]:
                self.refuse(address, value, "written while measuring")
            else:
                self.registers[address] = value
            return
        Part.write_register(self, address, value)

    def _check(self, address: int, value: int) -> "str | None":
        if address == FILTER and (value & 0x0F > 10 or value >> 4 == 7):
            return "reserved rate or corner"
        if address == FIFO_SAMPLES and value > self.FIFO_UNITS:
            return "watermark above 96 entries"
        if address == RANGE and value & 3 == 0:
            return "reserved range"
        if address == SYNC and value:
            return "external synchronisation is not modelled"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == SOFT_RESET:
            self.registers[SOFT_RESET] = 0
            if value == 0x52:
                self.reset(self.RESET_US)
                if self.quirks.get("bad_resets", 0) > 0:
                    self.quirks["bad_resets"] -= 1
                    self.registers[SHADOW] ^= 0xFF
        elif address == POWER_CTL and value & 1:
            self._stop()
        elif address == POWER_CTL and old & 1:
            self._start(self.TURN_ON_US)
        elif address == SELF_TEST and value != old and self.epoch is not None:
            self._start(0)

    def int1(self) -> int:
        """Level of the INT1 pin: data ready, watermark, overrun as mapped; RANGE bit 6 makes it active high."""
        return self._pin(self.registers[INT_MAP] & 0x0F)

    def int2(self) -> int:
        """Level of the INT2 pin."""
        return self._pin(self.registers[INT_MAP] >> 4)

    def _pin(self, mapped: int) -> int:
        self.catch_up()
        return int(bool(mapped & self._flags())) ^ (self.registers[RANGE] >> 6 & 1 ^ 1)
