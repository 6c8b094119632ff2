"""Banks of frame templates for the motions that a bulk device can have."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from triax_proto.frame import VALUES

from triax_sim.bulk import PARTS, Bank, Part
from triax_sim.plan import BadPlan

__all__ = ["bank"]

_FRAMES = 32  # 3.2 s of motion a bank


def _rotor(part: Part, seed: int) -> Any:
    def source(first: int, count: int) -> np.ndarray[Any, Any]:
        t = (first + np.arange(count)) / part.odr_hz
        turn = 2 * np.pi * 25.0 * t
        g = np.stack([0.3 * np.sin(turn), 0.3 * np.cos(turn), 1 + 0.05 * np.sin(2 * turn)], axis=1)
        g += np.random.default_rng(seed).normal(0, 0.01, g.shape)
        return np.clip(np.rint(g / part.scale_g), part.clip_low, part.clip_high).astype(np.int32)

    return source


@cache
def bank(part_name: str, motion: str, frame_hz: float, seed: int) -> Bank:
    """Templates of a part and motion; `frame_hz` 0: the decimation of design.md 3.1, else the one nearest to that rate.

    Raises BadPlan for a name that is not there.
    """
    if part_name not in PARTS:
        raise BadPlan(f"there is no part {part_name!r}; there are {', '.join(PARTS)}")
    part = PARTS[part_name]
    if frame_hz:
        part = replace(part, decimation=max(1, round(part.odr_hz / (VALUES * frame_hz))))
    return Bank(part, _rotor(part, seed), _FRAMES)
