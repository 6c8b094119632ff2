"""Where each device's frames are: spooled, in flight, done. Three numbers a device and a ring of what is in flight.

    low <= send <= due:  below `low` all is done; [low, send) is in flight; [send, due) waits in the spool

QoS 0 has nothing in flight: a frame is done when its last byte was taken by the socket. QoS 1: with its PUBACK. A lost
connection puts `send` back to `low`, so what was in flight goes out again, first and in order.
"""

from typing import Any

import numpy as np

from triax_sim.ledger import Writer
from triax_sim.population import Population

__all__ = ["Flight"]

Array = np.ndarray[Any, Any]

_RING = 64  # more than the largest window (plan.check_cohort)


class Flight:
    """Frames of all devices of a population; every finished frame becomes a record of `ledger`."""

    def __init__(self, people: Population, ledger: Writer) -> None:
        self.people = people
        self.ledger = ledger
        count = people.count
        self.due = np.zeros(count, np.int64)
        self.send = np.zeros(count, np.int64)
        self.low = np.zeros(count, np.int64)
        self.top = np.zeros(count, np.int64)  # below it, each frame has been on the wire once
        self.last_us = np.zeros(count, np.int64)  # of the last frame written
        self.progress_us = np.zeros(count, np.int64)  # QoS 1: when the oldest in flight was sent, or the one before it acked
        # Frames that are done and not yet in the ledger: device, number, checksum, due (None: to be computed), sent, acked.
        self._done: list[tuple[Array, Array, Array, Array | None, Array, Array]] = []
        self.stray = self.resent = self.dropped = 0
        self._acked_qos = people.qos == 1
        self._any_acked = bool(self._acked_qos.any())
        self._all_acked = bool(self._acked_qos.all())
        self._sent_us = np.zeros((count, _RING), np.int64)
        self._checksum = np.zeros((count, _RING), np.uint32)
        self._acked = np.zeros((count, _RING), bool)

    def can_send(self, who: Array, number: Array) -> Array:
        """True where frame `number` is the next one of its device and its window has room."""
        return np.asarray((self.send[who] == number) & (number - self.low[who] < self.people.window[who]))

    def waiting(self, ready: Array) -> Array:
        """Devices that are ready, have something in the spool and room in the window."""
        return np.flatnonzero(ready & (self.send < self.due) & (self.send - self.low < self.people.window))

    def sent(self, who: Array, number: Array, checksum: Array, due_us: Array, sent_us: Array) -> None:
        """Frames whose last byte the socket took, one a device."""
        self.send[who] = number + 1
        self.last_us[who] = sent_us
        if self._any_acked:
            of = slice(None) if self._all_acked else self._acked_qos[who]
            self._fly(who[of], number[of], checksum[of], sent_us[of])
            if self._all_acked:
                return
            of = ~self._acked_qos[who]
            who, number, checksum, due_us, sent_us = who[of], number[of], checksum[of], due_us[of], sent_us[of]
        self.low[who] = number + 1
        self._done.append((who, number, checksum, due_us, sent_us, np.zeros(len(who), np.int64)))

    def _fly(self, who: Array, number: Array, checksum: Array, sent_us: Array) -> None:
        first = number == self.low[who]
        self.progress_us[who[first]] = sent_us[first]
        new = number >= self.top[who]
        if not new.all():
            self.resent += int((~new).sum())
            who, number, checksum, sent_us = who[new], number[new], checksum[new], sent_us[new]
        place = number & (_RING - 1)
        self._sent_us[who, place] = sent_us
        self._checksum[who, place] = checksum
        self.top[who] = number + 1

    def acks(self, who: Array, packet_id: Array, now: int) -> None:
        """PUBACKs in order of arrival."""
        low = self.low[who]
        number = low + ((packet_id - 1 - low) & 0x7FFF)
        place = number & (_RING - 1)
        good = (number < self.send[who]) & ~self._acked[who, place]
        if not good.all():
            self.stray += int((~good).sum())
            who, number, place = who[good], number[good], place[good]
        self._acked[who, place] = True
        sent_us, checksum = self._sent_us[who, place], self._checksum[who, place]
        self._done.append((who, number, checksum, None, sent_us, np.full(len(who), now)))
        self.progress_us[who] = now
        while who.size:  # as often as frames of one device were acked at once: once, as a rule
            place = self.low[who] & (_RING - 1)
            done = self._acked[who, place] & (self.low[who] < self.send[who])
            who, place = who[done], place[done]
            self._acked[who, place] = False
            self.low[who] += 1

    def flush(self) -> tuple[Array, Array, Array]:
        """Write the records of all frames that are done since the last flush; their (due, sent, acked) in UTC us.

        Once a tenth of a second and not once a slot: a numpy call costs as much for a hundred frames as for some thousands.
        """
        if not self._done:
            none = np.empty(0, np.int64)
            return none, none, none
        items, self._done = self._done, []
        who, number, checksum = (np.concatenate([item[n] for item in items]) for n in (0, 1, 2))
        sent, acked = (np.concatenate([item[n] for item in items]) for n in (4, 5))
        if any(item[3] is None for item in items):
            due = self.people.due_us(who, number)
        else:
            due = np.concatenate([item[3] for item in items])
        boot, sequence = self.people.identity(who, number)
        self.ledger.add(self.people.device[who], boot, sequence, checksum, self.people.qos[who], due, sent, acked)
        return due, sent, acked

    def lost_link(self, device: int) -> None:
        """What was in flight has to go again."""
        self.send[device] = self.low[device]

    def overflow(self) -> None:
        """Drop the oldest frames of spools that hold too many: never sent, or (in flight once) unknown."""
        over = np.flatnonzero(self.due - self.low > self.people.spool)
        if over.size:
            self.give_up(over, self.due[over] - self.people.spool[over])

    def stuck(self, now: int, timeout_us: int) -> Array:
        """Devices whose oldest frame in flight has had no PUBACK for too long."""
        return np.flatnonzero((self.send > self.low) & (now - self.progress_us > timeout_us))

    def give_up(self, who: Array, upto: Array) -> None:
        """Record frames below `upto` that are not done, as they are, and let the devices forget them."""
        counts = np.maximum(upto - self.low[who], 0)
        every = np.repeat(who, counts)
        first = np.repeat(self.low[who] - np.cumsum(counts) + counts, counts)
        number = first + np.arange(len(every))
        for at in range(0, len(every), 1 << 14):
            self._give_up(every[at : at + (1 << 14)], number[at : at + (1 << 14)])
        self.low[who] = np.maximum(self.low[who], upto)
        self.send[who] = np.maximum(self.send[who], self.low[who])
        self.top[who] = np.maximum(self.top[who], self.low[who])

    def _give_up(self, who: Array, number: Array) -> None:
        place = number & (_RING - 1)
        once = (number < self.top[who]) & self._acked_qos[who]
        done = once & self._acked[who, place]  # acked out of order: has its record
        self._acked[who[done], place[done]] = False
        who, number, place, once = who[~done], number[~done], place[~done], once[~done]
        self.dropped += int((~once).sum())
        boot, sequence = self.people.identity(who, number)
        self.ledger.add(
            self.people.device[who],
            boot,
            sequence,
            self.people.checksums(who, number),
            self.people.qos[who],
            self.people.due_us(who, number),
            np.where(once, self._sent_us[who, place], 0),
            0,
        )
