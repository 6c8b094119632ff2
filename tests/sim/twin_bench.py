"""A virtual part with registers to poke, and what starts each part measuring."""

import numpy as np
from triax_sim import chips
from triax_sim.bus import I2cBus, SpiBus
from triax_sim.world import World

READ = {"adxl382": (1, 1), "adxl380": (1, 1), "adxl355": (1, 1)}  # shift of the address, read bit; others: 0, 0x80
MULTIPLE = {"adxl345": 0x40, "lis3dh": 0x40}


def ramp(first, count):
    return np.stack([np.arange(first, first + count) % 500 + 1000 * axis for axis in range(3)], 1).astype(np.int32)


class Bench:
    """A part with registers to poke, over SPI where it has it."""

    def __init__(self, name, source=ramp, ppm=0.0):
        self.world = World()
        self.part = chips.load(name)(self.world, source, ppm=ppm)
        self.shift, self.read_bit = READ.get(name, (0, 0x80))
        self.multiple = MULTIPLE.get(name, 0)
        self.i2c = "spi" not in self.part.BUSES
        if self.i2c:
            self.bus = I2cBus(self.world)
            self.address = self.bus.attach(self.part)
        else:
            mode = self.part.SPI_MODES[-1]
            self.bus = SpiBus(self.world, self.part.SPI_MAX_HZ, mode >> 1, mode & 1)
            self.cs = self.bus.attach(self.part)

    def write(self, *pairs):
        for register, value in pairs:
            if self.i2c:
                self.bus.writeto_mem(self.address, register, bytes([value]))
            else:
                self.cs(0)
                self.bus.write(bytes([register << self.shift, value]))
                self.cs(1)

    def read(self, register, count=1):
        data = bytearray(count)
        if self.i2c:
            self.bus.readfrom_mem_into(self.address, register, data)
        else:
            self.cs(0)
            self.bus.write(bytes([register << self.shift | self.read_bit | (self.multiple if count > 1 else 0)]))
            self.bus.readinto(data)
            self.cs(1)
        return bytes(data)

    def refused(self, register, value):
        """Write, and whether the part refused and kept what it had."""
        before, noted = self.part.registers[register], len(self.part.refusals)
        self.write((register, value))
        refused = len(self.part.refusals) == noted + 1
        self.part.refusals.clear()
        return refused and self.part.registers[register] == before

    def wait(self, samples):
        epoch = self.part.epoch
        self.part.catch_up()
        self.world.advance_to(epoch.time_of(epoch.due(self.world.now_us) + samples))


START = {
    "adxl382": [(0x27, 0x78), (0x31, 30), (0x30, 0x20), (0x26, 0x0C)],
    "adxl380": [(0x27, 0x78), (0x31, 30), (0x30, 0x20), (0x26, 0x0C)],
    "iis3dwb": [(0x07, 30), (0x09, 0x0A), (0x0A, 0x06), (0x10, 0xA4)],
    "adxl355": [(0x29, 30), (0x2D, 0x00)],
    "adxl345": [(0x2C, 0x0F), (0x31, 0x0B), (0x38, 0x90), (0x2D, 0x08)],
    "mpu6050": [(0x6B, 0x01), (0x1A, 0x01), (0x23, 0x08), (0x6A, 0x40)],
    "icm42688p": [(0x5F, 0x01), (0x60, 64), (0x50, 0x02), (0x16, 0x40), (0x4E, 0x03)],
    "lis3dh": [(0x24, 0x40), (0x23, 0x38), (0x2E, 0x90), (0x20, 0x97)],
    "lis2dw12": [(0x2E, 0xD0), (0x25, 0x34), (0x20, 0x94)],
}


def started(name, **more):
    bench = Bench(name, **more)
    bench.write(*START[name])
    assert bench.part.refusals == []
    assert bench.part.epoch is not None
    return bench
