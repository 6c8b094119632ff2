"""A capture on a virtual part, for the tests of this folder."""

import numpy as np
from triax.capture import Capture
from triax.clock import SampleClock
from triax_proto import frame as wire
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World

from .tape import part_class


def ramp(first, count):
    """Counts that tell their sample number: x + 1000 y, z alternating."""
    i = np.arange(first, first + count)
    return np.stack([i % 1000, i // 1000 % 10_000, i % 2], 1).astype(np.int32)


class Rig:
    """`frames` decoded lazily, `gaps` as (first_sample, length, bound, cause), `raw` bytes of raw frames."""

    def __init__(self, name="adxl382", source=ramp, ppm=0.0, start=0, odr_hz=None, decimation=0, values=10, clock=None, **part):
        self.world = World(start_us=start)
        self.twin = chips.load(name)(self.world, source, ppm=ppm)
        self.bus, device = connect(self.world, self.twin)
        self.part = part_class(name)(device, **part)
        self.sent, self.gaps, self.raw = [], [], []
        self.clock = clock or SampleClock(self.world.ticks_us())
        self.capture = Capture(self.part, self.clock, self.world.ticks_us, 0x1122334455667788, 9, self._emit, self._gap, values)
        self.odr_hz = odr_hz or self.part.ODRS_HZ[min(1, len(self.part.ODRS_HZ) - 1)]
        self.part.check()
        self.part.reset()
        self.range_g = self.part.RANGES_G[-1]
        self.capture.configure(1, self.range_g, self.odr_hz, decimation)
        self.capture.start()
        self.fifo_us = 1e6 * self.part.FIFO_SETS / self.odr_hz

    def _emit(self, buffer, length):
        self.sent.append(bytes(buffer[:length]))

    def emit_raw(self, buffer, length):
        self.raw.append(bytes(buffer[:length]))

    def _gap(self, first_sample, length, bound, cause):
        self.gaps.append((int.from_bytes(first_sample, "little"), length, bound, cause))

    def poll(self):
        return self.capture.poll(self.world.ticks_us())

    def run(self, seconds, share=0.4):
        """Poll every `share` of a FIFO time."""
        end = self.world.now_us + 1e6 * seconds
        while self.world.now_us < end:
            self.world.advance(int(share * self.fifo_us))
            self.poll()

    def stall(self, fifos):
        self.world.advance(int(fifos * self.fifo_us))

    @property
    def frames(self):
        return [wire.parse(data)[0] for data in self.sent]

    def holes(self):
        """Samples missing between frames, by the frames themselves: (first missing, number)."""
        found = []
        expected = 0
        for frame in self.frames:
            first = int(frame["first_sample"])
            if first != expected:
                found.append((expected, first - expected))
            expected = first + int(frame["samples"])
        return found
