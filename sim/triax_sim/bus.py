"""Virtual SPI and I2C with MicroPython's method names: transfers cost virtual time, protocol errors are refused, faults can be
injected.

Whose fault an error is:

    BusProtocolError    the caller drove the lines wrongly (no chip selected, two selected, clock too fast): a bug
    OSError             what a real bus reports to working code: nobody acknowledged on I2C, a transfer given up

A stuck or noisy SPI bus reports nothing, as in life: it delivers wrong bytes. Runs on MicroPython too.
"""

__all__ = ["BusProtocolError", "Faults", "I2cBus", "SpiBus"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from triax_sim.part import Part
    from triax_sim.world import World

# MicroPython raises OSError(ENODEV) for an address nobody acknowledges, OSError(EIO) for a transfer that its driver gave up.
ENODEV = 19
EIO = 5


class BusProtocolError(Exception):
    """The caller broke the bus protocol; the message says how."""


class Faults:
    """What is wrong with a bus right now. All fields may change while it runs.

    bit_error_rate: chance that a bit read arrives flipped, seeded. stuck: None, or the byte that every read returns while writes
    vanish (0x00 shorted, 0xFF floating). nak: no address acknowledges (I2C only). fail: so many of the next transfers end in
    OSError. `flipped` counts the bits flipped so far.
    """

    def __init__(self, seed: int = 1) -> None:
        self.bit_error_rate = 0.0
        self.stuck: int | None = None
        self.nak = False
        self.fail = 0
        self.flipped = 0
        self._state = (seed * 2654435761 + 12345) & 0xFFFFFFFF or 1

    def _uniform(self) -> float:
        # xorshift32: the same sequence on CPython and MicroPython, where `random` differs.
        x = self._state
        x ^= (x << 13) & 0xFFFFFFFF
        x ^= x >> 17
        x ^= (x << 5) & 0xFFFFFFFF
        self._state = x
        return x / 4294967296.0

    def check(self) -> None:
        """Raise OSError if this transfer is one of those that fail."""
        if self.fail > 0:
            self.fail -= 1
            raise OSError(EIO)

    def spoil(self, view: memoryview) -> None:
        """Do to bytes just read what this bus does to them."""
        if self.stuck is not None:
            for i in range(len(view)):
                view[i] = self.stuck
            return
        rate = self.bit_error_rate
        if rate <= 0.0:
            return
        import math

        # Distance to the next error is geometric: one draw an error, not one a bit.
        scale = 1.0 / math.log(1.0 - rate) if rate < 1.0 else -1e-9
        bit = int(math.log(1.0 - self._uniform()) * scale)
        while bit < len(view) * 8:
            view[bit >> 3] ^= 1 << (bit & 7)
            self.flipped += 1
            bit += 1 + int(math.log(1.0 - self._uniform()) * scale)


class SpiBus:
    """machine.SPI over virtual wires. `attach` gives the chip-select callable of a part; `transfers` and `bytes` count the
    traffic.
    """

    def __init__(self, world: "World", baudrate: int = 8_000_000, polarity: int = 0, phase: int = 0) -> None:
        self.world = world
        self.faults = Faults()
        self.transfers = 0
        self.bytes = 0
        self._selected: Part | None = None
        self.init(baudrate, polarity, phase)

    def init(self, baudrate: int, polarity: int = 0, phase: int = 0) -> None:
        """Set clock (Hz) and mode, as machine.SPI.init."""
        self.baudrate = baudrate
        self.mode = polarity * 2 + phase
        self._byte_ns = 8_000_000_000 // baudrate
        self._suited: list[Part] = []  # parts known to take this clock and mode

    def _check(self, part: "Part") -> None:
        if self.baudrate > part.SPI_MAX_HZ:
            raise BusProtocolError(f"{part.NAME} takes at most {part.SPI_MAX_HZ} Hz, bus runs at {self.baudrate}")
        if self.mode not in part.SPI_MODES:
            raise BusProtocolError(f"{part.NAME} does not speak SPI mode {self.mode}")
        self._suited.append(part)

    def attach(self, part: "Part") -> "Callable[[int], None]":
        """Wire a part to this bus; returns `cs(level)`, 0 selects and 1 releases, as a machine.Pin called with a value."""
        if "spi" not in part.BUSES:
            raise BusProtocolError(f"{part.NAME} has no SPI")

        def cs(level: int) -> None:
            if level:
                if self._selected is part:
                    self._selected = None
                    part.spi_end()
                return
            if self._selected is not None:
                raise BusProtocolError(f"{part.NAME} selected while {self._selected.NAME} still is: chip select not released")
            if part not in self._suited:
                self._check(part)
            self._selected = part
            part.byte_ns = self._byte_ns
            part.spi_begin()

        return cs

    def _transfer(self, tx: "bytes | bytearray | memoryview | None", rx: "memoryview | None", count: int) -> None:
        part = self._selected
        if part is None:
            raise BusProtocolError(f"transfer of {count} bytes with no chip selected")
        self.faults.check()
        if self.faults.stuck is None:
            part.spi_shift(tx, rx, count)
        if rx is not None:
            self.faults.spoil(rx)
        self.transfers += 1
        self.bytes += count
        self.world.spend_ns(count * self._byte_ns)

    def write(self, buf: "bytes | bytearray | memoryview") -> None:
        """Send bytes, discard what comes back."""
        self._transfer(buf, None, len(buf))

    def readinto(self, buf: "bytearray | memoryview", write: int = 0) -> None:
        """Fill `buf` while sending `write` over and over."""
        self._transfer(None, memoryview(buf), len(buf))

    def write_readinto(self, write_buf: "bytes | bytearray | memoryview", read_buf: "bytearray | memoryview") -> None:
        """Send and receive at the same time; the two buffers have the same length (they may be one buffer)."""
        if len(write_buf) != len(read_buf):
            raise BusProtocolError(f"write_readinto of {len(write_buf)} and {len(read_buf)} bytes: lengths differ")
        self._transfer(write_buf, memoryview(read_buf), len(read_buf))


class I2cBus:
    """machine.I2C over virtual wires; a byte takes nine clocks. Addresses are 7 bit."""

    def __init__(self, world: "World", freq: int = 400_000) -> None:
        self.world = world
        self.freq = freq
        self.faults = Faults()
        self.transfers = 0
        self.bytes = 0
        self._parts: dict[int, Part] = {}
        self._byte_ns = 9_000_000_000 // freq

    def attach(self, part: "Part", address: "int | None" = None) -> int:
        """Wire a part at one of the addresses its pins allow (default: its first); returns the address."""
        if "i2c" not in part.BUSES:
            raise BusProtocolError(f"{part.NAME} has no I2C")
        where = part.I2C_ADDRESSES[0] if address is None else address
        if where not in part.I2C_ADDRESSES:
            raise BusProtocolError(f"{part.NAME} cannot answer at 0x{where:02x}")
        if where in self._parts:
            raise BusProtocolError(f"0x{where:02x} is taken by {self._parts[where].NAME}")
        if self.freq > part.I2C_MAX_HZ:
            raise BusProtocolError(f"{part.NAME} takes at most {part.I2C_MAX_HZ} Hz I2C, bus runs at {self.freq}")
        self._parts[where] = part
        return where

    def scan(self) -> "list[int]":
        """Addresses that acknowledge."""
        return [] if self.faults.nak else sorted(self._parts)

    def _spend(self, count: int) -> None:
        self.transfers += 1
        self.bytes += count
        self.world.spend_ns(count * self._byte_ns)

    def _find(self, address: int) -> "Part | None":
        """The part at an address; None when the bus is stuck low, which looks like an acknowledge. OSError: nobody answered."""
        self.faults.check()
        if self.faults.nak or (address not in self._parts and self.faults.stuck != 0) or self.faults.stuck == 0xFF:
            self._spend(1)
            raise OSError(ENODEV)
        return None if self.faults.stuck is not None else self._parts[address]

    def readfrom_mem_into(self, addr: int, memaddr: int, buf: "bytearray | memoryview") -> None:
        """Read registers from `memaddr` on into `buf` (write of the address, repeated start, read)."""
        part = self._find(addr)
        view = memoryview(buf)
        if part is not None:
            part.i2c_write(bytes((memaddr,)))
            part.i2c_read(view)
            part.i2c_stop()
        self.faults.spoil(view)
        self._spend(len(buf) + 3)

    def writeto_mem(self, addr: int, memaddr: int, buf: "bytes | bytearray | memoryview") -> None:
        """Write `buf` to registers from `memaddr` on."""
        self.writeto(addr, bytes((memaddr,)) + bytes(buf))

    def writeto(self, addr: int, buf: "bytes | bytearray | memoryview", stop: bool = True) -> int:
        """Write bytes, the register address first; returns how many were acknowledged."""
        part = self._find(addr)
        if part is not None:
            part.i2c_write(bytes(buf))
            if stop:
                part.i2c_stop()
        self._spend(len(buf) + 1)
        return len(buf)

    def readfrom_into(self, addr: int, buf: "bytearray | memoryview", stop: bool = True) -> None:
        """Read on from the register address last written."""
        part = self._find(addr)
        view = memoryview(buf)
        if part is not None:
            part.i2c_read(view)
            if stop:
                part.i2c_stop()
        self.faults.spoil(view)
        self._spend(len(buf) + 1)
