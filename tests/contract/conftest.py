"""What every contract test starts from: a driver of device/triax/chips on its twin of sim/triax_sim/chips, where both exist."""

import importlib
import pkgutil
from array import array

import numpy as np
import pytest
import triax.chips
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World


def driver_class(name):
    """The class in triax.chips.<name> whose NAME is the module's."""
    module = importlib.import_module("triax.chips." + name)
    return next(c for c in vars(module).values() if isinstance(c, type) and getattr(c, "NAME", "") == name)


def has_driver(name):
    """Whether triax.chips.<name> is a part, and no base or table of parts."""
    module = importlib.import_module("triax.chips." + name)
    return any(isinstance(c, type) and getattr(c, "NAME", "") == name for c in vars(module).values())


def pairs():
    """(part, bus) for each part that has a driver and a twin, on each bus that both know."""
    drivers = {module.name for module in pkgutil.iter_modules(triax.chips.__path__)}
    found = []
    for name in sorted(drivers & set(chips.names())):
        for bus in driver_class(name).BUSES:
            if bus in chips.load(name).BUSES:
                found.append((name, bus))
    return found


def pairs_with(quirk):
    """SPI pairs whose twin has a quirk."""
    return [(name, bus) for name, bus in pairs() if bus == "spi" and quirk in chips.load(name).QUIRKS]


class Pattern:
    """Counts that tell their sample number: x and y are its two digits in steps of 2, z swings between the extreme codes.

    Steps of 2, since the last bit of some parts is always 0 at their fast rates. `number(rows)` is the inverse.
    """

    def begin(self, first, start_us, rate_hz, lsb_per_g, low, high):
        self.low, self.high = low, high
        self.base = min((high - low) // 2, 1 << 15)
        self.rate_hz, self.lsb_per_g, self.start_us = rate_hz, lsb_per_g, start_us

    def __call__(self, first, count):
        i = np.arange(first, first + count, dtype=np.int64)
        x = self.low + 2 + 2 * (i % (self.base - 2))
        y = self.low + 2 + 2 * (i // (self.base - 2) % (self.base - 2))
        z = np.where(i % 2, self.high, self.low)
        return np.stack([x, y, z], 1).astype(np.int32)

    def number(self, rows):
        rows = np.asarray(rows, dtype=np.int64)
        return (rows[:, 0] - self.low - 2) // 2 + (rows[:, 1] - self.low - 2) // 2 * (self.base - 2)


class Constant:
    """One code on all axes: the lowest or highest that the part has, or zero."""

    def __init__(self, which="zero"):
        self.which = which

    def begin(self, first, start_us, rate_hz, lsb_per_g, low, high):
        self.value = {"low": low, "high": high, "zero": 0}[self.which]

    def __call__(self, first, count):
        return np.full((count, 3), self.value, dtype=np.int32)


class Rig:
    """A driver on its twin. `read` drains the FIFO once and keeps the gaps that the driver told."""

    def __init__(self, name, bus="", source=None, ppm=0.0):
        self.world = World(start_us=1_000_000)
        self.source = source or Pattern()
        self.twin = chips.load(name)(self.world, self.source, ppm=ppm)
        self.bus, self.device = connect(self.world, self.twin, bus)
        self.driver = driver_class(name)
        self.part = self.driver(self.device)
        self.out = array("i", bytes(4 * 3 * self.part.FIFO_SETS))
        self.gaps = []

    def fastest_hz(self):
        """The highest rate that this bus carries with half its time: 111 kB/s of I2C cannot take what a part makes at 32 kHz."""
        byte_us = self.bus._byte_ns / 1000
        return max(hz for hz in self.driver.ODRS_HZ if hz * (self.part.SET_BYTES + 1) * byte_us < 0.5e6)

    def up(self, range_g=None, odr_hz=None, watermark=None):
        """Check, reset, configure and start, as a node does."""
        self.part.check()
        self.part.reset()
        self.part.configure(range_g or self.driver.RANGES_G[-1], odr_hz or self.fastest_hz())
        self.part.start(watermark or self.driver.FIFO_SETS // 2)
        return self

    @property
    def period_us(self):
        return 1e6 / self.part.odr_hz

    def read(self):
        """All sets that wait, as an array (n, 3); gaps as (sets before the gap in this array, cause, modulo)."""
        self.part.level()
        runs = []
        while True:
            sets = self.part.read_fifo(self.out)
            if self.part.gap:
                self.gaps.append((sum(map(len, runs)), self.part.gap, self.part.gap_modulo))
            if not sets:
                break
            runs.append(np.array(self.out[: 3 * sets]).reshape(-1, 3))
        return np.concatenate(runs) if runs else np.empty((0, 3), dtype=np.int64)

    def drain(self):
        """Read until a burst was short, as a loop does that polls again at once: a long burst takes time in which samples come."""
        rows = [self.read()]
        while len(rows[-1]) > self.part.FIFO_SETS // 16:
            rows.append(self.read())
        return np.concatenate(rows)

    def wait_sets(self, sets):
        """Let so many sample periods pass."""
        self.world.advance(int(sets * self.period_us))

    def first_sample(self):
        """Go to just after the first sample, so that what follows counts periods."""
        epoch = self.twin.epoch
        self.world.advance_to(epoch.time_of(1))


@pytest.fixture(params=pairs(), ids="-".join)
def pair(request):
    """(part name, bus)"""
    return request.param


@pytest.fixture
def rig(pair):
    """A driver on its twin, nothing configured."""
    return Rig(*pair)


@pytest.fixture
def make_rig(pair):
    """Rigs of one pair with other sources or oscillators."""
    return lambda source=None, ppm=0.0: Rig(*pair, source=source, ppm=ppm)
