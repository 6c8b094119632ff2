"""Banks of frame templates for the motions that a bulk device can have: physics once, before the run."""

from dataclasses import replace
from functools import cache

from triax_proto.frame import VALUES

from triax_sim.bulk import PARTS, Bank
from triax_sim.plan import BadPlan
from triax_sim.scenes import NAMES, scene
from triax_sim.sensor import Sensor, typical

__all__ = ["VARIANTS", "bank", "check"]

_FRAMES = 32  # 3.2 s of motion a bank, then again from the start
VARIANTS = 4  # machines and units of each motion, so that a cohort does not move in step


def check(part: str, motion: str) -> None:
    """Raises BadPlan for a part or motion that is not there."""
    if part not in PARTS:
        raise BadPlan(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    if motion not in NAMES:
        raise BadPlan(f"there is no motion {motion!r}; there are {', '.join(NAMES)}")


@cache
def bank(part_name: str, motion: str, frame_hz: float, seed: int) -> Bank:
    """Templates of one unit in one motion. `frame_hz` 0: the decimation of design.md 3.1, else the one nearest to that rate.

    Raises BadPlan.
    """
    check(part_name, motion)
    part = PARTS[part_name]
    if frame_hz:
        part = replace(part, decimation=max(1, round(part.odr_hz / (VALUES * frame_hz))))
    sensor = Sensor(scene(motion, seed), typical(part_name, seed), seed)
    sensor.begin(0, 0.0, part.odr_hz, 1 / part.scale_g, part.clip_low, part.clip_high)
    return Bank(part, sensor, _FRAMES)
