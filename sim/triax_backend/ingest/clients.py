"""The sockets of an ingest front: accepted, watched, written to, closed for silence."""

import contextlib
import errno
import logging
import select
import socket
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge

from triax_backend.ingest.connection import CLOSED, NEW, Connection
from triax_backend.ingest.identity import Identity, IdentityError, TlsLink
from triax_backend.metrics import Account
from triax_backend.mqtt_wire import Publish

__all__ = ["LOST", "Clients"]

log = logging.getLogger("triax.ingest")

LOST = "connection lost"  # by the client or the network: nothing of ours
_ACCEPTS = 500  # a round: a storm of 10,000 is in after twenty rounds
_CONNECT_S = 10.0  # from the connection to CONNECT
_PARTIAL_S = 30.0  # for the rest of a packet that has begun
_FULL_S = 1.0  # without accepting, when there are no descriptors left
_SAY_S = 10.0  # between two lines of the log about closed connections

Will = Callable[[Connection, Publish], None]


class Clients:
    """All connections of one process. `will` is called with the last will of a client that is lost."""

    def __init__(self, listener: socket.socket, identity: Identity, limit: int, account: Account, will: Will) -> None:
        self.identity, self._limit, self._will = identity, limit, will
        self._context = identity.context()
        self._listener = listener
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self.by_fd: dict[int, Connection] = {}
        self.names: dict[str, Connection] = {}
        self.partial_bytes = 0
        self._accept_from_s = 0.0
        self._reasons: Counts[str] = Counts()
        self._example = ""
        self._said_s = time.monotonic()
        self._connected = Gauge("triax_clients", "Connected clients", registry=account.registry)
        self._accepted = Counter("triax_clients_accepted", "Connections accepted", registry=account.registry)
        self._closed = Counter("triax_clients_closed", "Connections ended by us", registry=account.registry)

    def ready(self, now_s: float) -> Iterable[tuple[int, int]]:
        """(descriptor, events) of clients that can be read or written; new ones are accepted on the way."""
        events = self._epoll.poll(0, max(1, len(self.by_fd) + 1))
        listener = self._listener.fileno()
        for fd, event in events:
            if fd != listener:
                yield fd, event
            elif now_s >= self._accept_from_s:
                self._accept(now_s)

    def _accept(self, now_s: float) -> None:
        for _ in range(_ACCEPTS):
            try:
                link, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._accept_from_s = now_s + _FULL_S
                    log.warning("no descriptors left for further clients (ulimit -n); there are %d", len(self.by_fd))
                return  # else: the client was gone before it was accepted
            if len(self.by_fd) >= self._limit:
                link.close()
                self._count("more clients than allowed", str(address[0]))
                continue
            link.setblocking(False)
            self._add(link, f"{address[0]}:{address[1]}", now_s)

    def _add(self, link: socket.socket, source: str, now_s: float) -> None:
        if self._context is None:
            connection = Connection(link, source, now_s, _CONNECT_S, expects_proxy=self.identity.mode == "proxy")
        else:
            tls = TlsLink(self._context.wrap_socket(link, server_side=True, do_handshake_on_connect=False))
            connection = Connection(tls, source, now_s, _CONNECT_S)
            connection.recv = lambda size: self._handshake(connection, tls, size)
        if self.identity.mode != "none":
            connection.devices = frozenset()  # until it is known who it is
        self.by_fd[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)
        self._accepted.inc()
        self._connected.set(len(self.by_fd))

    @staticmethod
    def _handshake(connection: Connection, tls: TlsLink, size: int) -> bytes:
        """Stands for `recv` until the client's certificate is known."""
        try:
            found = tls.handshake()
        except IdentityError as error:
            raise OSError(str(error)) from None
        if found is None:
            raise BlockingIOError
        connection.identify(*found)
        connection.recv = tls.recv
        return tls.recv(size)

    def name(self, connection: Connection, client_id: str) -> Connection | None:
        """`connection` is `client_id` now; the connection that was it before."""
        older = self.names.get(client_id)
        self.names[client_id] = connection
        return older

    def subscribers(self, topic: str) -> list[Connection]:
        """Clients that subscribed to `topic`."""
        return [one for one in self.by_fd.values() if topic in one.subscribed]

    def writes(self, connection: Connection) -> None:
        """Watch for room in its socket if something waits for it."""
        if connection.out and not connection.writing and connection.link is not None:
            connection.writing = True
            self._watch(connection)

    def flush(self, connection: Connection) -> None:
        """Send what waits."""
        if connection.link is None:
            return
        if connection.out:
            with contextlib.suppress(OSError):
                del connection.out[: connection.link.send(connection.out)]
        if connection.writing and not connection.out:
            connection.writing = False
            self._watch(connection)

    def deafen(self, connection: Connection) -> None:
        """Do not read from it until `listen`."""
        connection.deaf = True
        self._watch(connection)

    def listen(self, connection: Connection) -> None:
        """Read from it."""
        connection.deaf = False
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        self._epoll.modify(
            connection.fd, (0 if connection.deaf else select.EPOLLIN) | (select.EPOLLOUT if connection.writing else 0)
        )

    def count_rest(self, connection: Connection) -> bool:
        """Keep the sum of unfinished bytes; True if they became more."""
        more = len(connection.rest) - connection.counted
        self.partial_bytes += more
        connection.counted += more
        return more > 0

    def sweep(self, now_s: float) -> None:
        """Close who has been silent for too long, or began a packet and did not end it."""
        for connection in list(self.by_fd.values()):
            if connection.idle_s and now_s - connection.heard_s > connection.idle_s and not connection.deaf:
                why = "no CONNECT in time" if connection.state == NEW else "silent for one and a half keepalives"
                self.close(connection, why, lost=True)
            elif connection.rest and not connection.held and now_s - connection.rest_since_s > _PARTIAL_S:
                self.close(connection, "a packet that was begun and not ended", lost=True)
        if self._reasons and now_s - self._said_s >= _SAY_S:
            self._say(now_s)

    def close(self, connection: Connection, why: str, reply: bytes = b"", *, lost: bool = False) -> None:
        """End a connection. `why` "": an ordinary end. `lost`: its last will is due."""
        if connection.link is None:
            return
        with contextlib.suppress(OSError):
            if reply:
                connection.link.send(reply)
            connection.link.close()
        del self.by_fd[connection.fd]
        connection.link, connection.state, connection.plain = None, CLOSED, False
        connection.rest = b""
        self.count_rest(connection)
        if self.names.get(connection.client_id) is connection:
            del self.names[connection.client_id]
        self._connected.set(len(self.by_fd))
        if why and why != LOST:
            self._closed.inc()
            self._count(why, repr(connection))
        if lost and connection.will is not None:
            will, connection.will = connection.will, None
            self._will(connection, will)

    def _count(self, why: str, who: str) -> None:
        """One line for many: 10,000 hostile clients must not write 10,000 lines."""
        if not self._reasons:
            self._example = f"{who}: {why}"
        self._reasons[why] += 1

    def _say(self, now_s: float) -> None:
        log.warning("%d connections ended by us; the first was %s", self._reasons.total(), self._example)
        self._reasons.clear()
        self._said_s = now_s

    def stop_listening(self) -> None:
        """No further clients."""
        self._epoll.unregister(self._listener)
        self._listener.close()
        if self._reasons:
            self._say(time.monotonic())
