"""Virtual LIS2DW12: three-axis accelerometer up to 1600 Hz, 12 or 14 bits, FIFO of 32 sets, SPI or I2C.

Source: facts of the LIS2DW12 register map (ST's lis2dw12_reg, Klipper). What no source states is marked unconfirmed. Not modelled:
filters' effect on the data, events, single conversions, the FIFO modes that need an event as a trigger.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

OUT_T_L, OUT_T_H, WHO_AM_I = 0x0D, 0x0E, 0x0F
CTRL1, CTRL2, CTRL3, CTRL4, CTRL5, CTRL6, OUT_T, STATUS = 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27
OUT_X_L, OUT_Z_H, FIFO_CTRL, FIFO_SAMPLES, X_OFS_USR, CTRL7 = 0x28, 0x2D, 0x2E, 0x2F, 0x3C, 0x3F
LOW_POWER, HIGH_PERFORMANCE = 0, 1
BYPASS, STOP_ON_FULL, CONTINUOUS = 0, 1, 6
SET = 6
RATES_HZ = (0.0, 1.6, 12.5, 25.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
MG_14_BIT = (0.244, 0.488, 0.976, 1.952)


class Twin(Part):
    """The part."""

    NAME = "lis2dw12"
    BUSES = ("spi", "i2c")
    SPI_MODES = (3,)
    I2C_ADDRESSES = (0x18, 0x19)
    FIFO_UNITS = 32
    IDENTITY = {WHO_AM_I: 0x44}
    RESET = {CTRL2: 0x04}  # unconfirmed: addresses advance
    WRITABLE = {
        CTRL1: 0xFF,
        CTRL2: 0xDF,
        CTRL3: 0xFF,
        CTRL4: 0xFF,
        CTRL5: 0xFF,
        CTRL6: 0xFC,
        FIFO_CTRL: 0xFF,
        X_OFS_USR: 0xFF,
        X_OFS_USR + 1: 0xFF,
        X_OFS_USR + 2: 0xFF,
        CTRL7: 0xFF,
    }

    TURN_ON_US = 1000  # unconfirmed
    RESET_US = 5  # unconfirmed; drivers poll
    BOOT_US = 20_000  # unconfirmed
    SELF_TEST_G = 0.5  # unconfirmed

    _stopped = False

    def _bits(self) -> int:
        return 12 if self.registers[CTRL1] & 0x0F == 0 else 14

    def _rate_hz(self) -> float:
        return RATES_HZ[self.registers[CTRL1] >> 4]

    def _lsb_per_g(self) -> float:
        return 1000.0 / (MG_14_BIT[self.registers[CTRL6] >> 4 & 3] * (1 << (14 - self._bits())))

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
        return self.registers[FIFO_CTRL] >> 5

    def _storing(self) -> bool:
        return self._mode() != BYPASS and not self._stopped

    def _keeps_newest(self) -> bool:
        return self._mode() == CONTINUOUS

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
        test = (0.0, self.SELF_TEST_G, -self.SELF_TEST_G)[self.registers[CTRL3] >> 6]
        shift = round(test * self._lsb_per_g())
        return shift, shift, shift

    def _decode(self, command: int) -> "tuple[int, bool]":
        return command & 0x7F, bool(command & 0x80)

    def _next(self, address: int) -> int:
        return address + 1 & 0x7F if self.registers[CTRL2] & 0x04 else address

    def _is_port(self, address: int) -> bool:
        return bool(self.registers[CTRL2] & 0x04) and self._mode() != BYPASS and OUT_X_L <= address <= OUT_Z_H

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
        if address in (OUT_T_L, OUT_T_H):
            return self._temperature_code() >> 8 * (address - OUT_T_L) & 0xFF
        if address == OUT_T:
            return self._temperature_code() >> 8 & 0xFF
        if address == STATUS:
            return int(self._fresh) | (self._samples_register() & 0x80)
        if address == FIFO_SAMPLES:
            return self._samples_register()
        return self.registers[address]

    def _samples_register(self) -> int:
        """Unread sets 0 to 32, overrun (6: samples have been overwritten since the last read), threshold (7)."""
        level, watermark = self.fifo.level, self._watermark()
        return level | self._overrun << 6 | (0 < watermark <= level) << 7

    def _temperature_code(self) -> int:
        """256 a degree, 0 at 25 degrees, in 12 bits: the last four are 0."""
        return max(-32768, min(32767, round((self.temperature_c - 25.0) * 16.0) << 4))

    def _check(self, address: int, value: int) -> "str | None":
        if address == CTRL1 and value >> 4 > 9:
            return "reserved rate"
        if address == CTRL1 and value >> 2 & 3 not in (LOW_POWER, HIGH_PERFORMANCE):
            return "single conversions are not modelled"
        if address == CTRL3 and value >> 6 == 3:
            return "reserved self-test"
        if address == FIFO_CTRL and value >> 5 not in (BYPASS, STOP_ON_FULL, CONTINUOUS):
            return "FIFO mode reserved, or its trigger is not modelled"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == CTRL2 and value & 0xC0:
            self.registers[CTRL2] = value & 0x3F
            if value & 0x40:
                self.reset(self.RESET_US)
            else:
                self._busy_until_us = self.world.now_us + self.BOOT_US
        elif address == CTRL1 and value >> 4 == 0:
            self._stop()
        elif address == CTRL1 and value != old:
            self._start(0 if old >> 4 else self.TURN_ON_US)
        elif self.epoch is not None and (
            (address == CTRL6 and (value ^ old) & 0x30) or (address == CTRL3 and (value ^ old) & 0xC0)
        ):
            self._start(0)
        elif address == FIFO_CTRL and self._mode() == BYPASS:
            self._clear_fifo()
            self._stopped = False

    def reset(self, busy_us: int) -> None:
        """Back to reset values; the FIFO starts anew."""
        Part.reset(self, busy_us)
        self._stopped = False

    def int1(self) -> int:
        """Level of the INT1 pin: data ready (CTRL4 bit 0), threshold (1), full (2)."""
        return self._pin(self.registers[CTRL4] & 0x07)

    def int2(self) -> int:
        """Level of the INT2 pin: as INT1 by CTRL5, and overrun (3)."""
        return self._pin(self.registers[CTRL5] & 0x0F)

    def _pin(self, mapped: int) -> int:
        """Nothing comes out before CTRL7 enables interrupts; CTRL3 bit 3 makes the pins active low."""
        self.catch_up()
        register = self._samples_register()
        flags = int(self._fresh) | (register >> 7) << 1 | (self.fifo.level == self.FIFO_UNITS) << 2 | (register >> 6 & 1) << 3
        enabled = bool(self.registers[CTRL7] & 0x20)
        return int(enabled and bool(mapped & flags)) ^ self.registers[CTRL3] >> 3 & 1
