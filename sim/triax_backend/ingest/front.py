"""The ingest front's loop: thousands of sockets, one round at a time.

A round reads every socket that has something, once. Almost always that is whole packets of ordinary frames: all of them are joined
into one table and handled by numpy (`gather`); what is anything else goes to its `Connection`, packet by packet. The round's
messages are one batch (`triax_backend.produce`); when Kafka has it, each client gets its PUBACKs in one write.

The busier it is, the longer a round (50 ms to 250 ms): reading a socket costs the same for one frame as for three.
"""

import logging
import select
import socket
import time

import numpy as np
from prometheus_client import Gauge

from triax_backend import frame_rows, mqtt_wire
from triax_backend.ingest.clients import LOST, Clients
from triax_backend.ingest.connection import UP, Connection, Refused
from triax_backend.ingest.downlink import Downlink
from triax_backend.ingest.gather import STEP, Acks, Gather
from triax_backend.ingest.hold import Hold, Limits
from triax_backend.ingest.identity import Identity, IdentityError
from triax_backend.metrics import Account
from triax_backend.produce import ONCE, Batch, KafkaOut, round_s

__all__ = ["Front"]

log = logging.getLogger("triax.ingest")

READ_BYTES = 65_536
_SWEEP_S = 1.0
_DRAIN_S = 20.0
_LEAST_S = round_s(0)


class Front:
    """One process of the ingest front. `run` returns after `stop`."""

    def __init__(
        self,
        listener: socket.socket,
        out: KafkaOut,
        downlink: Downlink,
        account: Account,
        identity: Identity | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.out, self.downlink, self.limits = out, downlink, limits or Limits()
        self.stopping = False
        self.clients = Clients(listener, identity or Identity(), self.limits.clients, account, self._will)
        strict = self.clients.identity.mode != "none"
        self._gathers = {frame_rows.row_size(qos): Gather(qos, strict=strict) for qos in (0, 1)}
        self._batch: Batch | None = None
        self.hold = Hold(self.clients, out, self.limits, account)
        self._swept_s = 0.0
        self._round_s = Gauge("triax_round_seconds", "Length of a round", registry=account.registry)

    # -- for Connection

    def connected(self, connection: Connection, client_id: str) -> None:
        """A CONNECT was accepted: the older connection of the same client ends [3.1.4-2]."""
        older = self.clients.name(connection, client_id)
        if older is not None:
            self.clients.close(older, "taken over by another connection with its client id")
        connection.plain = True

    def published(self, connection: Connection, publish: mqtt_wire.Publish) -> None:
        """Any message that is no ordinary frame."""
        # Where nobody has to show who he is, configuration can be set by MQTT too; else only in Kafka.
        downlink = None if connection.devices is not None else "" if publish.retain else ONCE
        self.out.message(self._current(), publish.topic, publish.payload, connection.connected_id, downlink=downlink)
        if publish.qos:
            self._owe(Acks([connection], [4], mqtt_wire.puback(publish.packet_id)))
            connection.unacked += 1

    def retained(self, key: str) -> bytes | None:
        """Downlink payload of "<device>/<kind>"."""
        return self.downlink.get(key)

    @property
    def busy(self) -> bool:
        """True while nothing is taken: a new client would only wait."""
        return self.hold.all or self.stopping

    # -- the loop

    def stop(self) -> None:
        """Ask `run` to finish; safe in a signal handler."""
        self.stopping = True

    def run(self) -> None:
        """Until `stop`; then what was taken is delivered and acknowledged, and every connection closed."""
        previous = time.monotonic()
        while not self.stopping:
            start = time.monotonic()
            pace_s = round_s(self.round(start) / max(start - previous, _LEAST_S))
            previous = start
            self._round_s.set(pace_s)
            self._rest(start + pace_s)
        self._drain()

    def _rest(self, until_s: float) -> None:
        """Until the next round only Kafka's reports are looked at: a client's window must not wait for a round."""
        while (left_s := until_s - time.monotonic()) > 0:
            if self.out.waits:
                self._complete(left_s)
            else:
                time.sleep(left_s)

    def round(self, now_s: float) -> int:
        """Read, forward, acknowledge once; the number of messages taken."""
        before = self.out.account.totals["in"]
        released = self.hold.look()
        odd = self._read(now_s)
        odd += [(connection, b"") for connection in released]
        for gather in self._gathers.values():
            if gather.chunks:
                acks, strange = gather.settle(self.out, self._current())
                odd += strange
                if acks is not None:
                    self._owe(acks)
        for connection, data in odd:
            self._odd(connection, data, now_s)
        self._tell()
        if now_s - self._swept_s >= _SWEEP_S:
            self._swept_s = now_s
            self.clients.sweep(now_s)
        if self._batch is not None:
            self.out.seal(self._batch)
            self._batch = None
        self._complete()
        return self.out.account.totals["in"] - before

    def _read(self, now_s: float) -> list[tuple[Connection, bytes]]:
        """One read from every socket that has something; what is not whole ordinary frames is returned."""
        odd: list[tuple[Connection, bytes]] = []
        find, gathers, steps, most = self.clients.by_fd.get, self._gathers, STEP, self.limits.client_messages
        for fd, event in self.clients.ready(now_s):
            connection = find(fd)
            if connection is None:
                continue
            if event & select.EPOLLOUT:
                self.clients.flush(connection)
            try:
                data = connection.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.clients.close(connection, LOST if isinstance(error, ConnectionError) else str(error), lost=True)
                continue
            if not data:
                self.clients.close(connection, LOST, lost=True)
                continue
            connection.heard_s = now_s
            step = steps[data[0]]
            if step and connection.plain and not len(data) % step:
                gather = gathers[step]
                gather.clients.append(connection)
                gather.chunks.append(data)
                connection.unacked += gather.qos * len(data) // step
                if connection.unacked > most:
                    self.hold.add(connection)
            else:
                odd.append((connection, data))
        return odd

    def _odd(self, connection: Connection, data: bytes, now_s: float) -> None:
        """Bytes of a client, whatever they are; the connection ends if they are wrong."""
        if connection.link is None:
            return
        try:
            if connection.held:
                self.hold.keep(connection, data)
            else:
                self._cut(connection, connection.rest + data, now_s)
            full = self.clients.count_rest(connection) and self.clients.partial_bytes > self.limits.partial_bytes
            if full and connection.held:
                self.clients.deafen(connection)
            elif full:
                raise Refused("unfinished packets of all clients take too much memory")
            if connection.unacked > self.limits.client_messages and not connection.held:
                self.hold.add(connection)
        except Refused as refused:
            self.clients.close(connection, str(refused), refused.reply, lost=bool(str(refused)))
        except mqtt_wire.OtherVersion as error:
            self.clients.close(connection, str(error), error.reply)
        except (mqtt_wire.WireError, IdentityError) as error:
            self.clients.close(connection, str(error), lost=True)
        else:
            self.clients.writes(connection)

    def _cut(self, connection: Connection, data: bytes, now_s: float) -> None:
        """Act on the whole packets in `data`, keep the rest. Raises Refused, WireError, IdentityError."""
        at = 0
        if connection.expects_proxy:
            size = connection.proxy_header(data)
            at = len(data) if size is None else size
            if size is None:
                connection.rest = data
                return
        array = np.frombuffer(data, np.uint8)
        while at < len(data):
            if connection.state == UP:
                packets, qos = frame_rows.cut_rows(array, at)
                if len(packets):
                    self._rows(connection, frame_rows.to_rows(packets, qos))
                    at += packets.size
                    continue
            packet = mqtt_wire.cut(data, at, connection.limit())
            if packet is None:
                break
            at += packet.size
            connection.packet(packet, self)
        if at or not connection.rest:
            connection.rest_since_s = now_s
        connection.rest = data[at:]
        connection.plain = connection.state == UP and not connection.rest

    def _rows(self, connection: Connection, rows: frame_rows.Rows) -> None:
        if connection.devices is not None:
            named = {bytes(text).decode(errors="replace") for text in rows.texts}
            if not named <= connection.devices:
                raise Refused(f"it may not publish for {', '.join(sorted(named - connection.devices))}")
        if rows.qos and not rows.packet_ids.all():
            raise mqtt_wire.BadPacket("PUBLISH with packet id 0 [2.3.1-1]")
        self.out.rows(self._current(), rows)
        if rows.qos:
            connection.unacked += len(rows.packet_ids)
            self._owe(Acks([connection], [4 * len(rows.packet_ids)], mqtt_wire.pubacks(rows.packet_ids)))

    def _current(self) -> Batch:
        if self._batch is None:
            self._batch = self.out.begin([])
        return self._batch

    def _owe(self, acks: Acks) -> None:
        self._current().token.append(acks)

    def _complete(self, wait_s: float = 0.0) -> None:
        """Acknowledge what is in Kafka."""
        for batch in self.out.poll(wait_s):
            for clients, ends, data in batch.token:
                self._acknowledge(clients, ends, data)

    def _acknowledge(self, clients: list[Connection], ends: list[int], data: bytes) -> None:
        start = 0
        for connection, end in zip(clients, ends, strict=True):
            if connection.link is not None:
                connection.unacked -= (end - start) >> 2
                try:
                    connection.reply(data[start:end])
                    if connection.out:
                        self.clients.writes(connection)
                except Refused as refused:
                    self.clients.close(connection, str(refused), lost=True)
            start = end

    def _will(self, connection: Connection, publish: mqtt_wire.Publish) -> None:
        """A client is gone without a word. If its device speaks through another front by now, its will is history."""
        device = publish.topic.split("/")[2]
        if not self.stopping and not self.downlink.moved(device, connection.connected_id):
            self.out.message(self._current(), publish.topic, publish.payload, connection.connected_id)

    def _tell(self) -> None:
        """Changed configuration and calibration to the clients that subscribed to it."""
        for key, payload in self.downlink.changes():
            topic = f"triax/v1/{key}"
            for connection in self.clients.subscribers(topic):
                try:
                    connection.reply(mqtt_wire.write_publish(topic, payload))
                except Refused as refused:
                    self.clients.close(connection, str(refused), lost=True)

    def _drain(self) -> None:
        """SIGTERM: no new clients, nothing more is read; what was taken is delivered and acknowledged."""
        if self._batch is not None:
            self.out.seal(self._batch)
        self.clients.stop_listening()
        until = time.monotonic() + _DRAIN_S
        while self.out.in_flight and time.monotonic() < until:
            self._complete(_LEAST_S)
        self._complete()
        if self.out.in_flight:
            log.warning("%d messages are not in Kafka and not acknowledged; their nodes send them again", self.out.in_flight)
        for connection in list(self.clients.by_fd.values()):
            self.clients.flush(connection)
            self.clients.close(connection, "")
