"""Where each device's frames are: spooled, in flight, done; as the node's spool has it (triax.spool), for thousands at once.

Two lanes a device, each a range of frame numbers:

    live    low <= send <= end     frames made since this connection stands, sent at once
    back    low <= send <= end     what was there before it, sent beside them at the replay rate, oldest first

Below `low` all is done, [low, send) is in flight, [send, end) waits. A new connection makes everything that is not done backlog; if
that has holes, further ranges queue in `_more`. QoS 0 has nothing in flight: a frame is done when the socket took its last byte.
"""

from typing import Any

import numpy as np

from triax_sim.ledger import Writer
from triax_sim.population import Population

__all__ = ["BACK", "LIVE", "Flight", "lane_of", "packet_ids"]

Array = np.ndarray[Any, Any]

LIVE, BACK = 0, 1
_IN_FLIGHT = np.dtype([("sent_us", "<i8"), ("checksum", "<u4"), ("acked", "?")], align=True)
_IDS = 0x4000  # MQTT packet ids of a lane: 1 to 16,384 live, the next 16,384 back


def packet_ids(lane: int, number: Array) -> Array:
    """MQTT packet id of a frame, from which lane and number follow while it is in flight."""
    return (number & (_IDS - 1)) + 1 + lane * _IDS


def lane_of(packet_id: Array) -> Array:
    """Lane of a packet id."""
    return (packet_id > _IDS).astype(np.int64)


class Flight:
    """Frames of all devices of a population; every finished frame becomes a record of `ledger`."""

    def __init__(self, people: Population, ledger: Writer) -> None:
        self.people, self.ledger = people, ledger
        count = people.count
        self.low, self.send, self.end = (np.zeros((2, count), np.int64) for _ in range(3))
        self.due = self.end[LIVE]  # frames made so far
        self.flying = np.zeros(count, np.int64)  # QoS 1: in flight, both lanes
        self.last_us = np.zeros(count, np.int64)  # of the last frame written
        self._progress_us = np.zeros(count, np.int64)  # when something last moved in the window
        self._more: dict[int, list[tuple[int, int]]] = {}
        self._more_frames = np.zeros(count, np.int64)
        self._before: dict[tuple[int, int], int] = {}  # (device, number) that was in flight on a connection that ended: sent
        # Frames that are done and not yet in the ledger: device, number, checksum, sent, acked.
        self._done: list[tuple[Array, Array, Array, Array, Array]] = []
        self.stray = self.dropped = 0
        self.resent: list[tuple[int, int]] = []  # device, number
        self._acked_qos = people.qos == 1
        self._all_acked = bool(self._acked_qos.all())
        # The frames from `low` on of each lane, twice a window: room for some that were acked before an older one.
        self._ring = 2 << int(people.window.max() - 1).bit_length()
        self._kept = np.zeros(count * 2 * self._ring, _IN_FLIGHT)

    def begin(self, made: Array) -> None:
        """Frames below `made` are in the spools from before the start."""
        self.end[:] = made
        self.low[LIVE] = self.send[LIVE] = made

    def _at(self, lane: Any, who: Any, number: Any) -> Any:
        """Rows of `_kept`."""
        return (2 * who + lane) * self._ring + (number & (self._ring - 1))

    # -- out

    def can_send(self, who: Array, number: Array) -> Array:
        """True where live frame `number` is the next one of its device, and window and ring have room."""
        room = (self.flying[who] < self.people.window[who]) & (number - self.low[LIVE][who] < self._ring)
        return np.asarray(room & (self.send[LIVE][who] == number))

    def waiting(self, lane: int, ready: Array) -> Array:
        """Devices that are ready, have something waiting in this lane, and room in window and ring."""
        send = self.send[lane]
        waits = np.flatnonzero(send < self.end[lane])
        if not waits.size:
            return waits
        room = (self.flying[waits] < self.people.window[waits]) & (send[waits] - self.low[lane][waits] < self._ring)
        return np.asarray(waits[ready[waits] & room])

    def sent(self, lane: int, who: Array, number: Array, checksum: Array, sent_us: Array) -> None:
        """Frames whose last byte the socket took, one a device."""
        self.send[lane][who] = number + 1
        self.last_us[who] = sent_us
        if self._all_acked:
            self._fly(lane, who, number, checksum, sent_us)
            return
        of = self._acked_qos[who]
        if of.any():
            self._fly(lane, who[of], number[of], checksum[of], sent_us[of])
            who, number, checksum, sent_us = who[~of], number[~of], checksum[~of], sent_us[~of]
        self.low[lane, who] = number + 1
        self._done.append((who, number, checksum, sent_us, np.zeros(len(who), np.int64)))
        if self._more and lane == BACK:
            self._next_ranges(who)

    def _fly(self, lane: int, who: Array, number: Array, checksum: Array, sent_us: Array) -> None:
        idle = self.flying[who] == 0
        self._progress_us[who[idle]] = sent_us[idle]
        self.flying[who] += 1
        if self._before and lane == BACK:
            sent_us = self._first_sent(who, number, sent_us)
        at = self._at(lane, who, number)
        self._kept["sent_us"][at] = sent_us
        self._kept["checksum"][at] = checksum

    def _first_sent(self, who: Array, number: Array, sent_us: Array) -> Array:
        """The time at which frames that go out again went out first."""
        sent_us = sent_us.copy()
        for n, key in enumerate(zip(who.tolist(), number.tolist(), strict=True)):
            if key in self._before:
                sent_us[n] = self._before.pop(key)
                self.resent.append(key)
        return sent_us

    # -- done

    def acks(self, who: Array, packet_id: Array, now: int, once: bool = False) -> None:
        """PUBACKs in order of arrival; `once`: no device is named twice."""
        if once and self._in_order(who, packet_id, now):
            return
        lane = lane_of(packet_id)
        low = self.low[lane, who]
        number = low + ((packet_id - 1 - low) & (_IDS - 1))
        at = self._at(lane, who, number)
        good = (number < self.send[lane, who]) & ~self._kept["acked"][at]
        if not good.all():
            self.stray += int((~good).sum())
            lane, who, number, at = lane[good], who[good], number[good], at[good]
        self._kept["acked"][at] = True
        np.subtract.at(self.flying, who, 1)
        self._finish(who, number, at, now)
        while who.size:  # as often as frames of one device were acked at once: once, as a rule
            low = self.low[lane, who]
            at = self._at(lane, who, low)
            done = self._kept["acked"][at] & (low < self.send[lane, who])
            lane, who = lane[done], who[done]
            self._kept["acked"][at[done]] = False
            self.low[lane, who] += 1
            if self._more:
                self._next_ranges(who[lane == BACK])

    def _in_order(self, who: Array, packet_id: Array, now: int) -> bool:
        """What `acks` does, in a third of the time, if each PUBACK is for the oldest live frame and none was acked before it."""
        low, kept = self.low[LIVE], self._kept
        number = low[who]
        after = number + 1
        if not ((number & (_IDS - 1)) + 1 == packet_id).all() or (after > self.send[LIVE][who]).any():
            return False
        if kept["acked"][self._at(LIVE, who, after)].any():
            return False
        low[who] = after
        self.flying[who] -= 1
        self._finish(who, number, self._at(LIVE, who, number), now)
        return True

    def _finish(self, who: Array, number: Array, at: Array, now: int) -> None:
        self._progress_us[who] = now
        kept = self._kept[at]
        self._done.append((who, number, kept["checksum"], kept["sent_us"], np.full(len(who), now)))

    def _next_ranges(self, who: Array) -> None:
        """Devices that are through with a range of backlog go on to the next; one may be named several times."""
        for device in set(who[self.low[BACK, who] == self.end[BACK, who]].tolist()):
            ranges = self._more.get(device)
            if ranges:
                first, end = ranges.pop(0)
                self.low[BACK, device] = self.send[BACK, device] = first
                self.end[BACK, device] = end
                self._more_frames[device] -= end - first
                if not ranges:
                    del self._more[device]

    def flush(self) -> tuple[Array, Array, Array]:
        """Write the records of all frames that are done since the last flush; their (due, sent, acked) in UTC us.

        Once a tenth of a second and not once a slot: a numpy call costs as much for a hundred frames as for some thousands.
        """
        if not self._done:
            none = np.empty(0, np.int64)
            return none, none, none
        items, self._done = self._done, []
        who, number, checksum, sent, acked = (np.concatenate([item[n] for item in items]) for n in range(5))
        return self._record(who, number, checksum, sent, acked)

    def _record(self, who: Array, number: Array, checksum: Array, sent: Array, acked: Array) -> tuple[Array, Array, Array]:
        due = self.people.due_us(who, number)
        boot, sequence = self.people.identity(who, number)
        self.ledger.add(self.people.device[who], boot, sequence, checksum, self.people.qos[who], due, sent, acked)
        return due, sent, acked

    def resent_frames(self) -> list[list[int]]:
        """Device, boot and sequence of the frames that were written on more than one connection: they may arrive twice."""
        if not self.resent:
            return []
        who, number = np.array(self.resent).T
        boot, sequence = self.people.identity(who, number)
        return [list(row) for row in zip(self.people.device[who].tolist(), boot.tolist(), sequence.tolist(), strict=True)]

    # -- connections and full spools

    def connected(self, device: int) -> None:
        """A new connection: all that is not done is backlog."""
        ranges: list[tuple[int, int]] = []
        for lane in (BACK, LIVE):
            send = int(self.send[lane, device])
            for number in range(int(self.low[lane, device]), send):
                kept = self._kept[self._at(lane, device, number)]
                if not kept["acked"]:  # else it was acked before an earlier one, and is done
                    self._before.setdefault((device, number), int(kept["sent_us"]))
                    ranges.append((number, number + 1))
            ranges.append((send, int(self.end[lane, device])))
            if lane == BACK:
                ranges += self._more.pop(device, [])
        merged: list[tuple[int, int]] = []
        for first, end in ranges:
            if first < end and merged and merged[-1][1] == first:
                merged[-1] = (merged[-1][0], end)
            elif first < end:
                merged.append((first, end))
        self._kept["acked"][2 * device * self._ring : 2 * (device + 1) * self._ring] = False
        self.flying[device] = 0
        made = int(self.due[device])
        self.low[LIVE, device] = self.send[LIVE, device] = made
        first, end = merged[0] if merged else (made, made)
        self.low[BACK, device] = self.send[BACK, device] = first
        self.end[BACK, device] = end
        if len(merged) > 1:
            self._more[device] = merged[1:]
        self._more_frames[device] = sum(b - a for a, b in merged[1:])

    def depth(self) -> Array:
        """Frames that each device holds."""
        return np.asarray((self.end - self.low).sum(axis=0) + self._more_frames)

    def overflow(self) -> None:
        """Drop the oldest frames of spools that hold too many: never sent, or (in flight once) unknown."""
        excess = self.depth() - self.people.spool
        while (who := np.flatnonzero(excess > 0)).size:
            lane_full = self.end[BACK, who] > self.low[BACK, who]
            for lane in (BACK, LIVE):
                of = who[lane_full if lane == BACK else ~lane_full]
                if of.size:
                    count = np.minimum(excess[of], self.end[lane, of] - self.low[lane, of])
                    self.give_up(lane, of, self.low[lane, of] + count)
                    excess[of] -= count
            self._next_ranges(who)

    def stuck(self, now: int, timeout_us: int) -> Array:
        """Devices whose window has not moved for too long."""
        return np.flatnonzero((self.flying > 0) & (now - self._progress_us > timeout_us))

    def forget(self, who: Array) -> None:
        """Record all that these devices hold, as it is; they hold nothing any more."""
        while who.size:
            for lane in (BACK, LIVE):
                self.give_up(lane, who, self.end[lane, who])
            who = who[self._more_frames[who] > 0]
            self._next_ranges(who)

    def give_up(self, lane: int, who: Array, upto: Array) -> None:
        """Record frames of a lane below `upto` that are not done, as they are, and let the devices forget them."""
        low = self.low[lane, who]
        counts = np.maximum(upto - low, 0)
        every = np.repeat(who, counts)
        number = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(len(every))
        for at in range(0, len(every), 1 << 14):
            self._give_up(lane, every[at : at + (1 << 14)], number[at : at + (1 << 14)])
        self.flying[who] -= np.clip(np.minimum(self.send[lane, who], upto) - low, 0, None) * self._acked_qos[who]
        self.flying[who] = np.maximum(self.flying[who], 0)
        self.low[lane, who] = np.maximum(low, upto)
        self.send[lane, who] = np.maximum(self.send[lane, who], self.low[lane, who])

    def _give_up(self, lane: int, who: Array, number: Array) -> None:
        at = self._at(lane, who, number)
        flew = (number < self.send[lane, who]) & self._acked_qos[who]
        done = flew & self._kept["acked"][at]  # acked out of order: has its record
        self._kept["acked"][at[done]] = False
        who, number, at, flew = who[~done], number[~done], at[~done], flew[~done]
        sent = np.where(flew, self._kept["sent_us"][at], 0)
        if self._before:
            for n, key in enumerate(zip(who.tolist(), number.tolist(), strict=True)):
                if key in self._before:
                    sent[n] = self._before.pop(key)
        self.dropped += int((sent == 0).sum())
        self._record(who, number, self.people.checksums(who, number), sent, np.zeros(len(who), np.int64))
