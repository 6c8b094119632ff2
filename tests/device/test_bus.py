"""The bus device: chip select is released in any case, the first error is the one reported, bursts are few."""

import pytest
from triax.bus import I2cDevice, SpiDevice


class Spi:
    """Answers each transfer with 1, 2, 3, ..; `fails` raises instead."""

    def __init__(self):
        self.sent = []
        self.fails = False

    def write_readinto(self, tx, rx):
        if self.fails:
            raise OSError(5)
        self.sent.append(bytes(tx))
        rx[:] = bytes(i % 256 for i in range(len(rx)))


class I2c:
    def __init__(self):
        self.reads = []
        self.writes = []

    def readfrom_mem_into(self, address, register, buffer):
        self.reads.append((address, register, len(buffer)))
        buffer[:] = bytes(range(1, 1 + len(buffer)))

    def writeto_mem(self, address, register, buffer):
        self.writes.append((address, register, bytes(buffer)))


def spi_device(pin=None, **attributes):
    spi, levels = Spi(), []
    device = SpiDevice(spi, pin or levels.append, lambda us: None)
    for name, value in attributes.items():
        setattr(device, name, value)
    return spi, levels, device


def test_registers_by_the_parts_addressing():
    spi, levels, device = spi_device()
    assert levels == [1]  # idle from the start
    device.addressing(1, 1, 0, 0)
    assert device.read(0x2D) == 1
    device.write(0x2D, 0x55)
    device.addressing(0, 0x80, 0x40, 0)
    device.burst(0x32, 6, 1).read(1)
    assert spi.sent == [b"\x5b\x00", b"\x5a\x55", b"\xf2" + bytes(6)]
    assert levels == [1, 0, 1, 0, 1, 0, 1]


def test_chip_select_is_released_when_the_bus_fails():
    spi, levels, device = spi_device()
    spi.fails = True
    with pytest.raises(OSError, match="5"):
        device.read(0)
    assert levels == [1, 0, 1]


def test_the_bus_error_is_reported_even_if_chip_select_fails_too():
    levels = []

    def pin(level):
        levels.append(level)
        if len(levels) > 2:
            raise OSError(99)

    spi, _, device = spi_device(pin)
    spi.fails = True
    with pytest.raises(OSError, match="5"):
        device.read(0)
    assert levels == [1, 0, 1]


def test_a_chip_select_that_fails_alone_is_reported():
    def pin(level):
        if pin.armed and level:
            raise OSError(99)

    pin.armed = False
    _, _, device = spi_device(pin)
    pin.armed = True
    with pytest.raises(OSError, match="99"):
        device.read(0)


@pytest.mark.parametrize("every_length", [True, False])
@pytest.mark.parametrize("units", [1, 2, 3, 31, 32, 33, 100, 106])
def test_any_number_of_units_is_read_in_few_transfers(every_length, units):
    spi, _, device = spi_device(every_length=every_length)
    burst = device.burst(0x1D, 9, 106)
    left, transfers = units, 0
    while left:
        n = burst.read(left)
        assert 1 <= n <= left
        assert len(spi.sent[-1]) == 1 + 9 * n
        assert bytes(burst.buffer[burst.start : burst.start + 9 * n]) == bytes(i % 256 for i in range(1, 1 + 9 * n))
        left -= n
        transfers += 1
    assert transfers <= (1 if every_length else 7)


@pytest.mark.parametrize("every_length", [True, False])
def test_i2c_reads_and_writes(every_length):
    i2c = I2c()
    device = I2cDevice(i2c, 0x19, lambda us: None)
    device.every_length = every_length
    device.addressing(0, 0x80, 0x40, 0x80)
    assert device.read(0x0F) == 1
    device.write(0x20, 0x97)
    burst = device.burst(0x28, 6, 32, 5)
    assert burst.read(8) == 8
    assert bytes(burst.buffer[burst.start : burst.start + 3]) == b"\x01\x02\x03"
    assert len(burst.buffer) == 32 * 6 + 5
    assert i2c.reads == [(0x19, 0x0F, 1), (0x19, 0xA8, 48)]
    assert i2c.writes == [(0x19, 0x20, b"\x97")]
