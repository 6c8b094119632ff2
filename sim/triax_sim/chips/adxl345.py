"""Virtual ADXL345: 3.2 kHz three-axis accelerometer, 10 to 13 bits, FIFO of 32 sets behind its data registers, SPI or I2C.

Source: facts of the ADXL345 register map (Linux adxl345, no-OS, Klipper, data sheet pages). What no source states is marked
unconfirmed. Not modelled: taps, activity, free fall, sleep, the trigger FIFO mode, low power's noise.
"""

from triax_sim import pack
from triax_sim.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from triax_sim.epoch import Epoch

__all__ = ["Twin"]

DEVID = 0x00
OFSX = 0x1E
BW_RATE, POWER_CTL, INT_ENABLE, INT_MAP, INT_SOURCE, DATA_FORMAT = 0x2C, 0x2D, 0x2E, 0x2F, 0x30, 0x31
DATAX0, DATAZ1, FIFO_CTL, FIFO_STATUS = 0x32, 0x37, 0x38, 0x39
BYPASS, STOP_ON_FULL, STREAM, TRIGGER = 0, 1, 2, 3
SET = 6
# From the end of a read of a set to the first data byte of the next one (or of FIFO_STATUS) the FIFO needs 5 us. At 1.6 MHz the
# address byte between them takes as long; above, chip select must stay high longer.
POP_NS = 5000


class Twin(Part):
    """The part. Its own clock is often some percent off: `ppm`."""

    NAME = "adxl345"
    BUSES = ("spi", "i2c")
    SPI_MODES = (3,)
    SPI_MAX_HZ = 5_000_000
    I2C_ADDRESSES = (0x53, 0x1D)
    FIFO_UNITS = 32
    IDENTITY = {DEVID: 0xE5}
    RESET = {BW_RATE: 0x0A}
    WRITABLE = dict.fromkeys(range(29, 42), 255)
    WRITABLE.update(
        {0x2A: 0x0F, BW_RATE: 0x1F, POWER_CTL: 0x3F, INT_ENABLE: 0xFF, INT_MAP: 0xFF, DATA_FORMAT: 0xEF, FIFO_CTL: 0xFF}
    )
    STANDBY_ONLY = (BW_RATE, DATA_FORMAT)

    TOP_RATE_HZ = 3200.0
    TURN_ON_US = 1100  # plus one period
    SELF_TEST_G = (2.0, -2.0, 2.7)  # the middle of the limits at a supply of 3.3 V: data sheet Rev. E, Tables 14 and 15

    _multiple = False
    _read_through = False  # this transaction has read DATAZ1
    _popped_ns = -POP_NS
    _stale = _shown = bytes(SET)

    def _rate_hz(self) -> float:
        return self.TOP_RATE_HZ / (1 << (15 - (self.registers[BW_RATE] & 0x0F)))

    def _full_resolution(self) -> bool:
        return bool(self.registers[DATA_FORMAT] & 0x08)

    def _range(self) -> int:
        return self.registers[DATA_FORMAT] & 3

    def _lsb_per_g(self) -> float:
        return 256.0 if self._full_resolution() else 256.0 / (1 << self._range())

    def _clip(self) -> "tuple[int, int]":
        top = 512 << self._range() if self._full_resolution() else 512
        return -top, top - 1

    def _layout(self) -> "tuple[int, int]":
        """Mask of the bits that carry data, and how far left they stand."""
        fast = self.registers[BW_RATE] & 0x0F >= 0x0E
        # At 3200 and 1600 Hz the last bit is always 0 in full resolution and at +-2 g.
        mask = ~1 if fast and (self._full_resolution() or self._range() == 0) else ~0
        left = 6 - (self._range() if self._full_resolution() else 0) if self.registers[DATA_FORMAT] & 0x04 else 0
        return mask, left

    def _unit_bytes(self) -> int:
        return SET

    def _formatted(self, layout: "tuple[int, int]", counts: "Any") -> "Any":
        mask, left = layout
        return (counts & mask) << left if hasattr(counts, "astype") else [(value & mask) << left for value in counts]

    def _pack(self, epoch: "Epoch", first: int, counts: "Any") -> bytes:
        return pack.little16(self._formatted(epoch.layout, counts))

    def _mode(self) -> int:
        return self.registers[FIFO_CTL] >> 6

    def _storing(self) -> bool:
        return self._mode() != BYPASS

    def _keeps_newest(self) -> bool:
        return self._mode() == STREAM

    def _watermark(self) -> int:
        return self.registers[FIFO_CTL] & 0x1F

    def _shift(self) -> "tuple[int, int, int]":
        """Self-test deflection plus the offset registers: 15.6 mg a step, four steps of full resolution."""
        test = self._lsb_per_g() if self.registers[DATA_FORMAT] & 0x80 else 0.0
        shifts = []
        for axis in range(3):
            offset = self.registers[OFSX + axis]
            steps = (offset - 256 if offset > 127 else offset) * 4 * self._lsb_per_g() / 256.0
            shifts.append(round(self.SELF_TEST_G[axis] * test + steps))
        return shifts[0], shifts[1], shifts[2]

    def _decode(self, command: int) -> "tuple[int, bool]":
        self._multiple = bool(command & 0x40)
        return command & 0x3F, bool(command & 0x80)

    def _sub_address(self, byte: int) -> int:
        self._multiple = True
        return byte & 0x3F

    def _next(self, address: int) -> int:
        return address + 1 & 0x3F if self._multiple else address

    def _is_port(self, address: int) -> bool:
        """A burst over the data registers, in which the FIFO shows its oldest set; single reads go the long way."""
        return address == DATAX0 and self._multiple and self._mode() != BYPASS

    def _read_port(self, view: memoryview) -> int:
        """As six registers one after the other, in one step."""
        if len(view) < SET:
            for i in range(len(view)):
                view[i] = self._data(self._address + i)
            self._address += len(view)
            return len(view)
        self._fresh = False
        if self._settled():
            self._read_through = True
            self._shown = self._peek(SET)
            view[:SET] = self._shown
        else:
            view[:SET] = self._stale
        self._address = FIFO_CTL
        return SET

    def _settled(self) -> bool:
        return self.world.now_ns + self.byte_ns - self._popped_ns >= POP_NS

    def _get(self, address: int) -> int:
        if DATAX0 <= address <= DATAZ1:
            return self._data(address)
        if address == INT_SOURCE:
            return self._flags()
        if address == FIFO_STATUS:
            # Read within 5 us of a pop it still counts the set just read.
            return min(32, self.fifo.level + (not self._settled()))
        return self.registers[address]

    def _data(self, address: int) -> int:
        """A byte of the oldest set, or of the newest sample in bypass; the transaction that reads the last one takes the set."""
        self._fresh = False
        if self._mode() != BYPASS and not self._settled():
            return self._stale[address - DATAX0]
        if address == DATAZ1:
            self._read_through = True
        if self._mode() != BYPASS:
            self._shown = self._peek(SET)
            return self._shown[address - DATAX0]
        if self.epoch is None:
            return 0
        axis, high = divmod(address - DATAX0, 2)
        return int(self._formatted(self.epoch.layout, self.latest()[axis : axis + 1])[0]) >> 8 * high & 0xFF

    def _transaction_over(self) -> None:
        if not self._read_through:
            return
        self._read_through = False
        self._overrun = False  # reading the data registers clears it
        if self._mode() != BYPASS:
            self._stale = self._shown
            self.fifo.pop(1)
            self._popped_ns = self.world.now_ns

    def _flags(self) -> int:
        """Data ready (7), watermark (1), overrun (0)."""
        ready = self.fifo.level > 0 if self._mode() != BYPASS else self._fresh
        return ready << 7 | (0 < self._watermark() <= self.fifo.level) << 1 | int(self._overrun)

    def _check(self, address: int, value: int) -> "str | None":
        if address == POWER_CTL and value & 0x07:
            return "sleep and wake-up rates are not modelled"
        if address == FIFO_CTL and value >> 6 == TRIGGER:
            return "trigger mode is not modelled"
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        if address == POWER_CTL and value & 8 and not old & 8:
            self._start(self.TURN_ON_US)
        elif address == POWER_CTL and not value & 8:
            self._stop()
        elif address == FIFO_CTL and value >> 6 == BYPASS:
            self._clear_fifo()
        elif OFSX <= address < OFSX + 3 and value != old and self.epoch is not None:
            self._start(0)

    def write_register(self, address: int, value: int) -> None:
        """The self-test bit may change while measuring; everything else in DATA_FORMAT may not."""
        testing = address == DATA_FORMAT and self._measuring() and (value ^ self.registers[DATA_FORMAT]) == 0x80
        if testing:
            self.registers[DATA_FORMAT] = value
            self._start(0)
        else:
            Part.write_register(self, address, value)

    def int1(self) -> int:
        """Level of the INT1 pin: enabled sources whose INT_MAP bit is 0; DATA_FORMAT bit 5 inverts."""
        return self._pin(~self.registers[INT_MAP])

    def int2(self) -> int:
        """Level of the INT2 pin."""
        return self._pin(self.registers[INT_MAP])

    def _pin(self, mapped: int) -> int:
        self.catch_up()
        active = bool(self._flags() & self.registers[INT_ENABLE] & mapped)
        return int(active) ^ self.registers[DATA_FORMAT] >> 5 & 1
