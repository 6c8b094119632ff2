"""A TCP relay in one epoll loop: between devices and broker, with delay, a rate limit, silence or an end on command.

Bytes pass in order and unchanged unless `rewrite` changes them. What a side does not take is buffered up to a bound, then the other
side is not read: pressure goes back as over a real link.
"""

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Link", "Pair", "Relay"]

_READ = 1 << 16
_BUFFER = 1 << 20  # bytes that wait in one direction before the sender is held
_SLOT_S = 0.005  # granularity of delay and rate limit


@dataclass
class Link:
    """What the link does to everything that passes, both ways. `silent`: bytes vanish and no connection is closed (half-open)."""

    delay_ms: float = 0.0
    rate_kbps: float = 0.0  # kilobytes a second over all connections and each way; 0: no limit
    silent: bool = False
    refuse: bool = False  # new connections are closed at once


class Pair:
    """One client's connection and ours to the server for it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.open = True
        self.connected = False
        self.ended = [False, False]  # this end has said it will send no more
        self.waiting: tuple[deque[tuple[float, bytes]], deque[tuple[float, bytes]]] = (
            deque(),
            deque(),
        )  # by direction: 0 up, 1 down
        self.waiting_bytes = [0, 0]


class Relay:
    """Listens on 127.0.0.1 and relays to `upstream`. `rewrite(pair, direction, data)`: what goes on instead; 0 is up."""

    def __init__(
        self, upstream: tuple[str, int], port: int = 0, rewrite: Callable[[Pair, int, bytes], bytes] | None = None
    ) -> None:
        self.upstream = upstream
        self.link = Link()
        self.rewrite = rewrite
        self.closed: Callable[[Pair], None] = lambda pair: None
        self.passed = [0, 0]
        self.accepted = self.cut_connections = 0
        self.swallowed = 0
        self._listener = socket.create_server(("127.0.0.1", port), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._by_fd: dict[int, tuple[Pair, int]] = {}  # direction in which its bytes flow
        self._delayed: set[Pair] = set()
        self._budget = [0.0, 0.0]
        self._budget_at = time.monotonic()

    def turn(self, wait_s: float = 0.05) -> None:
        """One round: accept, read, write, release what was delayed."""
        events = self._epoll.poll(_SLOT_S if self._delayed else wait_s)
        for number, mask in events:
            if number == self._listener.fileno():
                self._accept()
                continue
            found = self._by_fd.get(number)
            if found is None:
                continue
            pair, direction = found
            if mask & (select.EPOLLERR | select.EPOLLHUP) and not mask & select.EPOLLIN:
                self.cut(pair)
                continue
            if mask & select.EPOLLOUT:
                pair.connected = True
                self._write(pair, 1 - direction)
            if mask & select.EPOLLIN and pair.open:
                self._read(pair, direction)
        if self._delayed:
            self._release()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors: the client will try again
                return
            if self.link.refuse:
                client.close()
                continue
            self.accepted += 1
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = socket.socket()
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.connect_ex(self.upstream)
            pair = Pair(client, server)
            for direction, end in enumerate(pair.ends):
                self._by_fd[end.fileno()] = (pair, direction)
            self._epoll.register(client.fileno(), select.EPOLLIN)
            self._epoll.register(server.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _read(self, pair: Pair, direction: int) -> None:
        try:
            data = pair.ends[direction].recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(pair, direction)
            return
        if self.link.silent:
            self.swallowed += len(data)
            return
        if self.rewrite is not None:
            data = self.rewrite(pair, direction, data)
        self.put(pair, direction, data)

    def put(self, pair: Pair, direction: int, data: bytes) -> None:
        """Send bytes on after the link's delay."""
        if not data or not pair.open:
            return
        self.passed[direction] += len(data)
        pair.waiting[direction].append((time.monotonic() + self.link.delay_ms / 1000, data))
        pair.waiting_bytes[direction] += len(data)
        if self.link.delay_ms or self.link.rate_kbps:
            self._delayed.add(pair)
        self._write(pair, direction)

    def _allowed(self, direction: int, wanted: int) -> int:
        if not self.link.rate_kbps:
            return wanted
        now = time.monotonic()
        more = (now - self._budget_at) * self.link.rate_kbps * 1000
        self._budget_at = now
        for n in (0, 1):
            self._budget[n] = min(self._budget[n] + more, self.link.rate_kbps * 1000 * 0.05)
        return min(wanted, int(self._budget[direction]))

    def _write(self, pair: Pair, direction: int) -> None:
        """Write what may go by now; whether more can be read and written follows from what is left."""
        waiting, now = pair.waiting[direction], time.monotonic()
        blocked = direction == 0 and not pair.connected
        while waiting and not blocked and waiting[0][0] <= now:
            at, data = waiting[0]
            allowed = self._allowed(direction, len(data))
            if not allowed:
                break
            try:
                taken = pair.ends[1 - direction].send(data[:allowed])
            except BlockingIOError:
                blocked = True
                break
            except OSError:
                self.cut(pair)
                return
            self._budget[direction] -= taken
            pair.waiting_bytes[direction] -= taken
            if taken < len(data):
                waiting[0] = (at, data[taken:])
            else:
                waiting.popleft()
        if pair.ended[direction] and not waiting:
            self.cut(pair)
            return
        self._watch(pair, 1 - direction, blocked)
        self._watch(pair, direction, None)

    def _watch(self, pair: Pair, end: int, blocked: bool | None) -> None:
        mask = 0
        if pair.waiting_bytes[end] < _BUFFER and not pair.ended[end]:
            mask |= select.EPOLLIN
        if blocked or (end == 1 and not pair.connected):
            mask |= select.EPOLLOUT
        if blocked is None and end == 1 and pair.connected and pair.waiting[0] and not self.link.delay_ms:
            mask |= select.EPOLLOUT
        with contextlib.suppress(OSError):
            self._epoll.modify(pair.ends[end].fileno(), mask)

    def _release(self) -> None:
        for pair in list(self._delayed):
            for direction in (0, 1):
                if pair.open:
                    self._write(pair, direction)
            if not pair.open or not (pair.waiting[0] or pair.waiting[1]):
                self._delayed.discard(pair)

    def _end(self, pair: Pair, direction: int) -> None:
        """One side has closed: what it had sent goes out first."""
        pair.ended[direction] = True
        if pair.waiting[direction] and not self.link.silent:
            self._watch(pair, direction, None)
        else:
            self.cut(pair)

    def cut(self, pair: Pair) -> None:
        """Close both ends."""
        if not pair.open:
            return
        pair.open = False
        self._delayed.discard(pair)
        self.closed(pair)
        for end in pair.ends:
            self._by_fd.pop(end.fileno(), None)
            end.close()

    def cut_all(self) -> int:
        """Close every connection; how many there were."""
        pairs = {pair for pair, _ in self._by_fd.values()}
        for pair in pairs:
            self.cut(pair)
        self.cut_connections += len(pairs)
        return len(pairs)

    def close(self) -> None:
        """End everything."""
        self.cut_all()
        self._listener.close()
        self._epoll.close()
