"""Banks of frame templates for the motions that a bulk device can have: physics once, before the run."""

from dataclasses import replace
from functools import cache

from triax_proto.frame import VALUES

from triax_sim.bulk import PARTS, Bank, Part
from triax_sim.plan import BadPlan
from triax_sim.planted import unit
from triax_sim.scenes import NAMES

__all__ = ["FRAMES", "VARIANTS", "bank", "check", "part_at"]

FRAMES = 32  # 3.2 s of motion a bank, then again from the start
VARIANTS = 4  # machines and units of each motion, so that a cohort does not move in step


def check(part: str, motion: str) -> None:
    """Raises BadPlan for a part or motion that is not there."""
    if part not in PARTS:
        raise BadPlan(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    if motion not in NAMES:
        raise BadPlan(f"there is no motion {motion!r}; there are {', '.join(NAMES)}")


def part_at(part_name: str, frame_hz: float) -> Part:
    """A part with the decimation of design.md 3.1 (`frame_hz` 0), else the one nearest to that rate."""
    part = PARTS[part_name]
    return replace(part, decimation=max(1, round(part.odr_hz / (VALUES * frame_hz)))) if frame_hz else part


@cache
def bank(part_name: str, motion: str, frame_hz: float, seed: int, frames: int = FRAMES) -> Bank:
    """Templates of one unit in one motion. Raises BadPlan."""
    check(part_name, motion)
    part = part_at(part_name, frame_hz)
    return Bank(part, unit(part, motion, seed), frames)
