"""What comes back from the server: PUBACKs by the hundred, ping answers, and the silence of a server that is gone."""

from typing import Any

import numpy as np

from triax_sim.flight import Flight
from triax_sim.links import UP, Links
from triax_sim.packet import PINGREQ, PUBACK, BadReply, cut

__all__ = ["Listener"]

Array = np.ndarray[Any, Any]

_PUBACK = PUBACK << 8 | 2  # its first two bytes
_NONE = np.empty(0, ">u4")
_PUBACK_US = 10_000_000  # design.md 3.4: no PUBACK within 10 s: reconnect and resend


class Listener:
    """Takes replies to `flight`; pings each device's server every `ping_us`, and gives connections up that do not answer."""

    def __init__(self, links: Links, flight: Flight, ping_us: Array, seed: int) -> None:
        self._links, self._flight, self._ping_us = links, flight, ping_us
        self._heard: dict[int, bytes] = {}
        # As if each had pinged at some time before: 10,000 devices do not ping in the same moment.
        self._pinged = -(np.random.default_rng(seed).random(len(ping_us)) * ping_us).astype(np.int64)
        self._asked = np.zeros(len(ping_us), bool)

    def begin(self, now: int) -> None:
        """The time from which pings count."""
        self._pinged += now

    def hear(self, devices: list[int], said: list[bytes], now: int) -> None:
        """What devices have received: PUBACKs, mostly, all of a poll at once, the odd rest one by one."""
        if not devices:
            return
        data = b"".join(said)
        who = np.array(devices)
        once = len(data) == 4 * len(devices)  # one PUBACK each, if it is one
        if not once:
            sizes = np.fromiter(map(len, said), np.int64, len(said))
            who = np.repeat(who, sizes // 4) if not (sizes & 3).any() else who[:0]
        acks = np.frombuffer(data, ">u4") if len(who) and not self._heard else _NONE
        if not len(acks) or (acks >> 16 != _PUBACK).any():
            owners, data = self._sort(devices, said, now)
            who, acks, once = np.array(owners, np.int64), np.frombuffer(data, ">u4"), False
        if len(acks):
            self._flight.acks(who, (acks & 0xFFFF).astype(np.int64), now, once)

    def _sort(self, devices: list[int], said: list[bytes], now: int) -> tuple[list[int], bytes]:
        """PUBACKs out of mixed replies, one device for each; other packets are dealt with."""
        owners: list[int] = []
        acks: list[bytes] = []
        for device, data in zip(devices, said, strict=True):
            data = self._heard.pop(device, b"") + data
            at = 0
            try:
                for first, body, after in cut(data):
                    at = after
                    if first == PUBACK and len(body) == 2:
                        owners.append(device)
                        acks.append(b"\x40\x02" + body)
                    else:
                        self._asked[device] = False  # PINGRESP; a node takes its configuration, a bulk device does not
            except BadReply:
                self._links.close(device, now)
                continue
            if at < len(data):
                self._heard[device] = data[at:]
        return owners, b"".join(acks)

    def forget(self, device: int) -> None:
        """Its connection is gone, and the beginning of a reply with it."""
        self._heard.pop(device, None)
        self._asked[device] = False

    def chores(self, now: int) -> None:
        """Close connections that owe a PUBACK or a PINGRESP for too long; ping where it is time."""
        up = self._links.state == UP
        for device in self._flight.stuck(now, _PUBACK_US).tolist():
            if up[device]:
                self._links.close(device, now)
        for device in np.flatnonzero(up & (now - self._pinged >= self._ping_us)).tolist():
            if self._asked[device]:  # no answer since the last ping
                self._links.close(device, now)
            elif self._links.ready[device] and self._links.say(device, PINGREQ, now):
                self._asked[device] = True
            self._pinged[device] = now
