"""A virtual node for `capture --simulate`: a register-level part in virtual time, read by the node's own driver and capture loop.

Truth is triax_sim's imperfections as the nine intrinsic numbers, so a fit can be held against it.
"""

from dataclasses import dataclass

import numpy as np
from triax.capture import Capture
from triax.clock import SampleClock
from triax_sim.chips import load
from triax_sim.motion import Motion
from triax_sim.sensor import Imperfections, Sensor
from triax_sim.wiring import connect
from triax_sim.world import World

from triax_tools.calibrate.model import Array, Model, intrinsic
from triax_tools.calibrate.recording import Identity

__all__ = ["VirtualNode", "draw_imperfections", "truth_of"]

PART, RANGE_G, ODR_HZ = "iis3dwb", 2, 26_667.0  # 75 ug/rtHz, 16 bits: goal A1's part
DENSITY_UG = 75.0
DEVICE = 0x02_00_00_FF_FE_00_00_01
START_US = 1_767_225_600_000_000  # 2026-01-01 UTC, where virtual time begins
_POLL_US = 14_000  # the FIFO overflows after 19 ms


def draw_imperfections(seed: int) -> Imperfections:
    """A unit with misalignment up to 20 mrad between axes, scale within 3 %, offset within 80 mg (goals of calibration.md 4)."""
    rng = np.random.default_rng(seed)
    x, y, z = rng.uniform(-0.080, 0.080, 3).tolist()
    gains = rng.uniform(-0.03, 0.03, 3).tolist()
    tilt = rng.uniform(-0.010, 0.010, (3, 3))  # both of a pair: up to 20 mrad
    np.fill_diagonal(tilt, 0)
    rows = np.eye(3) + tilt
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    first, second, third = ((float(a), float(b), float(c)) for a, b, c in rows)
    density = (DENSITY_UG, DENSITY_UG, DENSITY_UG)
    return Imperfections((x, y, z), (gains[0], gains[1], gains[2]), (first, second, third), density)


def truth_of(unit: Imperfections, scale_g: float) -> Array:
    """The nine intrinsic numbers of a unit at 25 C, for a part of `scale_g` nominal g per count."""
    sensing = unit.matrix(25.0) / scale_g
    return intrinsic(Model(np.linalg.inv(sensing), unit.offset(25.0) / scale_g))


@dataclass
class _Emitted:
    frames: list[tuple[int, bytes]]


class VirtualNode:
    """`run(until_s)` lets virtual time pass and returns the frames that the node sent meanwhile, with their UTC in microseconds."""

    def __init__(self, motion: Motion, imperfections: Imperfections, seed: int = 1, ppm: float = 800.0) -> None:
        self.world = World()
        # By name, as a port does: drivers exist for several parts, and a module is what is installed on a node.
        driver = __import__(f"triax.chips.{PART}", fromlist=["Iis3dwb"]).Iis3dwb
        twin = load(PART)(self.world, Sensor(motion, imperfections, seed), ppm=ppm)
        _, device = connect(self.world, twin)
        self.part = driver(device)
        self.part.check()
        self.part.reset()
        clock = SampleClock(self.world.ticks_us())
        clock.set_utc(self.world.ticks_us(), START_US + self.world.now_us, 1000)
        self._out = _Emitted([])
        self._capture = Capture(self.part, clock, self.world.ticks_us, DEVICE, 1, self._emit, self._gap)
        self._capture.configure(1, RANGE_G, ODR_HZ)
        self._capture.start()
        self.lost = 0

    @property
    def identity(self) -> Identity:
        """What DeviceInfo would say."""
        return Identity(
            device=f"{DEVICE:016x}",
            part=PART,
            sensor_serial=bytes(self.part.serial).hex(),
            firmware="virtual",
            range_g=float(self.part.range_g),
            scale_g=float(self.part.scale_g),
        )

    @property
    def now_s(self) -> float:
        """Virtual seconds since the node was switched on."""
        return self.world.now_us / 1e6

    def run(self, until_s: float) -> list[tuple[int, bytes]]:
        """Frames sent until a moment of virtual time."""
        world, capture = self.world, self._capture
        while world.now_us < until_s * 1e6:
            world.advance(_POLL_US)
            capture.poll(world.ticks_us())
        out, self._out.frames = self._out.frames, []
        return out

    def _emit(self, buffer: bytearray, length: int) -> None:
        self._out.frames.append((START_US + self.world.now_us, bytes(buffer[:length])))

    def _gap(self, first_sample: object, length: int, bound: int, cause: int) -> None:
        del first_sample, bound, cause
        self.lost += length
