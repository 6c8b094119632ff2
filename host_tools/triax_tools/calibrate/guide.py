"""The guided capture: values in, prompts out. No clock, no I/O; time is counted in values.

    MOVING -> SETTLING -> HOLDING -> TAKEN -> MOVING ..            -> COMPLETE
                 |            |-- halves disagree: "moved by 3.1 mg: hold again", HOLDING starts anew
                 |-- moved ---+-- moved: MOVING

Any order of poses. "Still" is what rest.py calls still, with the quietest second so far as the floor; a pose that was taken while
the floor was not yet known (a hand that kept holding) is given back when it becomes known. `redo` gives back the last pose.
"""

from dataclasses import dataclass

import numpy as np

from triax_tools.calibrate import rest
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.pose import CELL_RADIUS_DEG, CELLS, NAMES, cell_of, instruction

__all__ = ["COMPLETE", "HOLDING", "MOVING", "SETTLING", "STATES", "TAKEN", "Guide", "Prompt", "Taken"]

MOVING, SETTLING, HOLDING, TAKEN, COMPLETE = range(5)
STATES = ("moving", "settling", "holding", "taken", "complete")

# What may follow what; the test walks every edge.
NEXT = {
    MOVING: (SETTLING,),
    SETTLING: (HOLDING, MOVING),
    HOLDING: (HOLDING, TAKEN, MOVING, COMPLETE),
    TAKEN: (MOVING,),
    COMPLETE: (MOVING,),  # after redo
}

# Prompt kinds
TURN, HOLD, ACCEPTED, REJECTED, DUPLICATE, BETWEEN, REVOKED, REDONE, GAP, DONE = (
    "turn",
    "hold",
    "accepted",
    "rejected",
    "duplicate",
    "between",
    "revoked",
    "redone",
    "gap",
    "done",
)
HOLD_S = 10.0
_WINDOW_BLOCKS = round(rest.WINDOW_S / rest.BLOCK_S)
_SETTLE_BLOCKS = round(rest.SETTLE_S / rest.BLOCK_S)
_REVOKE = 4.0  # times quieter: the floor of a table against that of the steadiest hand is 20 to 400


@dataclass(frozen=True)
class Prompt:
    """What to tell the human. `moved_g` with a rejection, `cell` the pose it is about (or the next one to take)."""

    kind: str
    text: str
    cell: int | None = None
    moved_g: float = 0.0


@dataclass(frozen=True)
class Taken:
    """An accepted rest: values [start, stop) of everything fed so far, mean counts, and how loud it was."""

    cell: int
    start: int
    stop: int
    mean: Array
    moved_g: float
    fast: float
    slow: float


class Guide:
    """Feed it counts; it says what to do.

    guide = Guide(rate_hz=100, scale_g=1 / 16384)
    for prompt in guide.feed(counts): print(prompt.text)
    """

    def __init__(self, rate_hz: float, scale_g: float, *, hold_s: float = HOLD_S, cells: tuple[int, ...] | None = None) -> None:
        self.rate_hz, self.scale_g, self.hold_s = rate_hz, scale_g, hold_s
        self.cells = tuple(range(len(CELLS))) if cells is None else cells
        self.state = MOVING
        self.taken: dict[int, Taken] = {}
        self.fed = 0
        self.direction: Array | None = None
        self.rejections = 0
        self._block = max(1, round(rest.BLOCK_S * rate_hz))
        self._pending = np.zeros((0, 3))
        self._window: list[Array] = []
        self._floor = (rest.CEILING_G2 / rest.FACTOR, rest.CEILING_G2 / rest.SLOW_FACTOR)
        self._rounding = 3 * scale_g**2 / 12
        self._held: list[Array] = []
        self._held_from = 0
        self._loudest = (0.0, 0.0)
        self._waited = 0

    # In

    def feed(self, counts: Array) -> list[Prompt]:
        """Take counts (n, 3); return what there is to say, oldest first."""
        self._pending = np.vstack([self._pending, counts])
        prompts: list[Prompt] = []
        while len(self._pending) >= self._block:
            block, self._pending = self._pending[: self._block], self._pending[self._block :]
            self.fed += len(block)
            prompts += self._step(block)
        return prompts

    def gap(self) -> list[Prompt]:
        """Samples are missing here: what is being held must be held anew."""
        self.fed += len(self._pending)
        self._pending = np.zeros((0, 3))
        self._window.clear()
        was, self.state = self.state, MOVING if self.state != COMPLETE else COMPLETE
        return [Prompt(GAP, "samples were lost: hold again")] if was in (SETTLING, HOLDING) else []

    def redo(self) -> list[Prompt]:
        """Give back the pose that was taken last."""
        if not self.taken:
            return [Prompt(REDONE, "there is no pose to redo")]
        cell = next(reversed(self.taken))
        return self.forget(cell, REDONE, f"{NAMES[cell]} is open again: {instruction(cell)}")

    def forget(self, cell: int, kind: str, text: str) -> list[Prompt]:
        """Open a cell again."""
        self.taken.pop(cell, None)
        if self.state == COMPLETE:
            self.state = MOVING
        return [Prompt(kind, text, cell)]

    def restore(self, cell: int, taken: Taken) -> None:
        """A pose of an earlier part of an interrupted capture."""
        self.taken[cell] = taken

    # Out

    @property
    def missing(self) -> list[int]:
        """Cells still to take."""
        return [cell for cell in self.cells if cell not in self.taken]

    @property
    def done(self) -> bool:
        """All cells are taken."""
        return not self.missing

    @property
    def next_cell(self) -> int | None:
        """The open cell that is the smallest turn away."""
        left = self.missing
        if not left:
            return None
        if self.direction is None:
            return left[0]
        return max(left, key=lambda cell: float(CELLS[cell] @ self.direction))

    @property
    def progress(self) -> float:
        """Of the present hold, 0 to 1."""
        held = sum(len(block) for block in self._held)
        return min(1.0, held / (self.hold_s * self.rate_hz)) if self.state == HOLDING else float(self.state in (TAKEN, COMPLETE))

    def snapshot(self) -> dict[str, object]:
        """For a page: plain numbers and words."""
        return {
            "state": STATES[self.state],
            "cells": [
                {"name": NAMES[c], "at": CELLS[c].round(4).tolist(), "taken": c in self.taken, "wanted": c in self.cells}
                for c in range(len(CELLS))
            ],
            "next": None if self.next_cell is None else NAMES[self.next_cell],
            "direction": None if self.direction is None else self.direction.round(4).tolist(),
            "progress": round(self.progress, 3),
            "taken": len(self.taken),
            "of": len(self.cells),
        }

    # Inside

    def _to(self, state: int) -> None:
        if state not in NEXT[self.state]:
            raise RuntimeError(f"the guide went from {STATES[self.state]} to {STATES[state]}")
        self.state = state

    def _step(self, block: Array) -> list[Prompt]:
        self._window.append(block * self.scale_g)
        if len(self._window) > _WINDOW_BLOCKS:
            self._window.pop(0)
        mean = self._window[-1].mean(axis=0)
        self.direction = mean / (np.linalg.norm(mean) or 1.0)
        if len(self._window) < _WINDOW_BLOCKS:
            return []
        fast, slow = self._loudness()
        prompts = self._lower_floor(fast, slow)
        still = fast < rest.FACTOR * max(self._floor[0], self._rounding) and slow < rest.SLOW_FACTOR * self._floor[1]
        return prompts + (self._still(block, fast, slow) if still else self._moved())

    def _loudness(self) -> tuple[float, float]:
        values = np.concatenate(self._window)
        slow = np.array([part.mean(axis=0) for part in self._window])
        return float(values.var(axis=0).sum()), float(slow.var(axis=0).sum())

    def _lower_floor(self, fast: float, slow: float) -> list[Prompt]:
        before = self._floor
        # The quietest slow second of many is 0.35 of the mean: a running minimum would creep down for ever.
        self._floor = (min(before[0], max(fast, self._rounding)), min(before[1], max(slow * 2, self._rounding / 10)))
        if self._floor[0] * _REVOKE > before[0] and self._floor[1] * _REVOKE > before[1]:
            return []
        prompts = []
        for cell, held in list(self.taken.items()):
            if held.fast > rest.FACTOR * self._floor[0] * _REVOKE or held.slow > rest.SLOW_FACTOR * self._floor[1] * _REVOKE:
                times = np.sqrt(max(held.fast / self._floor[0], held.slow / self._floor[1]))
                text = f"{NAMES[cell]} was taken in the hand (it is {times:.0f} times quieter now): take it again"
                prompts += self.forget(cell, REVOKED, text)
        return prompts

    def _moved(self) -> list[Prompt]:
        prompts = []
        if self.state == HOLDING and sum(map(len, self._held)) > self.rate_hz:
            self.rejections += 1
            prompts.append(Prompt(REJECTED, "it moved: lay it down and let go", self.next_cell))
        if self.state in (SETTLING, HOLDING, TAKEN):
            self._to(MOVING)
        self._held.clear()
        self._waited = 0
        return prompts

    def _still(self, block: Array, fast: float, slow: float) -> list[Prompt]:
        if self.state == MOVING:
            self._to(SETTLING)
            self._waited = 0
        if self.state == SETTLING:
            self._waited += 1
            return self._settled(block.mean(axis=0)) if self._waited >= _SETTLE_BLOCKS else []
        if self.state != HOLDING:
            return []
        self._held.append(block)
        self._loudest = (max(self._loudest[0], fast), max(self._loudest[1], slow))
        if sum(map(len, self._held)) < self.hold_s * self.rate_hz:
            return []
        return self._judge()

    def _settled(self, up: Array) -> list[Prompt]:
        """Still for a second: which pose is it?"""
        cell, away = cell_of(up)
        if away > CELL_RADIUS_DEG:
            self._waited = -10 * _SETTLE_BLOCKS  # say it again after ten seconds
            return [Prompt(BETWEEN, f"{away:.0f} degrees from {NAMES[cell]}: {self._want()}", self.next_cell)]
        if cell in self.taken or cell not in self.cells:
            self._waited = -10 * _SETTLE_BLOCKS
            return [Prompt(DUPLICATE, f"{NAMES[cell]} is done already: {self._want()}", self.next_cell)]
        self._to(HOLDING)
        self._begin()
        return [Prompt(HOLD, f"{NAMES[cell]}: hold still for {self.hold_s:g} s", cell)]

    def _begin(self) -> None:
        self._held.clear()
        self._held_from = self.fed
        self._loudest = (0.0, 0.0)

    def _judge(self) -> list[Prompt]:
        values = np.concatenate(self._held)
        moved, limit = rest.half_test(values * self.scale_g, self.rate_hz)
        cell, _ = cell_of(values.mean(axis=0))
        if moved > limit:
            self.rejections += 1
            self._begin()
            return [Prompt(REJECTED, f"moved by {moved * 1e3:.1f} mg: hold again", cell, moved)]
        self.taken[cell] = Taken(cell, self._held_from, self.fed, values.mean(axis=0), moved, *self._loudest)
        self._held.clear()
        text = f"{NAMES[cell]} taken, {len(self.taken)} of {len(self.cells)}"
        if self.done:
            self._to(COMPLETE)
            return [Prompt(ACCEPTED, text, cell, moved), Prompt(DONE, "all poses are taken")]
        self._to(TAKEN)
        return [Prompt(ACCEPTED, text, cell, moved), Prompt(TURN, self._want(), self.next_cell)]

    def _want(self) -> str:
        return "all poses are taken" if self.next_cell is None else instruction(self.next_cell)
