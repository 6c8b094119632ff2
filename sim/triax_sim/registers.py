"""A register file on a bus: what a virtual part looks like from outside.

A write that a real part would ignore or that has no defined effect is not performed and noted in `refusals`: a test of a driver
wants none. Runs on MicroPython too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from triax_sim.world import World

__all__ = ["RegisterFile"]

MAX_REFUSALS = 100


class RegisterFile:
    """Registers behind SPI or I2C. Subclasses restate the data sheet as class constants and a few small methods.

    WRITABLE maps each register that may be written to the bits that may be 1 in it; STANDBY_ONLY are those a measuring part does
    not accept. `planted` overrides what a register reads (a wrong identity).
    """

    NAME = ""
    BUSES: "tuple[str, ...]" = ("spi",)
    SPI_MODES: "tuple[int, ...]" = (0,)
    SPI_MAX_HZ = 10_000_000
    I2C_ADDRESSES: "tuple[int, ...]" = ()
    I2C_MAX_HZ = 400_000
    REGISTERS = 256
    IDENTITY: "dict[int, int]" = {}
    RESET: "dict[int, int]" = {}
    WRITABLE: "dict[int, int]" = {}
    STANDBY_ONLY: "tuple[int, ...]" = ()

    def __init__(self, world: "World") -> None:
        self.world = world
        self.refusals: list[str] = []
        self.planted: dict[int, int] = {}
        self.registers = bytearray(self.REGISTERS)
        self._busy_until_us = 0
        self._address = -1
        self._reading = False
        self._selected = False
        self.byte_ns = 0  # how long a byte takes on the bus that has selected the part
        self._load_reset_values()

    # ---- what a subclass says about itself

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

    def _next(self, address: int) -> int:
        """The address that follows in a burst."""
        return (address + 1) & 0xFF

    def _is_port(self, address: int) -> bool:
        """Whether a read here takes from the FIFO."""
        raise NotImplementedError

    def _read_port(self, view: memoryview) -> int:
        """Fill from the FIFO; returns the bytes taken and leaves `_address` where the part does."""
        raise NotImplementedError

    def _measuring(self) -> bool:
        raise NotImplementedError

    def catch_up(self) -> None:
        """Let happen what was due since the last call."""
        raise NotImplementedError

    def _transaction_over(self) -> None:
        """The bus has let go of the part."""

    # ---- registers

    def _load_reset_values(self) -> None:
        for i in range(len(self.registers)):
            self.registers[i] = 0
        for address, value in self.IDENTITY.items():
            self.registers[address] = value
        for address, value in self.RESET.items():
            self.registers[address] = value

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
        elif address in self.STANDBY_ONLY and self._measuring() and value != self.registers[address]:
            self.refuse(address, value, "written while measuring")
        else:
            reason = self._check(address, value)
            if reason is not None:
                self.refuse(address, value, reason)
            else:
                old = self.registers[address]
                self.registers[address] = value
                self._changed(address, old, value)

    # ---- bus side

    def spi_begin(self) -> None:
        """Chip select falls."""
        self.catch_up()
        self._address = -1
        self._selected = True

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
        self._selected = False
        self._transaction_over()

    def i2c_write(self, data: bytes) -> None:
        """Register address, then bytes for it and its followers."""
        self.catch_up()
        if not data:
            return
        self._reading = False
        self._address = self._sub_address(data[0])
        for value in data[1:]:
            self.write_register(self._address, value)
            self._address = self._next(self._address)

    def _sub_address(self, byte: int) -> int:
        return byte

    def i2c_read(self, view: memoryview) -> None:
        """Bytes from the present register address on."""
        self.catch_up()
        self._reading = True
        self._read_into(view)

    def i2c_stop(self) -> None:
        """The bus is free again."""
        self._transaction_over()

    def _read_into(self, view: memoryview) -> None:
        at = 0
        while at < len(view):
            if self._is_port(self._address) and self.world.now_us >= self._busy_until_us:
                at += self._read_port(view[at:])
            else:
                view[at] = self.read_register(self._address)
                self._address = self._next(self._address)
                at += 1
