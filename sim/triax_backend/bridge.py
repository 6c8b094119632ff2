"""Bridge: a broker's messages into Kafka, each acknowledged to the broker only when Kafka has it.

    python -m triax_backend.bridge --metrics-port 9101        # servers from TRIAX_MQTT, TRIAX_KAFKA

A persistent session under a stable client id. Every 50 ms what the socket holds is read, every 50 to 250 ms it goes into Kafka as
one batch, and batches that are complete are acknowledged at once, oldest first. An acknowledgement belongs to the connection on
which its message came: packet ids mean something else on the next one, where the broker sends all that was not acknowledged again.

Memory is bounded by a window of our own on unacknowledged messages: mosquitto 2.0.11 lets every acknowledgement release a whole
window of its own. A full window stops the reading, not the pings.
"""

import argparse
import logging
import random
import select
import signal
import ssl
import time
from typing import Any

import numpy as np
from prometheus_client import Counter, Gauge

from triax_backend import frame_rows, mqtt_wire
from triax_backend.metrics import Account, serve
from triax_backend.mqtt_link import Address, open_link
from triax_backend.preflight import probe
from triax_backend.produce import Batch, KafkaOut, round_s
from triax_backend.settings import Settings
from triax_backend.subscription import Ended, Oversized, Subscription
from triax_backend.topics import TopicsUnavailable

__all__ = ["Bridge", "main"]

log = logging.getLogger("triax.bridge")

ROUND_S = 0.05
WINDOW = 40_000  # messages in Kafka's hands and not acknowledged: 12 MB; 0.4 s of its latency at 100,000/s
KEEPALIVE_S = 30
_BUFFER_BYTES = 4 << 20  # of the socket: 13,000 frames
_READ_BYTES = 65_536  # at least, so that a message larger than the window's last frames gets in
_BACKOFF_S = (0.2, 10.0)
# Kafka gets this long to report what is in flight at SIGTERM; the supervisor kills after 30 s.
_DRAIN_S = 20.0
_LOOK_S = 0.01
_SLACK_S = 0.01  # a round that is nearly due is due


def backoff_s(attempt: int) -> float:
    """Seconds before a further try, with full jitter."""
    first, most = _BACKOFF_S
    return random.uniform(first, min(most, first * 2 ** min(attempt, 10)))


class Bridge:
    """One subscriber. `run` returns after `stop`, everything delivered or left unacknowledged."""

    def __init__(
        self, settings: Settings, account: Account, client_id: str, window: int = WINDOW, round_s: float = ROUND_S
    ) -> None:
        self.settings, self.account = settings, account
        self.address = Address.of(settings.mqtt)
        self.client_id, self.window, self.round_s = client_id, window, round_s
        self.stopping = False
        self._epoch = 0  # of the connection
        self._unacked = 0  # messages of this connection in open batches
        self._send = bytearray()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._bytes = np.frombuffer(self._buffer, np.uint8)
        self._filled = 0
        self._forwarded_s = self._due_s = 0.0
        self._dropped_before = 0.0
        self._up_s = 0.0  # how long the last connection held
        self._out: KafkaOut
        self._connections = Counter("triax_connections", "Connections made", ["stage"], registry=account.registry).labels("bridge")
        self._dropped = Gauge("triax_broker_dropped", "Messages that the broker says it dropped", registry=account.registry)
        self._subscribed = Gauge("triax_subscribed", "1 while the broker has our subscription", registry=account.registry)
        self._paused = Counter("triax_window_full", "Rounds that did not read", ["stage"], registry=account.registry).labels(
            "bridge"
        )

    def stop(self) -> None:
        """Ask `run` to finish; safe in a signal handler."""
        self.stopping = True

    def run(self) -> None:
        """Until `stop`: connect, forward, connect again."""
        if not self._open_kafka():
            return
        attempt = 0
        while not self.stopping:
            try:
                self._connection()
                attempt = 0
            except (OSError, Ended, mqtt_wire.WireError) as error:
                attempt = 0 if self._up_s > KEEPALIVE_S else attempt + 1
                wait_s = backoff_s(attempt)
                self.account.failed(str(error))
                log.warning("%s: %s; again in %.1f s", self.address, error, wait_s)
                self._idle(wait_s)

    def _open_kafka(self) -> bool:
        attempt = 0
        while not self.stopping:
            try:
                self._out = KafkaOut(self.settings, self.account, stage="bridge")
                return True
            except TopicsUnavailable as error:
                wait_s = backoff_s(attempt)
                attempt += 1
                self.account.failed(str(error))
                log.warning("%s; again in %.1f s", error, wait_s)
                time.sleep(wait_s)
        return False

    def _idle(self, wait_s: float) -> None:
        """Without a connection: let Kafka finish what it has."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not self.stopping:
            self._complete(self.round_s)

    def _connection(self) -> None:
        """One connection, from CONNECT to its end. Raises OSError, Ended, WireError."""
        self._up_s = 0.0
        link = open_link(self.address)
        start = time.monotonic()
        self._epoch += 1
        self._unacked = self._filled = 0
        self._connections.inc()
        session = Subscription(self.client_id, self.address.user, self.address.password, KEEPALIVE_S, start)
        self._send = bytearray(session.hello())
        try:
            while not self.stopping:
                begin = time.monotonic()
                self._up_s = begin - start
                if not self._round(link, session):
                    self._wait(link, session, begin + self.round_s)
            self._drain(link, session)
        finally:
            self._subscribed.set(0)
            link.close()

    def _wait(self, link: Any, session: Subscription, until_s: float) -> None:
        """The rest of a round: what Kafka has is acknowledged at once, what the broker sends is taken with the next round."""
        while (left_s := until_s - time.monotonic()) > 0 and not self.stopping:
            if self._out.waits:
                self._complete(left_s)
                self._flush(link, session)
            elif self._send:
                select.select([], [link], [], left_s)
                self._flush(link, session)
            else:
                time.sleep(left_s)

    def _round(self, link: Any, session: Subscription) -> bool:
        """Read, forward, acknowledge. True if there was more to read than the buffer holds."""
        full = max(self._unacked, self._out.in_flight) >= self.window
        more = False
        if full:
            self._paused.inc()
        else:
            more = self._read(link, session)
            now_s = time.monotonic()
            if more or now_s >= self._due_s:
                count = self._forward(session)
                self._due_s = now_s + max(self.round_s, round_s(count / max(now_s - self._forwarded_s, self.round_s))) - _SLACK_S
                self._forwarded_s = now_s
        self._complete()
        self._send += session.due(time.monotonic(), paused=full)
        self._subscribed.set(session.subscribed)
        self._flush(link, session)
        return more

    def _read(self, link: Any, session: Subscription) -> bool:
        view = memoryview(self._buffer)
        room = (self.window - self._unacked) * frame_rows.row_size(1)
        end = min(_BUFFER_BYTES, self._filled + max(_READ_BYTES, room))
        while self._filled < end:
            try:
                count = link.recv_into(view[self._filled : end])
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
            if not count:
                raise Ended("the broker closed the connection")
            self._filled += count
            session.heard(time.monotonic())
        return True

    def _forward(self, session: Subscription) -> int:
        """Everything whole in the buffer becomes one batch of this connection; the number of its messages."""
        if not self._filled:
            return 0
        acknowledge: list[Any] = []
        batch = self._out.begin((self._epoch, acknowledge))
        try:
            items, used = session.feed(self._bytes[: self._filled])
            for item in items:
                if isinstance(item, frame_rows.Rows):
                    self._out.rows(batch, item)
                    if item.qos:
                        acknowledge.append(item.packet_ids)
                else:
                    self._message(batch, item)
                    if item.qos:
                        acknowledge.append(np.array([item.packet_id], np.uint16))
        finally:
            self._unacked += sum(map(len, acknowledge))
            self._out.seal(batch)
        self._buffer[: self._filled - used] = self._buffer[used : self._filled]
        self._filled -= used
        return batch.messages

    def _message(self, batch: Batch, item: mqtt_wire.Publish | Oversized) -> None:
        if isinstance(item, Oversized):
            self._out.dead(batch, item.topic, item.payload, "too large")
        elif item.topic.startswith("$SYS/"):
            self._broker_says(item)
        else:
            # Of what goes down, only calibrations come here: they are data as well. Configuration stays with the broker.
            self._out.message(batch, item.topic, item.payload, downlink="")

    def _broker_says(self, item: mqtt_wire.Publish) -> None:
        try:
            dropped = float(item.payload)
        except ValueError:
            return
        if dropped > self._dropped_before:
            log.error(
                "the broker says it dropped %.0f messages so far: raise max_queued_messages or look for slow subscribers", dropped
            )
        self._dropped_before = dropped
        self._dropped.set(dropped)

    def _complete(self, wait_s: float = 0.0) -> None:
        """Acknowledge the batches that are in Kafka, if they came on this connection."""
        for batch in self._out.poll(wait_s):
            epoch, acknowledge = batch.token
            if epoch == self._epoch:
                for packet_ids in acknowledge:
                    self._send += mqtt_wire.pubacks(packet_ids)
                    self._unacked -= len(packet_ids)

    def _flush(self, link: Any, session: Subscription) -> None:
        if not self._send:
            return
        try:
            sent = link.send(self._send)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        del self._send[:sent]
        session.sent(time.monotonic())

    def _drain(self, link: Any, session: Subscription) -> None:
        """SIGTERM: what was taken is delivered and acknowledged, the session stays with the broker."""
        self._forward(session)
        until = time.monotonic() + _DRAIN_S
        while self._unacked and time.monotonic() < until:
            self._complete(self.round_s)
        if self._unacked:
            log.warning("%d messages are not in Kafka yet; the broker keeps them and sends them again", self._unacked)
        self._complete()
        self._send += mqtt_wire.disconnect
        while self._send and time.monotonic() < until:
            self._flush(link, session)
            time.sleep(_LOOK_S)


def main() -> None:
    """`python -m triax_backend.bridge`"""
    parser = argparse.ArgumentParser(description="Forward a broker's triax topics to Kafka (TRIAX_MQTT, TRIAX_KAFKA).")
    parser.add_argument("--client-id", default="triax-bridge", help="name of the broker's session; one bridge each, never changed")
    parser.add_argument("--window", type=int, default=WINDOW, help="messages taken and not yet acknowledged")
    parser.add_argument("--round-ms", type=float, default=ROUND_S * 1e3, help="what collects in this time goes to Kafka together")
    parser.add_argument("--metrics-port", type=int, help="serve Prometheus metrics and /health here")
    parser.add_argument("--no-preflight", action="store_true", help="do not measure the broker's limits at start")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings.from_env()
    account = Account("bridge")
    bridge = Bridge(settings, account, options.client_id, options.window, options.round_ms / 1e3)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bridge.stop())
    server = serve(options.metrics_port, account) if options.metrics_port is not None else None
    if not options.no_preflight:
        probe(bridge.address, options.window)
    log.info("%s to %s as %s", bridge.address, settings.kafka.rpartition("@")[2], options.client_id)
    bridge.run()
    log.info("stopped; %s", account.totals)
    if server is not None:
        server.close()


if __name__ == "__main__":
    main()
