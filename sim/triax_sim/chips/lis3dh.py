"""Virtual LIS3DH: three-axis accelerometer up to 1344 Hz (5376 in low power), 8 to 12 bits, FIFO of 32 sets, SPI or I2C.

Source: facts of the LIS3DH register map (ST's lis3dh_reg, Klipper, data sheet pages). What no source states is marked
unconfirmed. Not modelled: filters' effect on the data, clicks and events, stream-to-FIFO mode, big-endian output, single axes off.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

OUT_ADC3_L, WHO_AM_I, CTRL0, TEMP_CFG = 0x0C, 0x0F, 0x1E, 0x1F
CTRL1, CTRL2, CTRL3, CTRL4, CTRL5, CTRL6, STATUS = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x27
OUT_X_L, OUT_Z_H, FIFO_CTRL, FIFO_SRC = 0x28, 0x2D, 0x2E, 0x2F
BYPASS, STOP_ON_FULL, STREAM, STREAM_TO_FIFO = 0, 1, 2, 3
SET = 6
LOW_POWER, NORMAL, HIGH_RESOLUTION = 8, 10, 12  # bits of a value
RATES_HZ = (0.0, 1.0, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 1620.0, 1344.0)
MG_PER_DIGIT = {HIGH_RESOLUTION: (1, 2, 4, 12), NORMAL: (4, 8, 16, 48), LOW_POWER: (16, 32, 64, 192)}


class Twin(Part):
    """The part."""

    NAME = "lis3dh"
    BUSES = ("spi", "i2c")
    SPI_MODES = (3,)
    I2C_ADDRESSES = (0x18, 0x19)
    FIFO_UNITS = 32
    IDENTITY = {WHO_AM_I: 0x33}
    RESET = {CTRL0: 0x10, CTRL1: 0x07}  # unconfirmed: axes on, SDO pull-up connected
    WRITABLE = {
        CTRL0: 0xFF,
        TEMP_CFG: 0xC0,
        CTRL1: 0xFF,
        CTRL2: 0xFF,
        CTRL3: 0xF6,
        CTRL4: 0xFF,
        CTRL5: 0xCF,
        CTRL6: 0xFA,
        FIFO_CTRL: 0xFF,
    }

    TURN_ON_US = 1000  # unconfirmed
    BOOT_US = 5000  # unconfirmed
    SELF_TEST_G = 0.2  # unconfirmed

    _multiple = False
    _stopped = False

    def _bits(self) -> int:
        if self.registers[CTRL1] & 0x08:
            return LOW_POWER
        return HIGH_RESOLUTION if self.registers[CTRL4] & 0x08 else NORMAL

    def _rate_hz(self) -> float:
        code = self.registers[CTRL1] >> 4
        return 5376.0 if code == 9 and self._bits() == LOW_POWER else RATES_HZ[code]

    def _lsb_per_g(self) -> float:
        return 1000.0 / MG_PER_DIGIT[self._bits()][self.registers[CTRL4] >> 4 & 3]

    def _clip(self) -> "tuple[int, int]":
        top = 1 << (self._bits() - 1)
        return -top, top - 1

    def _layout(self) -> int:
        """How far left a value stands in its 16 bits."""
        return 16 - self._bits()

    def _unit_bytes(self) -> int:
        return SET

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        left = epoch.layout
        return pack.little16(counts << left if hasattr(counts, "astype") else [value << left for value in counts])

    def _mode(self) -> int:
        return self.registers[FIFO_CTRL] >> 6 if self.registers[CTRL5] & 0x40 else BYPASS

    def _storing(self) -> bool:
        return self._mode() != BYPASS and not self._stopped

    def _keeps_newest(self) -> bool:
        return self._mode() == STREAM

    def _keep(self, epoch: "Epoch", first: int, last: int) -> None:
        """In FIFO mode a full FIFO stops until it has gone through bypass, even if it is read meanwhile."""
        if self._stopped:
            self._account.refused += last - first
            return
        Part._keep(self, epoch, first, last)
        self._stopped = self._mode() == STOP_ON_FULL and self.fifo.level == self.FIFO_UNITS

    def _watermark(self) -> int:
        return self.registers[FIFO_CTRL] & 0x1F

    def _shift(self) -> "tuple[int, int, int]":
        test = (0.0, self.SELF_TEST_G, -self.SELF_TEST_G)[self.registers[CTRL4] >> 1 & 3]
        shift = round(test * self._lsb_per_g())
        return shift, shift, shift

    def _decode(self, command: int) -> "tuple[int, bool]":
        self._multiple = bool(command & 0x40)
        return command & 0x3F, bool(command & 0x80)

    def _sub_address(self, byte: int) -> int:
        self._multiple = bool(byte & 0x80)
        return byte & 0x7F

    def _next(self, address: int) -> int:
        return address + 1 & 0x3F if self._multiple else address

    def _is_port(self, address: int) -> bool:
        return self._multiple and self._mode() != BYPASS and OUT_X_L <= address <= OUT_Z_H

    def _read_port(self, view: memoryview) -> int:
        """Sets from the FIFO; with the FIFO on, the address wraps inside the six data registers."""
        self._overrun = False
        return self._read_window(view, OUT_X_L, SET)

    def _get(self, address: int) -> int:
        if OUT_X_L <= address <= OUT_Z_H:
            self._fresh = False
            axis, high = divmod(address - OUT_X_L, 2)
            left = self.epoch.layout if self.epoch is not None else 0
            return self.latest()[axis] << left >> 8 * high & 0xFF
        if address in (OUT_ADC3_L, OUT_ADC3_L + 1):
            return self._temperature_code() >> 8 * (address - OUT_ADC3_L) & 0xFF
        if address == STATUS:
            return self._fresh << 3 | self._overrun << 7
        if address == FIFO_SRC:
            return self._fifo_source()
        return self.registers[address]

    def _fifo_source(self) -> int:
        """Unread sets, at most 31 in five bits: when all 32 are full the overrun bit says so. Empty (5), overrun (6), watermark
        (7).
        """
        level, watermark = self.fifo.level, self._watermark()
        full = self._mode() != BYPASS and level == self.FIFO_UNITS
        return min(level, 31) | (level == 0) << 5 | full << 6 | (0 < watermark <= level) << 7

    def _temperature_code(self) -> int:
        """Left-justified difference to 25 degrees: a quarter degree a step in 10 bits, a degree in 8; nothing unless switched
        on.
        """
        if self.registers[TEMP_CFG] & 0xC0 != 0xC0:
            return 0
        degrees = self.temperature_c - 25.0
        return round(degrees) << 8 if self._bits() == LOW_POWER else round(degrees * 4) << 6

    def _check(self, address: int, value: int) -> "str | None":
        if address == CTRL1:
            return self._check_rate(value)
        if address == CTRL4 and value & 0x40:
            return "big-endian output is not modelled"
        if address == CTRL4 and value & 0x06 == 0x06:
            return "reserved self-test"
        if address == CTRL4 and value & 0x08 and self.registers[CTRL1] & 0x08:
            return "high resolution in low power"
        if address == FIFO_CTRL and value >> 6 == STREAM_TO_FIFO:
            return "stream-to-FIFO mode is not modelled"
        return None

    def _check_rate(self, value: int) -> "str | None":
        code, low_power = value >> 4, value & 0x08
        if code > 9:
            return "reserved rate"
        if code == 8 and not low_power:
            return "1620 Hz is for low power only"
        if code and value & 7 != 7:
            return "single axes off are not modelled"
        if low_power and self.registers[CTRL4] & 0x08:
            return "low power in high resolution"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == CTRL1 and value >> 4 == 0:
            self._stop()
        elif address == CTRL1 and value != old:
            self._start(0 if old >> 4 else self.TURN_ON_US)
        elif address == CTRL4 and (value ^ old) & 0x3E and self.epoch is not None:
            self._start(0)
        elif address == CTRL5 and value & 0x80:
            self.registers[CTRL5] &= 0x7F
            self._busy_until_us = self.world.now_us + self.BOOT_US
        if address in (FIFO_CTRL, CTRL5) and self._mode() == BYPASS:
            self._clear_fifo()
            self._stopped = False

    def reset(self, busy_us: int) -> None:
        """No command does this, a supply dip does."""
        Part.reset(self, busy_us)
        self._stopped = False

    def int1(self) -> int:
        """Level of the INT1 pin: data ready (CTRL3 bit 4), watermark (2), overrun (1); CTRL6 bit 1 makes it active low."""
        self.catch_up()
        source = self._fifo_source()
        flags = self._fresh << 4 | (source >> 7 & 1) << 2 | (source >> 6 & 1) << 1
        return int(bool(self.registers[CTRL3] & flags)) ^ self.registers[CTRL6] >> 1 & 1
