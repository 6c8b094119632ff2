"""Virtual buses: time, protocol, faults."""

import numpy as np
import pytest
from triax_sim.bus import BusProtocolError, Faults, I2cBus, SpiBus
from triax_sim.chips import load
from triax_sim.world import World


def zeros(first, count):
    return np.zeros((count, 3), dtype=np.int32)


@pytest.fixture
def spi():
    world = World()
    bus = SpiBus(world, 8_000_000)
    part = load("adxl382")(world, zeros)
    return world, bus, part, bus.attach(part)


@pytest.fixture
def i2c():
    world = World()
    bus = I2cBus(world, 400_000)
    part = load("mpu6050")(world, zeros)
    return world, bus, part, bus.attach(part)


def test_all_ways_to_read_give_the_same(spi):
    _, bus, _, cs = spi
    wanted = b"\xad\x1d\x17"
    cs(0)
    bus.write(b"\x01")
    one = bytearray(3)
    bus.readinto(one)
    cs(1)
    rx = bytearray(4)
    cs(0)
    bus.write_readinto(b"\x01\x00\x00\x00", rx)
    cs(1)
    same = bytearray(b"\x01\x00\x00\x00")
    cs(0)
    bus.write_readinto(same, same)
    cs(1)
    pieces = [bytearray(1), bytearray(2)]
    cs(0)
    bus.write(b"\x01")
    for piece in pieces:
        bus.readinto(piece)
    cs(1)
    assert bytes(one) == bytes(rx[1:]) == bytes(same[1:]) == bytes(pieces[0] + pieces[1]) == wanted


def test_a_transfer_takes_its_time(spi):
    world, bus, _, cs = spi
    cs(0)
    bus.readinto(bytearray(100))
    cs(1)
    assert world.now_us == 100
    bus.init(5_000_000)
    cs(0)
    bus.write(bytes(10))
    cs(1)
    assert world.now_us == 116
    assert (bus.transfers, bus.bytes) == (2, 110)


def test_protocol_errors_are_refused(spi):
    world, bus, part, cs = spi
    with pytest.raises(BusProtocolError, match="no chip selected"):
        bus.write(b"\x01")
    with pytest.raises(BusProtocolError, match="lengths differ"):
        bus.write_readinto(b"12", bytearray(3))
    cs(0)
    with pytest.raises(BusProtocolError, match="not released"):
        cs(0)
    cs(1)
    cs(1)  # releasing twice harms nobody
    other = load("iis3dwb")(world, zeros)
    other_cs = bus.attach(other)
    cs(0)
    with pytest.raises(BusProtocolError, match="adxl382 still is"):
        other_cs(0)
    cs(1)
    bus.init(20_000_000)
    with pytest.raises(BusProtocolError, match="at most 8000000"):
        cs(0)
    bus.init(1_000_000, 1, 0)
    with pytest.raises(BusProtocolError, match="mode 2"):
        cs(0)
    with pytest.raises(BusProtocolError, match="no SPI"):
        bus.attach(load("mpu6050")(world, zeros))
    assert part.refusals == []


def test_two_parts_share_a_bus(spi):
    world, bus, _, cs = spi
    bus.init(5_000_000, 0, 0)
    other = load("iis3dwb")(world, zeros)
    other_cs = bus.attach(other)
    rx = bytearray(2)
    other_cs(0)
    bus.write_readinto(b"\x8f\x00", rx)
    other_cs(1)
    assert rx[1] == 0x7B
    cs(0)
    bus.write_readinto(b"\x01\x00", rx)
    cs(1)
    assert rx[1] == 0xAD


def test_spi_faults(spi):
    _, bus, part, cs = spi

    def read(count):
        rx = bytearray(count + 1)
        cs(0)
        try:
            bus.write_readinto(bytes([0x01]) + bytes(count), rx)
        finally:
            cs(1)
        return bytes(rx[1:])

    for stuck in (0x00, 0xFF):
        bus.faults.stuck = stuck
        assert read(4) == bytes([stuck]) * 4
    bus.faults.stuck = None
    bus.faults.fail = 2
    for _ in range(2):
        with pytest.raises(OSError, match="5"):
            read(1)
    assert read(1) == b"\xad"
    part.planted[0x00] = 0x42
    assert read(1) == b"\x42"


def test_bit_errors_come_at_their_rate_and_repeat():
    counts = []
    for _ in range(2):
        faults = Faults(seed=7)
        faults.bit_error_rate = 1e-3
        data = bytearray(100_000)
        faults.spoil(memoryview(data))
        ones = int(np.unpackbits(np.frombuffer(data, dtype=np.uint8)).sum())
        assert ones == faults.flipped
        counts.append((ones, bytes(data)))
    assert counts[0] == counts[1]
    assert 800 * (1 - 0.15) < counts[0][0] < 800 * (1 + 0.15)  # five sigma
    faults.bit_error_rate = 1.0
    data = bytearray(2)
    faults.spoil(memoryview(data))
    assert data == b"\xff\xff"


def test_i2c_reads_writes_and_takes_its_time(i2c):
    world, bus, part, address = i2c
    assert bus.scan() == [0x68]
    one = bytearray(1)
    bus.readfrom_mem_into(address, 0x75, one)
    assert one == b"\x68"
    assert world.now_us == 90  # address, register, address, byte: four of nine clocks at 400 kHz
    bus.writeto_mem(address, 0x6B, b"\x01")
    assert part.registers[0x6B] == 1
    bus.writeto(address, b"\x6b", False)
    bus.readfrom_into(address, one)
    assert one == b"\x01"


def test_i2c_faults(i2c):
    world, bus, part, address = i2c
    one = bytearray(1)
    with pytest.raises(OSError, match="19"):
        bus.readfrom_mem_into(0x50, 0, one)
    bus.faults.nak = True
    with pytest.raises(OSError, match="19"):
        bus.readfrom_mem_into(address, 0x75, one)
    assert bus.scan() == []
    bus.faults.nak = False
    bus.faults.stuck = 0x00
    bus.readfrom_mem_into(address, 0x75, one)
    assert one == b"\x00"
    bus.faults.stuck = 0xFF
    with pytest.raises(OSError, match="19"):
        bus.writeto_mem(address, 0x6B, b"\x00")
    bus.faults.stuck = None
    with pytest.raises(BusProtocolError, match="taken"):
        bus.attach(load("mpu6050")(world, zeros))
    with pytest.raises(BusProtocolError, match="cannot answer"):
        bus.attach(load("mpu6050")(world, zeros), 0x11)
    with pytest.raises(BusProtocolError, match="no I2C"):
        bus.attach(load("iis3dwb")(world, zeros))
    with pytest.raises(BusProtocolError, match="at most 400000"):
        I2cBus(world, 1_000_000).attach(load("mpu6050")(world, zeros), 0x69)
    assert part.refusals == []
