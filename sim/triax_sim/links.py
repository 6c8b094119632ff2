"""Thousands of MQTT connections of one process: nonblocking sockets under one epoll, each with its own state.

    OFF -> WAIT -> CONNECTING -> (HANDSHAKE) -> GREETING -> UP; an error or a close: WAIT again, until `retry_at`

Bytes that a socket did not take stay in `tails` and go first; their device is not `ready` until then.
"""

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

from triax_sim.each import NOTHING, READ, each, tls_read, tls_write
from triax_sim.packet import CONNACK, BadReply, cut
from triax_sim.plan import Target

__all__ = ["CONNECTING", "GREETING", "HANDSHAKE", "OFF", "UP", "WAIT", "Links"]

OFF, WAIT, CONNECTING, HANDSHAKE, GREETING, UP = range(6)

_GREETING_US = 20_000_000  # a server that takes longer to answer CONNECT is as good as dead
_BACKOFF_FIRST_US, _BACKOFF_MOST_US = 500_000, 30_000_000
_AT_ONCE_US = 50_000  # without backoff; an embedded stack needs about that long to open a socket


class Links:
    """`count` connections to one server. `connect(d)`: CONNECT packet of device d, `birth(d)`: what follows its CONNACK."""

    def __init__(
        self,
        target: Target,
        count: int,
        connect: Callable[[int], bytes],
        birth: Callable[[int], bytes],
        backoff: np.ndarray[Any, Any],
        seed: int,
        context: Callable[[int], ssl.SSLContext] | None = None,
    ) -> None:
        self.target = target
        self.count = count
        self.state = np.zeros(count, np.uint8)
        self.ready = np.zeros(count, bool)
        self.fd = np.full(count, -1, np.int32)
        self.retry_at = np.zeros(count, np.int64)
        self.tails: dict[int, tuple[bytes, int]] = {}  # device: rest of a packet, what to tell `written` (-1: nothing)
        self.opened = self.refused = self.lost = 0
        self.connect_us: list[int] = []
        self._connect, self._birth, self._context = connect, birth, context
        self._backoff = backoff
        self._random = np.random.default_rng(seed)
        self._tries = np.zeros(count, np.int32)
        self._since = np.zeros(count, np.int64)
        self._sockets: list[socket.socket | None] = [None] * count
        self._owner = np.full(1 << 16, -1, np.int32)
        self._epoll = select.epoll()
        self._heard: dict[int, bytes] = {}
        self.written: Callable[[int, int], None] = lambda device, token: None
        self.arrived: Callable[[int], None] = lambda device: None
        self.dropped: Callable[[int], None] = lambda device: None

    # -- opening and closing

    def due(self, now: int, most: int) -> int:
        """Open up to `most` connections whose time has come; returns how many."""
        waiting = np.flatnonzero(self.state == WAIT)
        waiting = waiting[self.retry_at[waiting] <= now]
        if len(waiting) > most:
            waiting = waiting[np.argsort(self.retry_at[waiting], kind="stable")[:most]]
        for device in waiting.tolist():
            self._open(device, now)
        return len(waiting)

    def _open(self, device: int, now: int) -> None:
        target = self.target
        family = socket.AF_UNIX if target.unix else socket.AF_INET6 if ":" in target.host else socket.AF_INET
        link = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if not target.unix:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._since[device] = now
        code = link.connect_ex(target.unix or (target.host, target.port))
        if code not in (0, errno.EINPROGRESS):
            link.close()
            self.refused += 1
            self._again(device, now)
            return
        self._sockets[device] = link
        number = link.fileno()
        self.fd[device] = number
        if number >= len(self._owner):
            self._owner = np.concatenate([self._owner, np.full(len(self._owner), -1, np.int32)])
        self._owner[number] = device
        self.state[device] = CONNECTING
        self._epoll.register(number, select.EPOLLIN | select.EPOLLOUT)

    def _again(self, device: int, now: int) -> None:
        tries = min(int(self._tries[device]), 12)
        self._tries[device] += 1
        self.state[device] = WAIT
        if self._backoff[device]:
            delay = int(self._random.integers(0, min(_BACKOFF_MOST_US, _BACKOFF_FIRST_US << tries) + 1))
        else:
            delay = _AT_ONCE_US
        self.retry_at[device] = now + delay

    def close(self, device: int, now: int, again: bool = True) -> None:
        """Close a connection; `again`: and try anew, else it stays OFF."""
        link = self._sockets[device]
        if link is not None:
            self._owner[self.fd[device]] = -1
            self._sockets[device] = None
            self.fd[device] = -1
            link.close()  # takes it out of the epoll as well
            self.tails.pop(device, None)
            self._heard.pop(device, None)
            was_up = self.state[device] == UP
            self.ready[device] = False
            if was_up:
                self._tries[device] = 0
                self.lost += 1 if again else 0
                self.dropped(device)
            elif again:
                self.refused += 1
        if again:
            self._again(device, now)
        else:
            self.state[device] = OFF

    def stale(self, now: int) -> None:
        """Give up connections that have been opening for too long."""
        opening = np.flatnonzero((self.state >= CONNECTING) & (self.state < UP))
        for device in opening[now - self._since[opening] > _GREETING_US].tolist():
            self.close(device, now)

    # -- writing

    def send(self, devices: list[int], packets: list[bytes]) -> list[int]:
        """Write one packet to each device; bytes taken: 0 if its socket is full, -1 if it is broken."""
        if self._context is None:
            return each(map(os.write, self.fd[devices].tolist(), packets), 0, -1)
        return each(map(tls_write, [self._sockets[d] for d in devices], packets), 0, -1)

    def hold(self, device: int, rest: bytes, token: int) -> None:
        """Keep what a socket did not take; `written(device, token)` is called when it has gone out."""
        self.tails[device] = (rest, token)
        self.ready[device] = False
        self._epoll.modify(int(self.fd[device]), select.EPOLLIN | select.EPOLLOUT)

    def say(self, device: int, packet: bytes, now: int) -> bool:
        """Write a packet of no account (ping, birth); False if the connection was lost over it."""
        if device in self.tails:
            rest, token = self.tails[device]
            self.tails[device] = (rest + packet, token)
            return True
        taken = self.send([device], [packet])[0]
        if taken < 0:
            self.close(device, now)
            return False
        if taken < len(packet):
            self.hold(device, packet[taken:], -1)
        return True

    # -- reading

    def poll(self, now: int, wait_s: float = 0.0) -> tuple[list[int], list[bytes]]:
        """Move every connection that can move; returns the devices that are UP and have said something, and what."""
        events = self._epoll.poll(wait_s, 1 << 14)
        if not events:
            return [], []
        numbers, masks = zip(*events, strict=True)
        owners = self._owner[list(numbers)]
        if self._context is None and set(masks) == {select.EPOLLIN} and (self.state[owners] == UP).all():
            return self._read(owners.tolist(), list(numbers), now)
        devices: list[int] = []
        for device, mask in zip(owners.tolist(), masks, strict=True):
            if device >= 0 and self._sockets[device] is not None and self._move(device, mask, now):
                devices.append(device)
        return self._read(devices, self.fd[devices].tolist() if devices else [], now)

    def _read(self, devices: list[int], numbers: list[int], now: int) -> tuple[list[int], list[bytes]]:
        if self._context is None:
            said = each(map(os.read, numbers, repeat(READ)), NOTHING, b"")
        else:
            said = each(map(tls_read, [self._sockets[d] for d in devices]), NOTHING, b"")
        if b"" in said or NOTHING in said:
            for device, data in zip(devices, said, strict=True):
                if not data:
                    self.close(device, now)
            pairs = [(d, s) for d, s in zip(devices, said, strict=True) if s not in (b"", NOTHING)]
            devices, said = [d for d, _ in pairs], [s for _, s in pairs]
        return devices, said

    def _move(self, device: int, mask: int, now: int) -> bool:
        """One step of a connection; True if it is UP and can be read."""
        state = int(self.state[device])
        if mask & (select.EPOLLERR | select.EPOLLHUP) and state != UP:
            self.close(device, now)
            return False
        if state == UP:
            if mask & select.EPOLLOUT:
                self._flush(device, now)
            return bool(mask & ~select.EPOLLOUT) and self._sockets[device] is not None
        if state == CONNECTING and self._context is not None:
            if not self._secure(device, now):
                return False
            state = HANDSHAKE
            self.state[device] = HANDSHAKE
        if state == HANDSHAKE and not self._shake(device, now):
            return False
        if state in (CONNECTING, HANDSHAKE):
            self.state[device] = GREETING
            self._epoll.modify(int(self.fd[device]), select.EPOLLIN)
            self.say(device, self._connect(device), now)
            return False
        if mask & select.EPOLLOUT:
            self._flush(device, now)
        if mask & select.EPOLLIN and self._sockets[device] is not None:
            self._greet(device, now)
        return False

    def _secure(self, device: int, now: int) -> bool:
        """TLS on a connection that stands: `ssl` does not take one that is only being made."""
        link = self._sockets[device]
        try:
            self._sockets[device] = self._context(device).wrap_socket(  # type: ignore[misc]
                link,  # type: ignore[arg-type]
                do_handshake_on_connect=False,
                server_hostname=self.target.host,
            )
        except OSError:
            self.close(device, now)
            return False
        return True

    def _shake(self, device: int, now: int) -> bool:
        link = self._sockets[device]
        try:
            link.do_handshake()  # type: ignore[union-attr]
        except ssl.SSLWantReadError:
            self._epoll.modify(int(self.fd[device]), select.EPOLLIN)
            return False
        except ssl.SSLWantWriteError:
            self._epoll.modify(int(self.fd[device]), select.EPOLLIN | select.EPOLLOUT)
            return False
        except OSError:
            self.close(device, now)
            return False
        return True

    def _greet(self, device: int, now: int) -> None:
        devices, said = self._read([device], [int(self.fd[device])], now)
        if not devices:
            return
        data = self._heard.pop(device, b"") + said[0]
        try:
            first = next(iter(cut(data)), None)
        except BadReply:
            first = (0, b"", 0)
        if first is None:
            self._heard[device] = data
            return
        kind, body, _ = first
        if kind != CONNACK or len(body) != 2 or body[1]:
            self.close(device, now)
            return
        self.state[device] = UP
        self.ready[device] = True
        self.opened += 1
        self.connect_us.append(now - int(self._since[device]))
        self.arrived(device)
        birth = self._birth(device)
        if birth:
            self.say(device, birth, now)

    def _flush(self, device: int, now: int) -> None:
        rest, token = self.tails.pop(device, (b"", -1))
        if rest:
            taken = self.send([device], [rest])[0]
            if taken < 0:
                self.close(device, now)
                return
            if taken < len(rest):
                self.tails[device] = (rest[taken:], token)
                return
        self._epoll.modify(int(self.fd[device]), select.EPOLLIN)
        if self.state[device] == UP:
            self.ready[device] = True
        if token >= 0:
            self.written(device, token)

    def end(self, goodbye: bytes, now: int) -> None:
        """Say goodbye on every connection and close it."""
        for device in np.flatnonzero(self.state == UP).tolist():
            if self.ready[device]:
                self.send([device], [goodbye])
        for device in range(self.count):
            self.close(device, now, again=False)
        self._epoll.close()
