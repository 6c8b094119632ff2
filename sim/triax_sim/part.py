"""What every virtual part has: registers, an oscillator, samples from a source, a FIFO, a bus side, and the truth about what was
lost.

A part is lazy. Nothing happens between transactions; at each one it *catches up*: it works out from the world's time and its own
oscillator how many samples it has made since, and lets them flow into the FIFO as ranges of numbers. Counts are asked from the
source and packed into FIFO bytes only when read, a block at once. A `source(first_index, count)` gives raw counts (count, 3),
already quantised and clipped; indices run on over the part's whole life. A source that has `begin(first_index, start_us,
rate_hz, lsb_per_g, low, high)` is told when the part starts to measure with what scale and true rate.

A write that a real part would ignore or that has no defined effect is not performed and noted in `refusals`: a test of a driver
wants none. Runs on MicroPython too.
"""

from triax_sim.fifo import Fifo
from triax_sim.pack import shifted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from triax_sim.world import World

__all__ = ["BLOCK", "Epoch", "Part", "Truth"]

# Samples asked from the source and packed at once. Larger makes no difference to speed (measured); smaller pays Python's
# overhead more often.
BLOCK = 2048
UHZ = 1_000_000_000_000  # microhertz times microseconds in one cycle
MAX_REFUSALS = 100


class Truth:
    """A part's own account of its samples: what really happened, for tests.

    made: by the oscillator. unstored: while the FIFO was off. overwritten: oldest ones, in stream mode. refused: newest ones,
    FIFO full and stopped. dropped: by a planted quirk. cleared: unread in the FIFO when it was reset or the part lost its
    configuration.
    """

    def __init__(self) -> None:
        self.made = 0
        self.unstored = 0
        self.overwritten = 0
        self.refused = 0
        self.dropped = 0
        self.cleared = 0

    @property
    def lost(self) -> int:
        """Samples that were made but that no driver can ever read."""
        return self.unstored + self.overwritten + self.refused + self.dropped + self.cleared


class Epoch:
    """Samples made under one configuration: their times, and their bytes in the FIFO. Numbers in here count from the epoch's
    first sample.
    """

    def __init__(self, part: "Part", number: int, first: int, start_us: int, rate_uhz: int) -> None:
        self.number = number
        self.first = first
        self.start_us = start_us
        self.rate_uhz = rate_uhz
        self.counted = 0  # samples below this are already in the account of losses
        self.shift = part._shift()
        self.unit_bytes = part._unit_bytes()
        self.units_of_block = part._units_until(BLOCK)
        self._part = part
        self._blocks: dict[int, tuple[Any, bytes]] = {}

    def due(self, now_us: int) -> int:
        """How many samples the oscillator has made by now."""
        return (now_us - self.start_us) * self.rate_uhz // UHZ if now_us > self.start_us else 0

    def time_of(self, samples: int) -> int:
        """The first whole microsecond at which this many samples have been made."""
        return self.start_us + -(-samples * UHZ // self.rate_uhz)

    def block(self, number: int) -> "tuple[Any, bytes]":
        """Counts and FIFO bytes of a block; the last two stay, for a burst across their border."""
        known = self._blocks.get(number)
        if known is None:
            known = self._part._make_block(self, number)
            for old in [n for n in self._blocks if n < number - 1]:
                del self._blocks[old]
            self._blocks[number] = known
        return known

    def bytes_of(self, start: int, end: int) -> "list[memoryview]":
        """FIFO bytes of units start..end, as pieces of blocks."""
        size, width = self.units_of_block, self.unit_bytes
        pieces = []
        while start < end:
            number = start // size
            stop = min(end, (number + 1) * size)
            base = number * size
            pieces.append(memoryview(self.block(number)[1])[(start - base) * width : (stop - base) * width])
            start = stop
        return pieces

    def sample(self, index: int) -> "tuple[int, int, int]":
        """x, y, z of one sample in raw counts."""
        counts = self.block(index // BLOCK)[0]
        row = index % BLOCK
        if hasattr(counts, "astype"):
            return int(counts[row, 0]), int(counts[row, 1]), int(counts[row, 2])
        return counts[3 * row], counts[3 * row + 1], counts[3 * row + 2]


class Part:
    """Base of all virtual parts. Subclasses restate the data sheet as class constants and a few small methods.

    WRITABLE maps each register that may be written to the bits that may be 1 in it; STANDBY_ONLY are those a measuring part does
    not accept.
    """

    NAME = ""
    BUSES: "tuple[str, ...]" = ("spi",)
    SPI_MODES: "tuple[int, ...]" = (0,)
    SPI_MAX_HZ = 10_000_000
    I2C_ADDRESSES: "tuple[int, ...]" = ()
    I2C_MAX_HZ = 400_000
    FIFO_UNITS = 0
    CLIP_LOW = -32768
    CLIP_HIGH = 32767
    IDENTITY: "dict[int, int]" = {}
    RESET: "dict[int, int]" = {}
    WRITABLE: "dict[int, int]" = {}
    STANDBY_ONLY: "tuple[int, ...]" = ()
    QUIRKS: "tuple[str, ...]" = ()

    def __init__(self, world: "World", source: "Callable[[int, int], Any]", ppm: float = 0.0, temperature_c: float = 25.0) -> None:
        self.world = world
        self.source = source
        self.ppm = ppm
        self.temperature_c = temperature_c
        self.truth = Truth()
        self.refusals: list[str] = []
        self.planted: dict[int, int] = {}
        self.quirks: dict[str, int] = {}
        self.fifo = Fifo(self.FIFO_UNITS)
        self.registers = bytearray(256)
        self.epoch: Epoch | None = None
        self._epochs: dict[int, Epoch] = {}
        self._epoch_number = 0
        self._made = 0  # samples of this epoch so far
        self._fresh = False  # a sample has come since the data registers were read
        self._overrun = False
        self._skip = 0  # samples a quirk swallows next
        self._busy_until_us = 0
        self._residue = b""
        self._address = -1
        self._reading = False
        self._begin_us = 0
        self._load_reset_values()

    # ---- what a subclass says about itself ---------------------------------------------------------------------------------------

    def _rate_hz(self) -> float:
        """Nominal output rate under the present registers."""
        raise NotImplementedError

    def _lsb_per_g(self) -> float:
        """Scale under the present registers."""
        raise NotImplementedError

    def _clip(self) -> "tuple[int, int]":
        """Lowest and highest code under the present registers."""
        return self.CLIP_LOW, self.CLIP_HIGH

    def _pack(self, epoch: Epoch, first: int, counts: "Any") -> bytes:
        """FIFO bytes of a block of counts whose first sample has the number `first` in its epoch."""
        raise NotImplementedError

    def _unit_bytes(self) -> int:
        raise NotImplementedError

    def _units_per_sample(self) -> int:
        return 1

    def _storing(self) -> bool:
        """Whether samples go into the FIFO."""
        raise NotImplementedError

    def _keeps_newest(self) -> bool:
        """Whether a full FIFO overwrites its oldest (else it refuses new ones)."""
        raise NotImplementedError

    def _watermark(self) -> int:
        """Watermark in units; 0 is off."""
        raise NotImplementedError

    def _decode(self, command: int) -> "tuple[int, bool]":
        """Register address and whether it is a read, from the first SPI byte."""
        raise NotImplementedError

    def _get(self, address: int) -> int:
        """Value of a register as read, side effects of reading included."""
        return self.registers[address]

    def _check(self, address: int, value: int) -> "str | None":
        """Why a write of legal bits is still refused; None accepts it."""
        return None

    def _changed(self, address: int, old: int, value: int) -> None:
        """A register has been written."""

    def _shift(self) -> "tuple[int, int, int]":
        """Counts added to the source by offset registers and self-test."""
        return 0, 0, 0

    def _next(self, address: int) -> int:
        """The address that follows in a burst."""
        return (address + 1) & 0xFF

    def _is_port(self, address: int) -> bool:
        """Whether a read here takes from the FIFO."""
        raise NotImplementedError

    # ---- samples and FIFO --------------------------------------------------------------------------------------------------------

    def _units_until(self, samples: int) -> int:
        return samples * self._units_per_sample()

    def _samples_before(self, unit: int) -> int:
        """Whole samples of the stream that end at or before this unit."""
        return unit // self._units_per_sample()

    def _start(self, turn_on_us: int) -> None:
        """Begin an epoch: measure under the present registers. The first sample is due one period after the turn-on time."""
        self._stop()
        rate_uhz = int(self._rate_hz() * (1_000_000 + self.ppm))
        start_us = self.world.now_us + turn_on_us
        self._epoch_number += 1
        self.epoch = Epoch(self, self._epoch_number, self.truth.made, start_us, rate_uhz)
        self._epochs = {n: e for n, e in self._epochs.items() if self.fifo.level}
        self._epochs[self._epoch_number] = self.epoch
        self._made = 0
        begin = getattr(self.source, "begin", None)
        if begin is not None:
            low, high = self._clip()
            begin(self.truth.made, start_us + 1_000_000 * 1_000_000 / rate_uhz, rate_uhz / 1e6, self._lsb_per_g(), low, high)

    def _stop(self) -> None:
        """Stop measuring; what the FIFO holds stays in it."""
        self.epoch = None

    def _make_block(self, epoch: Epoch, number: int) -> "tuple[Any, bytes]":
        counts = self.source(epoch.first + number * BLOCK, BLOCK)
        low, high = self._clip()
        counts = shifted(counts, epoch.shift, low, high)
        return counts, self._pack(epoch, number * BLOCK, counts)

    def catch_up(self) -> None:
        """Make the samples that were due since the last call."""
        epoch = self.epoch
        if epoch is None:
            return
        made = epoch.due(self.world.now_us)
        first = self._made
        if made > first:
            self._made = made
            self.truth.made += made - first
            self._fresh = True
            self._keep(epoch, first, made)

    def _keep(self, epoch: Epoch, first: int, last: int) -> None:
        """Let samples first..last flow into the FIFO."""
        if not self._storing():
            self.truth.unstored += last - first
            return
        if self._skip:
            swallowed = min(self._skip, last - first)
            self._skip -= swallowed
            self.truth.dropped += swallowed
            first += swallowed
        start = self._units_until(first)
        if self._keeps_newest():
            self.fifo.push(epoch.number, start, self._units_until(last))
            gone = self.fifo.trim()
            if gone:
                self._overrun = True
                self.truth.overwritten += self._samples_in(gone)
            return
        fits = min(last, max(first, self._samples_before(start + self.fifo.capacity - self.fifo.level)))
        self.fifo.push(epoch.number, start, self._units_until(fits))
        if fits < last:
            self._overrun = True
            self.truth.refused += last - fits

    def _samples_in(self, ranges: "list[tuple[int, int, int]]") -> int:
        """Samples that lost at least one unit with these ranges, each counted once."""
        lost = 0
        for number, start, end in ranges:
            epoch = self._epochs[number]
            first = max(self._samples_before(start), epoch.counted)
            last = self._samples_before(end)
            if self._units_until(last) < end:
                last += 1
            if last > first:
                lost += last - first
                epoch.counted = last
        return lost

    def _clear_fifo(self) -> None:
        self.truth.cleared += self._samples_in(self.fifo.clear())
        self._overrun = False

    def _take(self, units: int) -> bytes:
        """Bytes of up to `units` of the oldest units, removed."""
        pieces: list[memoryview] = []
        for number, start, end in self.fifo.pop(units):
            pieces.extend(self._epochs[number].bytes_of(start, end))
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def latest(self) -> "tuple[int, int, int]":
        """Counts in the data registers: those of the newest sample, zeros before the first."""
        if self.epoch is None or self._made == 0:
            return 0, 0, 0
        return self.epoch.sample(self._made - 1)

    @property
    def level(self) -> int:
        """Units in the FIFO now."""
        self.catch_up()
        return self.fifo.level

    def watermark_us(self) -> "int | None":
        """When the FIFO reaches its watermark if nobody reads it; None if it never does. Lets a test jump there instead of
        polling.
        """
        self.catch_up()
        missing = self._watermark() - self.fifo.level
        if self.epoch is None or not self._storing() or self._watermark() == 0:
            return None
        if missing <= 0:
            return self.world.now_us
        target = self._units_until(self._made) + missing
        samples = self._samples_before(target)
        return self.epoch.time_of(samples + (self._units_until(samples) < target))

    # ---- registers ---------------------------------------------------------------------------------------------------------------

    def _load_reset_values(self) -> None:
        for i in range(len(self.registers)):
            self.registers[i] = 0
        for address, value in self.IDENTITY.items():
            self.registers[address] = value
        for address, value in self.RESET.items():
            self.registers[address] = value

    def reset(self, busy_us: int) -> None:
        """Return to reset values and answer nothing for a while; what was in the FIFO is gone."""
        self.catch_up()
        self._clear_fifo()
        self._stop()
        self._load_reset_values()
        self._busy_until_us = self.world.now_us + busy_us

    def refuse(self, address: int, value: int, reason: str) -> None:
        """Note a write that has no effect."""
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append(f"{self.NAME}: 0x{value:02x} to register 0x{address:02x}: {reason}")

    def read_register(self, address: int) -> int:
        """What a bus read of one register gives."""
        if self.world.now_us < self._busy_until_us:
            return 0
        if address in self.planted:
            return self.planted[address]
        return self._get(address)

    def write_register(self, address: int, value: int) -> None:
        """What a bus write of one register does."""
        mask = self.WRITABLE.get(address)
        if self.world.now_us < self._busy_until_us:
            self.refuse(address, value, "the part is still resetting")
        elif mask is None:
            self.refuse(address, value, "not a register that can be written")
        elif value & ~mask:
            self.refuse(address, value, "reserved bits set")
        elif address in self.STANDBY_ONLY and self.epoch is not None and value != self.registers[address]:
            self.refuse(address, value, "written while measuring")
        else:
            reason = self._check(address, value)
            if reason is not None:
                self.refuse(address, value, reason)
            else:
                old = self.registers[address]
                self.registers[address] = value
                self._changed(address, old, value)

    # ---- bus side ----------------------------------------------------------------------------------------------------------------

    def spi_begin(self) -> None:
        """Chip select falls."""
        self.catch_up()
        self._address = -1
        self._residue = b""
        self._begin_us = self.world.now_us

    def spi_shift(self, tx: "bytes | bytearray | memoryview | None", rx: "memoryview | None", count: int) -> None:
        """Exchange bytes while selected; the first one since chip select fell is the command."""
        self.catch_up()
        at = 0
        if self._address < 0:
            self._address, self._reading = self._decode(tx[0] if tx is not None else 0)
            at = 1
            if rx is not None:
                rx[0] = 0
        if at >= count:
            return
        if self._reading:
            self._read_into(memoryview(bytearray(count - at)) if rx is None else rx[at:])
            return
        for i in range(at, count):
            self.write_register(self._address, tx[i] if tx is not None else 0)
            self._address = self._next(self._address)

    def spi_end(self) -> None:
        """Chip select rises."""
        self.catch_up()
        self._residue = b""

    def i2c_write(self, data: bytes) -> None:
        """Register address, then bytes for it and its followers."""
        self.catch_up()
        self._residue = b""
        if not data:
            return
        self._address = self._sub_address(data[0])
        for value in data[1:]:
            self.write_register(self._address, value)
            self._address = self._next(self._address)

    def _sub_address(self, byte: int) -> int:
        return byte

    def i2c_read(self, view: memoryview) -> None:
        """Bytes from the present register address on."""
        self.catch_up()
        self._read_into(view)

    def i2c_stop(self) -> None:
        """The bus is free again."""
        self._residue = b""

    def _read_into(self, view: memoryview) -> None:
        at = 0
        while at < len(view):
            if self._is_port(self._address) and self.world.now_us >= self._busy_until_us:
                at += self._read_port(view[at:])
            else:
                view[at] = self.read_register(self._address)
                self._address = self._next(self._address)
                at += 1

    def _read_port(self, view: memoryview) -> int:
        """Fill from a FIFO port whose address holds; returns the bytes taken. An empty FIFO gives zeros."""
        need = len(view)
        data = self._residue
        if len(data) < need:
            data = data + self._take(-(-(need - len(data)) // self._unit_bytes()))
            if len(data) < need:
                data = data + bytes(need - len(data))
        view[:need] = data[:need]
        self._residue = data[need:]
        return need
