"""A virtual part on a virtual bus, as the node's own bus device: what a port gives on real hardware.

world = World()
twin = load("iis3dwb")(world, source)
bus, device = connect(world, twin)
part = Iis3dwb(device)
"""

from triax.bus import I2cDevice, SpiDevice

from triax_sim.bus import I2cBus, SpiBus
from triax_sim.part import Part
from triax_sim.world import World

__all__ = ["connect"]


def connect(
    world: World, twin: Part, kind: str = "", clock_hz: int = 0, sleep_us: "object | None" = None
) -> "tuple[SpiBus | I2cBus, SpiDevice | I2cDevice]":
    """Give a part a bus of its own: "spi" or "i2c" (default: the first it has) at `clock_hz` (default: the fastest it takes).

    The device waits in virtual time (`world.sleep_us`) unless told otherwise.
    """
    kind = kind or twin.BUSES[0]
    wait = sleep_us or world.sleep_us
    if kind == "spi":
        mode = twin.SPI_MODES[-1]
        spi = SpiBus(world, clock_hz or twin.SPI_MAX_HZ, mode >> 1, mode & 1)
        return spi, SpiDevice(spi, spi.attach(twin), wait)
    i2c = I2cBus(world, clock_hz or twin.I2C_MAX_HZ)
    return i2c, I2cDevice(i2c, i2c.attach(twin), wait)
