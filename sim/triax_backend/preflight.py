"""What a broker does with a bridge that is slow or away, measured before it matters.

A session of its own on a topic of its own: the bridge's real session and topics are not touched.
"""

import contextlib
import logging
import secrets
import socket
import threading
from dataclasses import dataclass

from triax_backend import mqtt_wire
from triax_backend.mqtt_link import Address, open_link

__all__ = ["Limits", "measure", "probe"]

log = logging.getLogger("triax.bridge")

# More than the defaults of brokers (mosquitto: 20 in flight, 1,000 queued), little enough for half a second.
PROBES = 1_200
_QUIET_S = 0.3  # without a further message: that was all
_ANSWER_S = 5.0
_LATENCY_S = 0.05  # of Kafka and our round, to turn a window into a rate


@dataclass(frozen=True)
class Limits:
    """`ahead`: messages sent without an acknowledgement; `queued`: kept for an absent subscriber. PROBES means "at least"."""

    ahead: int
    queued: int


class _Client:
    """A blocking MQTT client of a few lines, for the probe only."""

    def __init__(self, address: Address, client_id: str, *, clean: bool) -> None:
        self._link: socket.socket = open_link(address)
        self._data = bytearray()
        self._link.settimeout(_ANSWER_S)
        self.say(mqtt_wire.write_connect(client_id, clean=clean, keepalive_s=30, user=address.user, password=address.password))
        answer = self.hear()
        if answer is None or answer.kind != mqtt_wire.CONNACK or answer.body[1]:
            raise OSError("the broker refuses the probe's connection")

    def say(self, data: bytes) -> None:
        self._link.sendall(data)

    def hear(self, wait_s: float = _ANSWER_S) -> mqtt_wire.Packet | None:
        """The next packet, None if none comes in time."""
        self._link.settimeout(wait_s)
        while True:
            packet = mqtt_wire.cut(self._data, 0, 1 << 20)
            if packet is not None:
                del self._data[: packet.size]
                return packet
            try:
                data = self._link.recv(1 << 16)
            except TimeoutError:
                return None
            if not data:
                raise OSError("the broker closed the probe's connection")
            self._data += data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._link.sendall(mqtt_wire.disconnect)
        self._link.close()


def _publish(address: Address, topic: str) -> None:
    client = _Client(address, f"triax-probe-{secrets.token_hex(6)}", clean=True)
    try:
        client.say(b"".join(mqtt_wire.write_publish(topic, b"", qos=1, packet_id=i) for i in range(1, PROBES + 1)))
        for _ in range(PROBES):
            if client.hear() is None:
                raise OSError("the broker does not acknowledge the probe's messages")
    finally:
        client.close()


def _receive(client: _Client) -> Limits:
    """Take messages without acknowledging until no more come, then acknowledge and take the rest."""
    ahead = total = 0
    waiting: list[int] = []
    while (packet := client.hear(_QUIET_S)) is not None or waiting:
        if packet is None:
            ahead = ahead or total
            client.say(b"".join(map(mqtt_wire.puback, waiting)))
            waiting.clear()
        elif packet.kind == mqtt_wire.PUBLISH:
            total += 1
            waiting.append(mqtt_wire.parse_publish(packet).packet_id)
    return Limits(ahead, total)


def measure(address: Address) -> Limits:
    """Raises OSError, WireError: the broker cannot be reached or does not let us."""
    name = f"triax-preflight-{secrets.token_hex(6)}"
    topic = f"triax/preflight/{name}"
    client = _Client(address, name, clean=False)
    try:
        client.say(mqtt_wire.write_subscribe(1, [(topic, 1)]))
        answer = client.hear()
        if answer is None or answer.kind != mqtt_wire.SUBACK or answer.body[2:] != b"\x01":
            raise OSError(f"the broker does not let us subscribe to {topic} at QoS 1")
        client.close()
        _publish(address, topic)
        client = _Client(address, name, clean=False)
        return _receive(client)
    finally:
        client.close()
        _Client(address, name, clean=True).close()  # ends the session


def report(limits: Limits, window: int) -> list[str]:
    """Warnings, in words of mosquitto's settings; none if the broker is set up for a bridge."""
    out = []
    if limits.ahead < min(PROBES, window):
        rate = limits.ahead / _LATENCY_S
        out.append(
            f"the broker sends only {limits.ahead} messages ahead: about {rate:.0f} frames/s at most. "
            f"Raise max_inflight_messages to {window}"
        )
    if limits.queued < PROBES:
        out.append(
            f"the broker keeps only {limits.queued} messages for a bridge that is away and drops the others without a word, "
            "though it acknowledged them. Raise max_queued_messages to (longest absence in s) x (frames/s)"
        )
    return out


def probe(address: Address, window: int) -> threading.Thread:
    """Measure beside normal work and log what was found."""

    def run() -> None:
        try:
            for line in report(measure(address), window):
                log.warning("%s", line)
        except (OSError, mqtt_wire.WireError) as error:
            log.info("the broker's limits could not be measured: %s", error)

    thread = threading.Thread(target=run, name="preflight", daemon=True)
    thread.start()
    return thread
