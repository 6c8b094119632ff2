"""Virtual IIS3DWB: 26.667 kHz three-axis accelerometer with a FIFO of 512 tagged words, SPI.

Source: facts of the IIS3DWB register map (ST's iis3dwb_reg, its examples, Zephyr). What no source states is marked unconfirmed.
Not modelled: filters' effect on the data, wake-up events, the FIFO modes that need one as a trigger, single-axis mode, the batch
counter.
"""

from triax_sim import pack
from triax_sim.epoch import BLOCK
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

PIN_CTRL = 0x02
FIFO_CTRL1, FIFO_CTRL2, FIFO_CTRL3, FIFO_CTRL4 = 0x07, 0x08, 0x09, 0x0A
COUNTER_BDR_REG1, COUNTER_BDR_REG2 = 0x0B, 0x0C
INT1_CTRL, INT2_CTRL, WHO_AM_I = 0x0D, 0x0E, 0x0F
CTRL1_XL, CTRL3_C, CTRL4_C, CTRL5_C, CTRL6_C, CTRL7_C, CTRL8_XL, CTRL10_C = 0x10, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x19
STATUS_REG, OUT_TEMP_L, OUTX_L_A, OUTZ_H_A = 0x1E, 0x20, 0x28, 0x2D
FIFO_STATUS1, FIFO_STATUS2 = 0x3A, 0x3B
TIMESTAMP0, TIMESTAMP2 = 0x40, 0x42
SLOPE_EN, INTERRUPTS_EN, WAKE_UP_THS, WAKE_UP_DUR, MD1_CFG, MD2_CFG = 0x56, 0x58, 0x5B, 0x5C, 0x5E, 0x5F
INTERNAL_FREQ_FINE, X_OFS_USR = 0x63, 0x73
TAG, DATA_Z_H = 0x78, 0x7E

POWER_DOWN, ON = 0, 5
BYPASS, STOP_ON_FULL, CONTINUOUS = 0, 1, 6
TAG_ACCELERATION, TAG_TEMPERATURE, TAG_TIMESTAMP = 2, 3, 4
WORD = 7
TEMPERATURE_EVERY = 256  # samples: 26667 / 104 Hz
PPM_PER_STEP = 1500.0  # INTERNAL_FREQ_FINE counts 0.15 %


class Twin(Part):
    """The part. Quirk, off (0): `lose_at_cycle` n: the first n samples after the FIFO leaves bypass are lost."""

    NAME = "iis3dwb"
    SPI_MODES = (0, 3)
    FIFO_UNITS = 512
    IDENTITY = {WHO_AM_I: 0x7B}
    RESET = {CTRL3_C: 0x04}
    WRITABLE = {
        PIN_CTRL: 0x7F,
        FIFO_CTRL1: 0xFF,
        FIFO_CTRL2: 0x81,
        FIFO_CTRL3: 0x0F,
        FIFO_CTRL4: 0xF7,
        COUNTER_BDR_REG1: 0xC7,
        COUNTER_BDR_REG2: 0xFF,
        INT1_CTRL: 0x7D,
        INT2_CTRL: 0x7D,
        CTRL1_XL: 0xEE,
        CTRL3_C: 0xFD,
        CTRL4_C: 0x2F,
        CTRL5_C: 0x63,
        CTRL6_C: 0x0B,
        CTRL7_C: 0x02,
        CTRL8_XL: 0xFC,
        CTRL10_C: 0x20,
        TIMESTAMP2: 0xFF,
        SLOPE_EN: 0x30,
        INTERRUPTS_EN: 0x80,
        WAKE_UP_THS: 0x3F,
        WAKE_UP_DUR: 0xFF,
        MD1_CFG: 0xFF,
        MD2_CFG: 0xFF,
        X_OFS_USR: 0xFF,
        X_OFS_USR + 1: 0xFF,
        X_OFS_USR + 2: 0xFF,
    }
    QUIRKS = ("lose_at_cycle",)

    RATE_HZ = 26_667.0
    MG_PER_LSB = (0.061, 0.488, 0.122, 0.244)  # by FS code: 2, 16, 4, 8 g
    TURN_ON_US = 10_000  # unconfirmed
    RESET_US = 50  # drivers poll; ST states 50 us for the sister parts (unconfirmed)
    BOOT_US = 10_000
    SELF_TEST_G = 1.5  # unconfirmed
    TIMESTAMP_US = 25

    _latched = False
    _counting_since_us = 0

    def _rate_hz(self) -> float:
        return self.RATE_HZ

    def _lsb_per_g(self) -> float:
        return 1000.0 / self.MG_PER_LSB[self.registers[CTRL1_XL] >> 2 & 3]

    def _unit_bytes(self) -> int:
        return WORD

    def _timestamp_every(self) -> int:
        """Samples per batched timestamp word; 0 is off."""
        if not self.registers[CTRL10_C] & 0x20:
            return 0
        return (0, 1, 8, 32)[self.registers[FIFO_CTRL4] >> 6]

    def _temperature_every(self) -> int:
        return TEMPERATURE_EVERY if self.registers[FIFO_CTRL4] & 0x30 else 0

    def _units_until(self, samples: int) -> int:
        """A timestamp or temperature word precedes the sample whose number its period divides."""
        units = samples
        for every in (self._timestamp_every(), self._temperature_every()):
            if every:
                units += -(-samples // every)
        return units

    def _samples_before(self, unit: int) -> int:
        low, high = 0, unit
        if self._units_until(unit) == unit:
            return unit
        while low < high:
            middle = (low + high + 1) // 2
            if self._units_until(middle) <= unit:
                low = middle
            else:
                high = middle - 1
        return low

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        plain = pack.tagged_words(counts, first, TAG_ACCELERATION)
        stamps, temperatures = self._timestamp_every(), self._temperature_every()
        if not stamps and not temperatures:
            return plain
        out = bytearray()
        step = stamps or temperatures
        for row in range(0, BLOCK, step):
            for sensor, every in ((TAG_TIMESTAMP, stamps), (TAG_TEMPERATURE, temperatures)):
                if every and (first + row) % every == 0:
                    out.extend(self._extra_word(epoch, first + row, sensor))
            out.extend(plain[row * WORD : (row + step) * WORD])
        return bytes(out)

    def _extra_word(self, epoch: "Epoch", sample: int, sensor: int) -> bytes:
        tag = pack.even_parity(sensor << 3 | sample % 4 << 1)
        value = self._temperature_code() if sensor == TAG_TEMPERATURE else self._timestamp(epoch.time_of(sample + 1))
        return bytes((tag, value & 0xFF, value >> 8 & 0xFF, value >> 16 & 0xFF, value >> 24 & 0xFF, 0, 0))

    def _temperature_code(self) -> int:
        return max(-32768, min(32767, round((self.temperature_c - 25.0) * 256.0)))

    def _timestamp(self, now_us: int) -> int:
        """Counts of the part's own 25 us clock, which shares the oscillator's error."""
        if not self.registers[CTRL10_C] & 0x20:
            return 0
        elapsed = (now_us - self._counting_since_us) * int(1_000_000 + self.ppm)
        return elapsed // (self.TIMESTAMP_US * 1_000_000) & 0xFFFFFFFF

    def _storing(self) -> bool:
        return bool(self.registers[FIFO_CTRL3] and self.registers[FIFO_CTRL4] & 7)

    def _keeps_newest(self) -> bool:
        return self.registers[FIFO_CTRL4] & 7 == CONTINUOUS

    def _watermark(self) -> int:
        return (self.registers[FIFO_CTRL2] & 1) << 8 | self.registers[FIFO_CTRL1]

    def _decode(self, command: int) -> "tuple[int, bool]":
        return command & 0x7F, bool(command & 0x80)

    def _next(self, address: int) -> int:
        if not self.registers[CTRL3_C] & 0x04:
            return address
        return TAG if address == DATA_Z_H else address + 1 & 0x7F

    def _is_port(self, address: int) -> bool:
        return TAG <= address <= DATA_Z_H

    def _shift(self) -> "tuple[int, int, int]":
        """Self-test deflection, and the user offset if CTRL7_C puts it on the output."""
        lsb_per_g = self._lsb_per_g()
        test = (0.0, self.SELF_TEST_G, -self.SELF_TEST_G)[self.registers[CTRL5_C] & 3] * lsb_per_g
        weight = (1 / 64 if self.registers[CTRL6_C] & 8 else 1 / 1024) * lsb_per_g if self.registers[CTRL7_C] & 2 else 0.0
        offsets = [value - 256 if value > 127 else value for value in self.registers[X_OFS_USR : X_OFS_USR + 3]]
        x, y, z = (round(test + weight * offset) for offset in offsets)
        return x, y, z

    def _get(self, address: int) -> int:
        if address == FIFO_STATUS1:
            return self.fifo.level & 0xFF
        if address == FIFO_STATUS2:
            return self._fifo_status2()
        if address == STATUS_REG:
            return int(self._fresh) | 0x04
        if address in (OUT_TEMP_L, OUT_TEMP_L + 1):
            return self._temperature_code() >> 8 * (address - OUT_TEMP_L) & 0xFF
        if OUTX_L_A <= address <= OUTZ_H_A:
            self._fresh = False
            axis, high = divmod(address - OUTX_L_A, 2)
            return self.latest()[axis] >> 8 * high & 0xFF
        if TIMESTAMP0 <= address < TIMESTAMP0 + 4:
            return self._timestamp(self.world.now_us) >> 8 * (address - TIMESTAMP0) & 0xFF
        if address == INTERNAL_FREQ_FINE:
            return max(-128, min(127, round(self.ppm / PPM_PER_STEP))) & 0xFF
        return self.registers[address]

    def _fifo_status2(self) -> int:
        """Level's high bits; overrun latched (3, until read), full at the next write (5), overrun (6), watermark (7)."""
        level, watermark = self.fifo.level, self._watermark()
        value = level >> 8 | self._latched << 3 | (level + 1 >= self.fifo.capacity) << 5
        value |= self._overrun << 6 | (0 < watermark <= level) << 7
        self._latched = False
        return value

    def _keep(self, epoch: "Epoch", first: int, last: int) -> None:
        Part._keep(self, epoch, first, last)
        self._latched = self._latched or self._overrun

    def _check(self, address: int, value: int) -> "str | None":
        if address == CTRL1_XL and value >> 5 not in (POWER_DOWN, ON):
            return "XL_EN is 0 or 5"
        if address == FIFO_CTRL3 and value not in (0, 10):
            return "BDR_XL is 0 or 10"
        if address == FIFO_CTRL4 and value & 7 not in (BYPASS, STOP_ON_FULL, CONTINUOUS):
            return "FIFO mode reserved, or its trigger is not modelled"
        if address == FIFO_CTRL4 and value & 0x30 not in (0, 0x30):
            return "temperature batching is 0 or 3"
        if address == CTRL5_C and value & 3 == 3:
            return "reserved self-test"
        if address == CTRL6_C and value & 3:
            return "single-axis mode is not modelled"
        if address in (FIFO_CTRL4, CTRL10_C) and self.fifo.level and (value ^ self.registers[address]) & 0xF0 and value & 7:
            return "batching changed with words in the FIFO"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == CTRL3_C and value & 0x81:
            self.registers[CTRL3_C] = value & 0x7E
            if value & 1:
                self.reset(self.RESET_US)
            else:
                self._busy_until_us = self.world.now_us + self.BOOT_US
        elif address == CTRL1_XL and value >> 5 == POWER_DOWN:
            self._stop()
        elif address == CTRL1_XL and (value ^ old) & 0xEC:
            self._start(0 if old >> 5 else self.TURN_ON_US)
        elif address == FIFO_CTRL4:
            self._change_fifo(old, value)
        elif address == FIFO_CTRL2:
            self.fifo.capacity = max(1, self._watermark()) if value & 0x80 else self.FIFO_UNITS
        elif address == FIFO_CTRL1 and self.registers[FIFO_CTRL2] & 0x80:
            self.fifo.capacity = max(1, self._watermark())
        elif (address == CTRL10_C and value & ~old) or (address == TIMESTAMP2 and value == 0xAA):
            self._counting_since_us = self.world.now_us
        elif self.epoch is not None and self._shift() != self.epoch.shift:
            self._start(0)

    def _change_fifo(self, old: int, value: int) -> None:
        if value & 7 == BYPASS:
            self._clear_fifo()
        elif old & 7 == BYPASS:
            self._skip = self.quirks.get("lose_at_cycle", 0)

    def _read_port(self, view: memoryview) -> int:
        """Words from the FIFO; the address wraps from the last byte of a word to its tag."""
        self._overrun = False
        return self._read_window(view, TAG, WORD)

    def int1(self) -> int:
        """Level of the INT1 pin."""
        return self._pin(INT1_CTRL)

    def int2(self) -> int:
        """Level of the INT2 pin."""
        return self._pin(INT2_CTRL)

    def _pin(self, source: int) -> int:
        """Data ready (bit 0), watermark (3), overrun (4) and full (5) as routed, inverted by H_LACTIVE."""
        self.catch_up()
        level, watermark = self.fifo.level, self._watermark()
        flags = int(self._fresh) | (0 < watermark <= level) << 3 | self._overrun << 4 | (level + 1 >= self.fifo.capacity) << 5
        return int(bool(self.registers[source] & flags)) ^ self.registers[CTRL3_C] >> 5 & 1
