"""When Kafka is slow: nothing more is taken, from all clients or from one, and still their pings are answered.

A held client's bytes are read as far as a node's own window goes, so that a ping behind its frames is seen; what is more stays in
its socket. Held bytes are acted upon when there is room again, in order.
"""

import logging
from dataclasses import dataclass

from prometheus_client import Counter

from triax_backend import mqtt_wire
from triax_backend.ingest.clients import Clients
from triax_backend.ingest.connection import UP, Connection
from triax_backend.metrics import Account
from triax_backend.produce import KafkaOut

__all__ = ["Hold", "Limits"]

log = logging.getLogger("triax.ingest")

_HELD_BYTES = 32_768  # 100 frames, more than a node has in flight


@dataclass(frozen=True)
class Limits:
    """`messages`: taken and not settled, of all clients (some 300 bytes each), `client_messages`: of one. `partial_bytes`: of
    unfinished or held packets, of all clients."""

    clients: int = 20_000
    messages: int = 300_000
    client_messages: int = 5_000
    partial_bytes: int = 256 << 20


class Hold:
    """Which clients are held. `all`: everybody is."""

    def __init__(self, clients: Clients, out: KafkaOut, limits: Limits, account: Account) -> None:
        self._clients, self._out, self._limits = clients, out, limits
        self.all = False
        self._held: set[Connection] = set()
        self._paused = Counter("triax_window_full", "Rounds that took nothing", registry=account.registry)

    def look(self) -> list[Connection]:
        """Hold everybody if too much is in flight; else the clients that are held no longer."""
        in_flight = self._out.in_flight
        if self.all and in_flight < self._limits.messages // 2:
            self.all = False
            log.info("taking messages again")
        elif not self.all and in_flight >= self._limits.messages:
            self.all = True
            log.warning("%d messages are not in Kafka yet: nothing more is taken until they are", in_flight)
        if self.all:
            self._paused.inc()
            for connection in self._clients.by_fd.values():
                if not connection.held and connection.state == UP:
                    self.add(connection)
            return []
        return self._release(self._limits.messages - in_flight)

    def _release(self, room: int) -> list[Connection]:
        """Held clients, as many as their held frames have room for."""
        out = []
        for connection in list(self._held):
            if connection.link is None:
                self._held.discard(connection)
            elif connection.unacked <= self._limits.client_messages // 2 and room > 0:
                room -= len(connection.rest) // 300
                self._held.discard(connection)
                connection.held = False
                self._clients.listen(connection)
                out.append(connection)
        return out

    def add(self, connection: Connection) -> None:
        """Take nothing from it until it is released."""
        connection.held, connection.plain = True, False
        self._held.add(connection)

    def keep(self, connection: Connection, data: bytes) -> None:
        """Bytes of a held client: answer the pings among them. Raises Refused, WireError."""
        connection.rest += data
        at = pings = 0
        while (packet := mqtt_wire.cut(connection.rest, at, connection.limit())) is not None:
            at += packet.size
            pings += packet.kind == mqtt_wire.PINGREQ
        if pings > connection.early_pings:
            connection.reply(mqtt_wire.pingresp * (pings - connection.early_pings))
            connection.early_pings = pings
        if len(connection.rest) >= _HELD_BYTES:
            self._clients.deafen(connection)
