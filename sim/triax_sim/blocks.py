"""What falls due next, built ahead: frames of a block of time in the order in which they are due."""

from typing import Any, NamedTuple

import numpy as np

from triax_sim.flight import LIVE, packet_ids
from triax_sim.population import NEVER, Population

__all__ = ["Block", "Blocks"]

Array = np.ndarray[Any, Any]


class Block(NamedTuple):
    """Columns of frames by due time."""

    who: Array
    number: Array
    due_us: Array
    packets: list[bytes]
    checksum: Array

    def part(self, rows: Array) -> "Block":
        """Some of its rows."""
        packets = [self.packets[n] for n in rows.tolist()]
        return Block(self.who[rows], self.number[rows], self.due_us[rows], packets, self.checksum[rows])

    def between(self, first: int, end: int) -> "Block":
        """Rows `first` to `end` - 1."""
        return Block(*(column[first:end] for column in self))  # type: ignore[arg-type]

    def rounds(self) -> "list[Block]":
        """As few blocks as have each device once, its frames in order."""
        order = np.argsort(self.who, kind="stable")
        who = self.who[order]
        begins = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
        rank = np.empty(len(who), np.int64)
        rank[order] = np.arange(len(who)) - np.repeat(begins, np.diff(np.append(begins, len(who))))
        return [self.part(np.flatnonzero(rank == n)) for n in range(int(rank.max()) + 1)]


class Blocks:
    """The schedule of a population: absolute due times, whatever became of the frames before."""

    def __init__(self, people: Population) -> None:
        self._people = people
        self.next = np.zeros(people.count, np.int64)  # number of the first frame that is in no block yet
        self._next_due = np.full(people.count, NEVER)

    def begin(self, first: Array) -> None:
        """Start with these frame numbers."""
        self.next[:] = first
        self.changed(np.arange(self._people.count))

    def changed(self, who: Array) -> None:
        """The population has another schedule for these devices."""
        self._next_due[who] = self._people.due_us(who, self.next[who])

    def until(self, end: int) -> Block:
        """All frames due before `end` that were in no block yet."""
        whos: list[Array] = []
        numbers: list[Array] = []
        dues: list[Array] = []
        while (who := np.flatnonzero(self._next_due < end)).size:
            whos.append(who)
            numbers.append(self.next[who])
            dues.append(self._next_due[who])
            self.next[who] += 1
            self.changed(who)
        if not whos:
            none = np.empty(0, np.int64)
            return Block(none, none, none, [], none)
        due = np.concatenate(dues)
        order = np.argsort(due, kind="stable")
        who, number = np.concatenate(whos)[order], np.concatenate(numbers)[order]
        packets, checksum = self._people.packets(who, number, packet_ids(LIVE, number))
        return Block(who, number, due[order], packets, checksum)
