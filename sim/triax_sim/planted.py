"""Faults of machines and sensors, planted in devices so that the stream's findings can be judged against what there is to find.

| kind | what happens | size |
|---|---|---|
| spike | a shock: rings at 0.8 to 3 kHz and dies away within milliseconds | usual peaks |
| glitch | one raw sample reads a wrong code | usual peaks |
| level_shift | the level of an axis jumps | g |
| drift | the level of an axis walks away | g/s |
| bearing | a spot on the outer ring is struck, again and again | usual peaks |
| dead_axis | an axis reads one code for ever | |

A usual peak is the mean over frames of the largest |sample - mean| of the healthy unit on that axis. A fault begins in a given
frame of the run. Gold and bulk devices get the same sample source: the unit's own sensor and motion, with the fault from there on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triax_sim.bulk import PARTS, Bank, Part
from triax_sim.machine import Bearing, Defect, Machine
from triax_sim.motion import Array, Motion, after, drift, mix, shift, shock
from triax_sim.plan import Cohort
from triax_sim.scenes import scene, speed_hz
from triax_sim.sensor import DeadAxis, Glitch, Sensor, typical

__all__ = ["ANY_AXIS", "KINDS", "ONCE", "Planted", "plant", "sick_bank", "unit"]

KINDS = ("spike", "glitch", "level_shift", "drift", "bearing", "dead_axis")
ONCE = ("spike", "glitch")  # over with their frame
ANY_AXIS = 3
# Share of a run in which a fault begins. A drift needs most of a minute to show, a bearing and a level some 15 windows of before.
_BEGINS = {"drift": (0.1, 0.2), "bearing": (0.35, 0.65), "level_shift": (0.35, 0.65)}
_BEGINS_ELSE = (0.25, 0.9)
_SIZES = {"spike": (4.0, 16.0), "glitch": (6.0, 40.0), "level_shift": (0.03, 0.2), "drift": (0.0005, 0.002), "bearing": (1.5, 3.0)}
_SIGNED = ("glitch", "level_shift", "drift")
_USUAL_FRAMES = 8
_SICK_FRAMES = 64  # then again from the first of them; a drift goes on to the end


@dataclass(frozen=True)
class Planted:
    """One fault: device `index` of the fleet, from `frame` of the run on. `axis` 0 to 2, ANY_AXIS: it shows on all. `draw`: of what
    else is random in it.
    """

    kind: str
    index: int
    frame: int
    axis: int
    size: float
    draw: float


def plant(seed: int, cohorts: Iterable[Cohort], each: int, duration_s: float) -> tuple[Planted, ...]:
    """`each` faults of every kind, one a device, on devices drawn from these cohorts; fewer if there are not so many devices."""
    rng = np.random.default_rng(seed)
    cohorts = tuple(cohorts)
    index = np.concatenate([np.arange(c.first, c.first + c.count) for c in cohorts] or [np.empty(0, np.int64)])
    out = []
    for n, device in enumerate(rng.permutation(index)[: each * len(KINDS)].tolist()):
        kind = KINDS[n % len(KINDS)]
        cohort = next(c for c in cohorts if c.first <= device < c.first + c.count)
        frames = duration_s * (cohort.frame_hz or _frame_hz(PARTS[cohort.part]))
        begins = rng.uniform(*_BEGINS.get(kind, _BEGINS_ELSE))
        axis = ANY_AXIS if kind == "bearing" else int(rng.integers(0, 3))
        size = float(rng.uniform(*_SIZES[kind])) if kind in _SIZES else 0.0
        sign = rng.choice([-1.0, 1.0]) if kind in _SIGNED else 1.0
        out.append(Planted(kind, device, int(begins * frames), axis, size * sign, float(rng.uniform())))
    return tuple(out)


def _frame_hz(part: Part) -> float:
    return part.odr_hz / part.samples


def unit(part: Part, motion: str, seed: int, fault: Planted | None = None) -> Sensor:
    """The sensor of a unit in its motion, with a fault if it has one; counts of sample n are those of n / ODR seconds."""
    sensor = Sensor(scene(motion, seed), typical(part.name, seed), seed)
    sensor.begin(0, 0.0, part.odr_hz, 1 / part.scale_g, part.clip_low, part.clip_high)
    if fault is None:
        return sensor
    level, peak = _usual(sensor, part, fault.axis)
    size = fault.size * (peak if fault.kind in ("spike", "glitch", "bearing") else 1.0)
    first = fault.frame * part.samples
    if fault.kind == "glitch":
        code = int(np.clip(round((level + size) / part.scale_g), part.clip_low, part.clip_high))
        return replace(sensor, faults=(Glitch(first + int(fault.draw * part.samples), fault.axis, code),), _noise={})
    if fault.kind == "dead_axis":
        return replace(sensor, faults=(DeadAxis(fault.axis, first),), _noise={})
    return replace(sensor, motion=mix(sensor.motion, _moved(fault, size, first / part.odr_hz, part, seed)), _noise={})


def _moved(fault: Planted, size: float, at_s: float, part: Part, seed: int) -> Motion:
    """What the fault adds to the motion."""
    along = np.eye(3)[fault.axis % 3]
    if fault.kind == "spike":
        ring_hz, decay_s = 800 + 2200 * fault.draw, 0.0005 + 0.0025 * (1 - fault.draw)
        within = (0.1 + 0.6 * fault.draw) * part.samples / part.odr_hz  # it has died away when the frame ends
        return shock(at_s + within, size, along, ring_hz, decay_s)
    if fault.kind == "level_shift":
        return shift(at_s, along * size)
    if fault.kind == "drift":
        return drift(at_s, along * size)
    defect = Defect("outer", size)
    return after(at_s, Machine(speed_hz=speed_hz(seed), unbalance_g=0.0, bearing=Bearing(), defects=(defect,), seed=seed))


def _usual(sensor: Sensor, part: Part, axis: int) -> tuple[float, float]:
    """Level and usual peak in g; of the noisiest axis where the fault shows on all."""
    raw = sensor(0, _USUAL_FRAMES * part.samples).reshape(_USUAL_FRAMES, part.samples, 3) * part.scale_g
    level: Array = raw.mean(axis=(0, 1))
    peaks: Array = np.abs(raw - level).max(axis=1).mean(axis=0)
    at = int(peaks.argmax()) if axis == ANY_AXIS else axis
    return float(level[at]), float(peaks[at])


def sick_bank(fault: Planted, part: Part, motion: str, seed: int, frames: int) -> Bank:
    """A bulk device's frames from the fault on, of a run of `frames`; a drift's to the end, of others some that repeat."""
    source: Any = unit(part, motion, seed, fault)
    count = 1 if fault.kind in ONCE else max(1, frames - fault.frame) if fault.kind == "drift" else _SICK_FRAMES
    first = fault.frame * part.samples
    return Bank(part, lambda at, many: source(first + at, many), count)
