"""A scripted human for `capture --simulate`: turns the unit as the guide asks, with the mistakes that humans make.

It is a motion (g at any time) that grows as prompts are heard, so a virtual part can sample it in virtual time.
"""

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from triax_tools.calibrate import guide
from triax_tools.calibrate.guide import Prompt
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.pose import CELLS
from triax_tools.calibrate.simulate import tilt

__all__ = ["MISTAKES", "ScriptedHand"]

# What goes wrong at which pose (counted from 0), once each.
MISTAKES = {2: "soft", 5: "knock", 8: "again", 11: "between"}
_REACTION_S = 0.7
_CREEP_G_PER_S = 0.4e-3  # a unit that sinks into a cushion
_KNOCK_AFTER_S = 5.0  # seconds of holding
_KNOCK_G = 0.12
_PLACEMENT_DEG = 7.0


@dataclass(frozen=True)
class _Leg:
    """A turn from one upward direction to another, then rest; `creep` moves the rest."""

    start_s: float
    stop_s: float
    before: Array
    after: Array
    across: Array
    angle: float
    tones_hz: Array
    phases: Array
    tremor_g: float
    creep: Array
    knock_s: float


class ScriptedHand:
    """motion(t) -> (n, 3) in g; `hear(prompt, now_s)` plans the next turn. Deterministic by seed."""

    def __init__(self, seed: int, mistakes: bool = True) -> None:
        self._rng = np.random.default_rng(seed)
        self._mistakes = dict(MISTAKES) if mistakes else {}
        self._legs = [self._leg(0.0, 0.0, CELLS[4], CELLS[4])]
        self.taken = 0
        self._last_cell = 4

    def hear(self, prompt: Prompt, now_s: float) -> None:
        """React to what the guide said at `now_s`."""
        if prompt.kind == guide.ACCEPTED:
            self.taken += 1
        if prompt.kind in (guide.TURN, guide.DUPLICATE, guide.BETWEEN, guide.REDONE, guide.REVOKED) and prompt.cell is not None:
            self._turn_to(prompt.cell, now_s + _REACTION_S)
        elif prompt.kind == guide.REJECTED and prompt.moved_g:
            self._firm(now_s)

    def __call__(self, t: Array) -> Array:
        """g at times (n,) in seconds; times after the last plan stay at rest."""
        out = np.empty((len(t), 3))
        starts = [leg.start_s for leg in self._legs]
        first = bisect_right(starts, float(t[0])) - 1 if len(t) else 0
        for index in range(max(0, first), len(self._legs)):
            low = np.searchsorted(t, starts[index]) if index > max(0, first) else 0
            high = np.searchsorted(t, starts[index + 1]) if index + 1 < len(self._legs) else len(t)
            if high > low:
                out[low:high] = self._along(self._legs[index], t[low:high])
        return out

    def _turn_to(self, cell: int, start_s: float) -> None:
        mistake = self._mistakes.pop(self.taken, "")
        before = self._legs[-1].after
        wanted = CELLS[cell]
        if mistake == "again":
            wanted = CELLS[self._last_cell]
        else:
            self._last_cell = cell
        if mistake == "between":
            signs = np.where(wanted == 0, 1.0, np.sign(wanted))
            after = signs / np.linalg.norm(signs)  # a corner of the cube: in no cell
        else:
            after = tilt(wanted, self._rng, _PLACEMENT_DEG)
        leg = self._leg(start_s, start_s + self._rng.uniform(1.2, 2.0), before, after, mistake)
        self._legs.append(leg)

    def _firm(self, now_s: float) -> None:
        """Told that it moved: lays it on something hard, where it is."""
        last = self._legs[-1]
        here = self._along(last, np.array([now_s]))[0]
        here /= np.linalg.norm(here)
        if last.creep.any():
            self._legs.append(self._leg(now_s + _REACTION_S, now_s + _REACTION_S + 0.8, here, here))

    def _leg(self, start_s: float, stop_s: float, before: Array, after: Array, mistake: str = "") -> _Leg:
        angle = float(np.arccos(np.clip(before @ after, -1, 1)))
        across = after - before * np.cos(angle)
        if np.linalg.norm(across) < 1e-9:
            across = np.cross(before, self._rng.normal(size=3))
        across /= np.linalg.norm(across)
        side = np.cross(after, self._rng.normal(size=3))
        side /= np.linalg.norm(side)
        return _Leg(
            start_s,
            stop_s,
            before,
            after,
            across,
            angle,
            self._rng.uniform(6, 12, 8),
            self._rng.uniform(0, 2 * np.pi, (8, 3)),
            self._rng.uniform(5e-3, 20e-3) if stop_s > start_s else 0.0,
            side * _CREEP_G_PER_S if mistake == "soft" else np.zeros(3),
            stop_s + 2.0 + _KNOCK_AFTER_S if mistake == "knock" else -1.0,
        )

    def _along(self, leg: _Leg, t: Array) -> Array:
        if t[0] >= leg.stop_s and not leg.creep.any() and leg.knock_s < 0:
            return np.broadcast_to(leg.after, (len(t), 3))
        span = leg.stop_s - leg.start_s
        part = np.clip((t - leg.start_s) / span, 0, 1) if span > 0 else np.ones(len(t))
        turned = leg.angle * part * part * (3 - 2 * part)
        path = np.cos(turned)[:, None] * leg.before + np.sin(turned)[:, None] * leg.across
        moving = int(np.searchsorted(part, 1.0))  # values before it are in the turn
        if moving:
            waves = np.sin(2 * np.pi * leg.tones_hz[:, None, None] * t[None, :moving, None] + leg.phases[:, None, :]).sum(axis=0)
            path[:moving] += waves * leg.tremor_g / np.sqrt(12.0)
        path = path + np.maximum(t - leg.stop_s, 0)[:, None] * leg.creep
        if leg.knock_s > 0:
            since = t - leg.knock_s
            ring = np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.02) * np.cos(2 * np.pi * 90 * since), 0.0)
            path = path + _KNOCK_G * ring[:, None]
        return np.asarray(path)
