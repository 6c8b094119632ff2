"""Rotating machines: unbalance and its harmonics, and bearing defects whose frequencies follow from the bearing's geometry.

A local defect is struck each time a rolling element passes it; each strike rings a resonance of the structure that dies away
within milliseconds. The spectrum then has that resonance's hump, modulated at the defect's frequency; the envelope shows the
frequency itself (Randall and Antoni 2011). Elements slip a little, so strikes come with a jitter that smears the higher harmonics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from triax_sim.motion import Array, Axis, uniform

__all__ = ["DEFECTS", "Bearing", "Defect", "Machine"]

# Strikes of one defect that may ring at the same time: after eight decay times the amplitude is 0.03 %.
DECAYS = 8.0
DEFECTS = ("outer", "inner", "ball", "cage")


@dataclass(frozen=True)
class Bearing:
    """Geometry of a rolling bearing: number of elements, their diameter and the pitch diameter (same unit), contact angle in
    degrees.

    The default is a deep-groove 6205 (9 balls of 7.94 mm on 39.04 mm).
    """

    elements: int = 9
    element_diameter: float = 7.94
    pitch_diameter: float = 39.04
    contact_deg: float = 0.0

    @property
    def ratio(self) -> float:
        """Element over pitch diameter, seen along the contact angle."""
        return self.element_diameter / self.pitch_diameter * float(np.cos(np.deg2rad(self.contact_deg)))

    @property
    def ftf(self) -> float:
        """Cage turns per shaft turn (outer ring fixed)."""
        return 0.5 * (1 - self.ratio)

    @property
    def bpfo(self) -> float:
        """Elements that pass a point of the outer ring per shaft turn."""
        return self.elements * self.ftf

    @property
    def bpfi(self) -> float:
        """Elements that pass a point of the inner ring per shaft turn."""
        return 0.5 * self.elements * (1 + self.ratio)

    @property
    def bsf(self) -> float:
        """Turns of an element about itself per shaft turn."""
        return 0.5 * self.pitch_diameter / self.element_diameter * (1 - self.ratio**2)

    def order(self, defect: str) -> float:
        """Strikes of a defect per shaft turn: a spot on a ball strikes both rings, so twice a turn of the ball. KeyError: no
        such defect.
        """
        return {"outer": self.bpfo, "inner": self.bpfi, "ball": 2 * self.bsf, "cage": self.ftf}[defect]

    def modulation(self, defect: str) -> float:
        """Turns per shaft turn at which a defect goes through the load zone: 0 for the outer ring, which stands in it."""
        return {"outer": 0.0, "inner": 1.0, "ball": self.ftf, "cage": self.ftf}[defect]


@dataclass(frozen=True)
class Defect:
    """A damaged spot: where (one of DEFECTS), the first peak of its ringing in g, how strongly the load zone modulates it (0 to
    1).
    """

    where: str
    peak_g: float
    depth: float = 0.8


@dataclass(frozen=True)
class Machine:
    """A shaft turning at `speed_hz` (changing by `ramp_hz_per_s`), as a motion without gravity.

    unbalance_g: peak at one times the speed, radial (x and y a quarter turn apart). harmonics: peaks at 2, 3, .. times the speed
    as shares of it. slip: jitter of a strike as share of the interval between strikes (1 to 2 % in life). resonance_hz, decay_s:
    what a strike rings.
    """

    speed_hz: float = 25.0
    ramp_hz_per_s: float = 0.0
    unbalance_g: float = 0.3
    harmonics: Sequence[float] = (0.25, 0.1)
    axial: float = 0.15
    bearing: Bearing = field(default_factory=Bearing)
    defects: Sequence[Defect] = ()
    resonance_hz: float = 3200.0
    decay_s: float = 0.0012
    slip: float = 0.01
    direction: Axis = (0.6, 0.7, 0.39)
    seed: int = 1

    def turns(self, t: Array) -> Array:
        """Shaft turns since t = 0."""
        return self.speed_hz * t + 0.5 * self.ramp_hz_per_s * t * t

    def __call__(self, t: Array) -> Array:
        turns = self.turns(t)
        total = self._shaft(turns)
        for number, defect in enumerate(self.defects):
            struck = self._strikes(t, turns, defect, self.seed + 7 * number)
            total += struck[:, None] * np.asarray(self.direction)
        return total

    def _shaft(self, turns: Array) -> Array:
        angle = 2 * np.pi * np.mod(turns, 1.0)
        radial = self.unbalance_g * np.exp(1j * angle)
        for number, share in enumerate(self.harmonics, start=2):
            radial = radial + self.unbalance_g * share * np.exp(1j * (number * angle + 0.7 * number))
        return np.stack([radial.real, radial.imag, self.axial * radial.real], axis=1)

    def _strikes(self, t: Array, turns: Array, defect: Defect, seed: int) -> Array:
        """Sum of the ringing of all strikes that are still heard."""
        order = self.bearing.order(defect.where)
        speed = np.maximum(self.speed_hz + self.ramp_hz_per_s * t, 1e-9)
        count = np.floor(turns * order).astype(np.int64)
        heard = int(np.ceil(DECAYS * self.decay_s * float(speed.max()) * order)) + 1
        total = np.zeros(len(t))
        for back in range(-1, heard):  # jitter may bring the next strike early
            number = count - back
            place = number + self.slip * (2 * uniform(number, seed) - 1)
            since = (turns - place / order) / speed
            after = np.maximum(since, 0.0)
            ringing = np.exp(-after / self.decay_s) * np.sin(2 * np.pi * self.resonance_hz * after)
            total += np.where(since >= 0, self._load(defect, place / order) * ringing, 0.0)
        return defect.peak_g * total

    def _load(self, defect: Defect, turn: Array) -> Array:
        """Share of the full load at the moment of a strike: 1 in the middle of the load zone, 1 - depth opposite."""
        rate = self.bearing.modulation(defect.where)
        if rate == 0.0:
            return np.ones_like(turn)
        return 1 - defect.depth * 0.5 * (1 - np.cos(2 * np.pi * rate * turn))
