"""A part on a bus: register reads and writes, and bursts whose buffers are made once.

A driver gets a device, not a bus: it never sees chip select, and chip select is released whatever happens. If the transfer
fails, its error is the one reported, also if releasing chip select fails too.

SPI bus, as MicroPython has it: `write_readinto(tx, rx)`. Chip select: a callable, `cs(0)` selects. I2C bus:
`readfrom_mem_into(address, register, buffer)`, `writeto_mem(address, register, buffer)`. The port opens the bus with the part's
SPI_MODE and clock. OSError of the bus passes through.
"""

import sys

_EVERY_LENGTH = sys.implementation.name != "micropython"  # a slice for each length of a burst: 16 kB more on a microcontroller


class SpiDevice:
    """A part on SPI. `sleep_us(us)` waits (virtual time in the simulator).

        device = SpiDevice(machine.SPI(1, 8_000_000), Pin(5, Pin.OUT, value=1), time.sleep_us)

    `addressing` tells how this part forms the first byte of a transfer; drivers call it, nobody else.
    """

    KIND = "spi"
    every_length = _EVERY_LENGTH

    def __init__(self, spi, cs, sleep_us) -> None:
        self._spi = spi
        self._cs = cs
        self.sleep_us = sleep_us
        self._shift = 0
        self._read = 0x80
        self._multiple = 0
        self._tx = bytearray(2)
        self._rx = bytearray(2)
        cs(1)

    def addressing(self, shift: int, read: int, multiple: int, i2c_multiple: int) -> None:
        """First byte = register << shift | read (on a read) | multiple (more than one byte)."""
        self._shift = shift
        self._read = read
        self._multiple = multiple

    def command(self, register: int, count: int) -> int:
        """First byte of a read of `count` bytes."""
        return register << self._shift | self._read | (self._multiple if count > 1 else 0)

    def transfer(self, tx, rx) -> None:
        """Exchange `tx` for `rx` (equal lengths) with the part selected."""
        try:
            self._cs(0)
            self._spi.write_readinto(tx, rx)
        except BaseException:
            try:
                self._cs(1)
            except OSError:
                pass  # the first error is the cause
            raise
        self._cs(1)

    def read(self, register: int) -> int:
        """One register."""
        self._tx[0] = register << self._shift | self._read
        self._tx[1] = 0
        self.transfer(self._tx, self._rx)
        return self._rx[1]

    def write(self, register: int, value: int) -> None:
        """Write one register."""
        self._tx[0] = register << self._shift
        self._tx[1] = value
        self.transfer(self._tx, self._rx)

    def burst(self, register: int, unit: int, units: int, spare: int = 0):
        """Buffers for reads of 1 to `units` times `unit` bytes from `register` on: make them at start, read without allocating.

        `spare`: bytes of buffer behind what is read, for the driver's use.
        """
        return _SpiBurst(self, register, unit, units, spare)


class I2cDevice:
    """A part on I2C at a 7-bit address; the same operations as SpiDevice."""

    KIND = "i2c"
    every_length = _EVERY_LENGTH

    def __init__(self, i2c, address: int, sleep_us) -> None:
        self._i2c = i2c
        self._address = address
        self.sleep_us = sleep_us
        self._multiple = 0
        self._byte = bytearray(1)

    def addressing(self, shift: int, read: int, multiple: int, i2c_multiple: int) -> None:
        """`i2c_multiple` is set in the register number of a read of more than one byte; the others are SPI's."""
        self._multiple = i2c_multiple

    def read(self, register: int) -> int:
        """One register."""
        self._i2c.readfrom_mem_into(self._address, register, self._byte)
        return self._byte[0]

    def write(self, register: int, value: int) -> None:
        """Write one register."""
        self._byte[0] = value
        self._i2c.writeto_mem(self._address, register, self._byte)

    def burst(self, register: int, unit: int, units: int, spare: int = 0):
        """As SpiDevice.burst."""
        return _I2cBurst(self, register | (self._multiple if unit * units > 1 else 0), unit, units, spare)

    def fill(self, register: int, buffer) -> None:
        """Read registers, or a FIFO, into `buffer`."""
        self._i2c.readfrom_mem_into(self._address, register, buffer)


def _lengths(device, units: int) -> list:
    """Lengths of transfer to make slices for, ascending: all where memory is no matter, else 1, 2, 4, .. and `units` itself, so
    that any number of units is few transfers."""
    if device.every_length:
        return list(range(1, units + 1))
    lengths = []
    length = 1
    while length < units:
        lengths.append(length)
        length *= 2
    lengths.append(units)
    return lengths


def _longest(lengths: list, units: int) -> int:
    """Index of the longest that is at most `units`."""
    index = len(lengths) - 1
    if units <= index and lengths[index] == index + 1:  # every length
        return units - 1
    while lengths[index] > units:
        index -= 1
    return index


class _SpiBurst:
    """`buffer[start:]` holds what the last `read` brought."""

    start = 1  # the byte under the command is no data

    def __init__(self, device: SpiDevice, register: int, unit: int, units: int, spare: int) -> None:
        self._device = device
        self.buffer = bytearray(1 + unit * units + spare)
        tx = bytearray(1 + unit * units)
        tx[0] = device.command(register, unit * units)
        self._counts = _lengths(device, units)
        self._tx = [memoryview(tx)[: 1 + unit * count] for count in self._counts]
        self._rx = [memoryview(self.buffer)[: 1 + unit * count] for count in self._counts]

    def read(self, units: int) -> int:
        """Read at most `units`, in one transfer. Returns how many it read: call again for the rest."""
        index = _longest(self._counts, units)
        self._device.transfer(self._tx[index], self._rx[index])
        return self._counts[index]


class _I2cBurst:
    """`buffer[start:]` holds what the last `read` brought."""

    start = 0

    def __init__(self, device: I2cDevice, register: int, unit: int, units: int, spare: int) -> None:
        self._device = device
        self._register = register
        self.buffer = bytearray(unit * units + spare)
        self._counts = _lengths(device, units)
        self._rx = [memoryview(self.buffer)[: unit * count] for count in self._counts]

    def read(self, units: int) -> int:
        """Read at most `units`, in one transfer. Returns how many it read: call again for the rest."""
        index = _longest(self._counts, units)
        self._device.fill(self._register, self._rx[index])
        return self._counts[index]
