"""Virtual ADXL382: 16 kHz (32, 64) three-axis accelerometer with a FIFO of 320 axis entries, SPI or I2C.

Source: facts of the ADXL380/382 register map (Linux iio adxl380, no-OS adxl38x, data sheet of the ADXL380). What no source
states is marked unconfirmed. Not modelled: filters' effect on the data, activity and tap events, audio and low-power modes, parity.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

STATUS0, STATUS3 = 0x11, 0x14
XDATA_H, TDATA_L = 0x15, 0x1C
FIFO_DATA, FIFO_STATUS0, FIFO_STATUS1 = 0x1D, 0x1E, 0x1F
MISC0 = 0x20
OP_MODE, DIG_EN, REG_RESET = 0x26, 0x27, 0x2A
INT0_MAP0, INT0_MAP1, INT1_MAP0, INT1_MAP1 = 0x2B, 0x2C, 0x2D, 0x2E
FIFO_CFG0, FIFO_CFG1 = 0x30, 0x31
SNSR_AXIS_EN = 0x38
TRIG_CFG = 0x49
X_DSM_OFFSET = 0x4D
FILTER, MISO, INT0_PAD, INT1_PAD = 0x50, 0x58, 0x5D, 0x5E

VERY_LOW_POWER, HIGH_PERFORMANCE = 3, 12
OFF, NORMAL, STREAM, TRIGGERED = 0, 1, 2, 3
# Channel sets the part can digitise: X, Y, XY, Z, YZ, XYZ, T, ZT, YZT, XYZT as DIG_EN bits 7:4 (T Z Y X).
CHANNELS = (0b0001, 0b0010, 0b0011, 0b0100, 0b0110, 0b0111, 0b1000, 0b1100, 0b1110, 0b1111)
CHANNELS_OF = tuple([tuple([n for n in range(4) if mask >> n & 1]) for mask in range(16)])


class Twin(Part):
    """The part. Quirks, all off (0): `misalign_every` n: after each n-th FIFO burst the read pointer skips an entry;
    `lose_in_transaction` 1: samples due while chip select is low are lost; `no_overrun_flag` 1: stream mode has none, as the data
    sheet of the ADXL380 says.
    """

    NAME = "adxl382"
    BUSES = ("spi", "i2c")
    SPI_MAX_HZ = 8_000_000
    I2C_ADDRESSES: "tuple[int, ...]" = (0x54, 0x1D)
    I2C_MAX_HZ = 1_000_000  # unconfirmed
    FIFO_UNITS = 320
    IDENTITY = {0x00: 0xAD, 0x01: 0x1D, 0x02: 0x17, 0x03: 0xC1, MISC0: 0x80}
    RESET = {STATUS0: 0x80, 0x13: 0x04, INT0_MAP0: 0x80, INT1_MAP1: 0x80, 0x33: 0x08, 0x34: 0x1A}
    WRITABLE = {
        OP_MODE: 0xFF,
        DIG_EN: 0xF8,
        REG_RESET: 0xFF,
        INT0_MAP0: 0xFF,
        INT0_MAP1: 0xFF,
        INT1_MAP0: 0xFF,
        INT1_MAP1: 0xFF,
        FIFO_CFG0: 0xF9,
        FIFO_CFG1: 0xFF,
        SNSR_AXIS_EN: 0xE7,
        TRIG_CFG: 0xC0,
        X_DSM_OFFSET: 0xFF,
        X_DSM_OFFSET + 1: 0xFF,
        X_DSM_OFFSET + 2: 0xFF,
        FILTER: 0x7F,
        MISO: 0xFF,
        INT0_PAD: 0xFF,
        INT1_PAD: 0xFF,
    }
    STANDBY_ONLY = (DIG_EN, FIFO_CFG1, TRIG_CFG, FILTER, X_DSM_OFFSET, X_DSM_OFFSET + 1, X_DSM_OFFSET + 2)
    QUIRKS = ("misalign_every", "lose_in_transaction", "no_overrun_flag")

    LSB_PER_G = (2000.0, 1000.0, 500.0)
    HIGH_RATES_HZ = (16_000.0, 32_000.0, 64_000.0)  # HP mode with TRIG_CFG bits 7:6 = 00, 10 (DEC_2X), 01 (SINC_RATE)
    VLP_RATE_HZ = 1000.0
    TURN_ON_US = 2000  # the settling time drivers wait after a mode change
    RESET_US = 500
    SELF_TEST_G = (1.8, 1.8, 1.5)  # half of forward minus reverse: X, Y 3.1..4.2 g, Z 2.6..3.4 g
    TEMPERATURE_25C, TEMPERATURE_SLOPE = 570.0, 10.2  # 12-bit code, codes per degree

    _bursts = 0
    _burst = False

    def _mode(self) -> int:
        return self.registers[OP_MODE] & 0x0F

    def _rate_hz(self) -> float:
        if self._mode() == VERY_LOW_POWER:
            return self.VLP_RATE_HZ
        trigger = self.registers[TRIG_CFG]
        return self.HIGH_RATES_HZ[1 if trigger & 0x80 else 2 if trigger & 0x40 else 0]

    def _lsb_per_g(self) -> float:
        return self.LSB_PER_G[self.registers[OP_MODE] >> 6]

    def _channels(self) -> "tuple[int, ...]":
        """Channel numbers in FIFO order: 0 X, 1 Y, 2 Z, 3 T."""
        return CHANNELS_OF[self.registers[DIG_EN] >> 4]

    def _tagged(self) -> int:
        return self.registers[FIFO_CFG0] >> 6 & 1

    def _units_per_sample(self) -> int:
        return len(self._channels()) or 1

    def _unit_bytes(self) -> int:
        return 2 + self._tagged()

    def _layout(self) -> "tuple[tuple[int, ...], int]":
        return self._channels(), self._tagged()

    def _temperature_code(self) -> int:
        return max(0, min(4095, round(self.TEMPERATURE_25C + self.TEMPERATURE_SLOPE * (self.temperature_c - 25.0))))

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        channels, tagged = epoch.layout
        axes = tuple(n for n in channels if n < 3)
        chosen = pack.select(counts, axes)
        if 3 in channels:
            # 12 bits left justified in 16; the value's sign bit is its top bit, as any other FIFO entry's.
            code = self._temperature_code() << 4
            chosen = pack.with_column(chosen, len(axes), code - 65536 if code > 32767 else code)
        return pack.big16_tagged(chosen, channels) if tagged else pack.big16(chosen)

    def _storing(self) -> bool:
        return bool(self.registers[DIG_EN] & 0x08 and self.registers[FIFO_CFG0] & 0x30)

    def _keeps_newest(self) -> bool:
        return self.registers[FIFO_CFG0] >> 4 & 3 == STREAM

    def _watermark(self) -> int:
        return (self.registers[FIFO_CFG0] & 1) << 8 | self.registers[FIFO_CFG1]

    def _decode(self, command: int) -> "tuple[int, bool]":
        return command >> 1, bool(command & 1)

    def _next(self, address: int) -> int:
        return address + 1 & 0x7F

    def _is_port(self, address: int) -> bool:
        return address == FIFO_DATA

    def _shift(self) -> "tuple[int, int, int]":
        """Self-test: ST_MODE and ST_FORCE deflect, ST_DIR chooses the sign. The offset registers' step is in no source, so they
        move nothing.
        """
        control = self.registers[SNSR_AXIS_EN]
        if control & 0xC0 != 0xC0:
            return 0, 0, 0
        sign = -1.0 if control & 0x20 else 1.0
        x, y, z = (round(sign * g * self._lsb_per_g()) for g in self.SELF_TEST_G)
        return x, y, z

    def _get(self, address: int) -> int:
        if address == STATUS0:
            value = self.registers[STATUS0] | self._fifo_flags()
            self._overrun = False  # unconfirmed: latched until read, as in the sister parts
            return value
        if address == STATUS3:
            return int(self._fresh)
        if XDATA_H <= address <= TDATA_L:
            self._fresh = False
            n, low = divmod(address - XDATA_H, 2)
            value = self.latest()[n] if n < 3 else self._temperature_register()
            return value & 0xFF if low else value >> 8 & 0xFF
        if address == FIFO_STATUS0:
            return self.fifo.level & 0xFF
        if address == FIFO_STATUS1:
            return self.fifo.level >> 8
        return self.registers[address]

    def _temperature_register(self) -> int:
        """12 bits left justified; nothing is measured unless the part runs with its temperature channel on."""
        return self._temperature_code() << 4 if self.epoch is not None and self.registers[DIG_EN] & 0x80 else 0

    def _fifo_flags(self) -> int:
        level, watermark = self.fifo.level, self._watermark()
        full = level + self._units_per_sample() > self.FIFO_UNITS
        overrun = self._overrun and not (self._keeps_newest() and self.quirks.get("no_overrun_flag"))
        return full << 1 | overrun << 2 | (0 < watermark <= level) << 3 | (level > 0) << 4

    def _check(self, address: int, value: int) -> "str | None":
        if address == OP_MODE:
            return self._check_mode(value)
        if address == DIG_EN and value >> 4 and value >> 4 not in CHANNELS:
            return "no such channel set"
        if address == TRIG_CFG and value == 0xC0:
            return "DEC_2X and SINC_RATE exclude each other"
        if address == FILTER and (value & 0x30 and not value & 0x40):
            return "a low-pass needs EQ_BYPASS"
        if address == FILTER and value & 7 == 7:
            return "reserved high-pass corner"
        if address == FIFO_CFG0:
            if value >> 4 & 3 == TRIGGERED:
                return "triggered mode is not modelled"
            # The known remedy for a misaligned pointer switches the mode off and on while measuring; nothing else may change then.
            if self.epoch is not None and (value ^ self.registers[FIFO_CFG0]) & ~0x30:
                return "written while measuring"
        return None

    def _check_mode(self, value: int) -> "str | None":
        if value >> 6 == 3:
            return "reserved range"
        if value & 0x30:
            return "PDM and audio modes are not modelled"
        if value & 0x0F not in (0, VERY_LOW_POWER, HIGH_PERFORMANCE):
            return "mode reserved or not modelled"
        if self.epoch is not None and value & 0x0F and value != self.registers[OP_MODE]:
            return "mode or range changed without standby"
        if value & 0x0F and not self.registers[DIG_EN] & 0xF0:
            return "measuring with no channel enabled"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == REG_RESET:
            self.registers[REG_RESET] = 0
            if value == 0x52:
                self.reset(self.RESET_US)
        elif address == OP_MODE and value & 0x0F == 0:
            self._stop()
        elif address == OP_MODE and value != old:
            self._start(self.TURN_ON_US)
        elif (address == FIFO_CFG0 and (value & 0x30 == 0 or (value ^ old) & 0x40)) or (address == DIG_EN and (value ^ old) & 0xF0):
            self._clear_fifo()
        elif address == SNSR_AXIS_EN and value & 0xE0 != old & 0xE0 and self.epoch is not None:
            self._start(0)

    def _read_port(self, view: memoryview) -> int:
        self._burst = True
        return Part._read_port(self, view)

    def _keep(self, epoch: "Epoch", first: int, last: int) -> None:
        if self._selected and self.quirks.get("lose_in_transaction"):
            self._account.dropped += last - first
        else:
            Part._keep(self, epoch, first, last)

    def spi_end(self) -> None:
        """Chip select rises; samples due until now were due while it was low."""
        self.catch_up()
        Part.spi_end(self)

    def _transaction_over(self) -> None:
        Part._transaction_over(self)
        if self._burst:
            self._burst = False
            self._bursts += 1
            every = self.quirks.get("misalign_every", 0)
            if every and self._bursts % every == 0 and self.fifo.level:
                self._account.dropped += self._samples_in(self.fifo.pop(1))

    def int0(self) -> int:
        """Level of the INT0 pin: the FIFO watermark if mapped, inverted by bit 7 of its pad register."""
        return self._pin(INT0_MAP0, INT0_PAD)

    def int1(self) -> int:
        """Level of the INT1 pin."""
        return self._pin(INT1_MAP0, INT1_PAD)

    def _pin(self, source: int, pad: int) -> int:
        self.catch_up()
        active = bool(self.registers[source] & self._fifo_flags() & 0x08)
        return int(active) ^ self.registers[pad] >> 7
