"""The bridge's side of an MQTT connection: bytes in, messages out; no socket, time as an argument.

CONNECT -> CONNACK -> SUBSCRIBE -> SUBACK, and from CONNACK on whatever a stored session holds.
"""

from typing import NamedTuple

from triax_backend import mqtt_wire
from triax_backend.frame_rows import Array, Rows, cut_rows, to_rows

__all__ = ["TOPICS", "Ended", "Oversized", "Subscription"]

TOPICS = [f"triax/v1/+/{kind}" for kind in ("frame", "raw", "info", "status", "config/ack", "event", "calibration")]
DROPPED = "$SYS/broker/publish/messages/dropped"

PACKET_BYTES = 2 << 20  # larger ones are skipped; twice what Kafka takes, half of the bridge's buffer
_HEAD_BYTES = 64_000  # of a skipped one, for its dead letter
_SUBSCRIBE_ID = 1
_CONNACK_S = 10.0
_REASONS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not like the client id",
    3: "it is unavailable",
    4: "wrong user name or password",
    5: "not authorised",
}


class Ended(Exception):
    """The broker ended the connection or does not want it."""


class Oversized(NamedTuple):
    """The beginning of a message that is larger than we take; the rest is skipped."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int


class Subscription:
    """State of one connection; a new one for each."""

    def __init__(self, client_id: str, user: str | None, password: str | None, keepalive_s: int, now_s: float) -> None:
        self._hello = mqtt_wire.write_connect(client_id, clean=False, keepalive_s=keepalive_s, user=user, password=password)
        self._keepalive_s = keepalive_s
        self._connected = False
        self.subscribed = False
        self._skip = 0
        self._replies = bytearray()
        self._heard_s = self._said_s = now_s
        self._asked_s: float | None = None  # when the PINGREQ that has no answer yet was sent

    def hello(self) -> bytes:
        """What to send first."""
        return self._hello

    def feed(self, data: Array) -> tuple[list[Rows | mqtt_wire.Publish | Oversized], int]:
        """Messages of whole packets in `data`, and how many bytes those took. Raises Ended, WireError."""
        items: list[Rows | mqtt_wire.Publish | Oversized] = []
        at = min(self._skip, len(data))
        self._skip -= at
        view = memoryview(data.data)
        while at < len(data):
            rows, qos = cut_rows(data, at)
            if len(rows) and self._connected:
                items.append(to_rows(rows, qos))
                at += rows.size
                continue
            try:
                packet = mqtt_wire.cut(view, at, PACKET_BYTES)
            except mqtt_wire.Oversize:
                head = self._oversized(view, at)
                if head is None:
                    break
                items.append(head)
                skipped = min(self._skip, len(data) - at)
                at += skipped
                self._skip -= skipped
                continue
            if packet is None:
                break
            at += packet.size
            item = self._packet(packet)
            if item is not None:
                items.append(item)
        return items, at

    def _oversized(self, view: memoryview, at: int) -> Oversized | None:
        """Head of a PUBLISH too large to keep, and `_skip` = its size; None until enough of it is there."""
        have = bytes(view[at : at + _HEAD_BYTES])
        length = shift = 0
        start = 1
        while True:
            length |= (have[start] & 0x7F) << shift
            start += 1
            if have[start - 1] < 0x80:
                break
            shift += 7
        if have[0] >> 4 != mqtt_wire.PUBLISH:
            raise mqtt_wire.Oversize(f"packet type {have[0] >> 4} of {length} bytes")
        if len(have) < _HEAD_BYTES:
            return None
        head = mqtt_wire.parse_publish(mqtt_wire.Packet(mqtt_wire.PUBLISH, have[0] & 15, have[start:], 0))
        self._skip = start + length
        return Oversized(head.topic, head.payload, head.qos, head.packet_id)

    def _packet(self, packet: mqtt_wire.Packet) -> mqtt_wire.Publish | None:
        if not self._connected:
            if packet.kind != mqtt_wire.CONNACK or len(packet.body) != 2:
                raise mqtt_wire.BadPacket(f"packet type {packet.kind} before CONNACK [3.2.0-1]")
            if packet.body[1]:
                raise Ended(f"the broker refuses us: {_REASONS.get(packet.body[1], packet.body[1])}")
            self._connected = True
            self._replies += mqtt_wire.write_subscribe(_SUBSCRIBE_ID, [*((topic, 1) for topic in TOPICS), (DROPPED, 0)])
        elif packet.kind == mqtt_wire.PUBLISH:
            return mqtt_wire.parse_publish(packet)
        elif packet.kind == mqtt_wire.SUBACK:
            self._suback(packet)
        elif packet.kind != mqtt_wire.PINGRESP:
            raise mqtt_wire.BadPacket(f"packet type {packet.kind} from a broker")
        return None

    def _suback(self, packet: mqtt_wire.Packet) -> None:
        codes = packet.body[2:]
        if len(codes) != len(TOPICS) + 1:
            raise mqtt_wire.BadPacket(f"SUBACK with {len(codes)} codes for {len(TOPICS) + 1} filters [3.8.4-5]")
        denied = [topic for topic, code in zip(TOPICS, codes, strict=False) if code == mqtt_wire.DENIED]
        if denied:
            raise Ended(f"the broker does not let us subscribe to {', '.join(denied)}: see its access list")
        weak = [topic for topic, code in zip(TOPICS, codes, strict=False) if code < 1]
        if weak:
            raise Ended(f"the broker grants only QoS 0 for {', '.join(weak)}: frames would be lost without notice")
        self.subscribed = True

    def heard(self, now_s: float) -> None:
        """Bytes came."""
        self._heard_s, self._asked_s = now_s, None

    def sent(self, now_s: float) -> None:
        """Bytes of ours left."""
        self._said_s = now_s

    def due(self, now_s: float, *, paused: bool) -> bytes:
        """What must be sent now: answers, or a ping. While `paused` nothing is read, so silence proves nothing. Raises Ended."""
        out = bytes(self._replies)
        self._replies.clear()
        if paused:
            self._heard_s, self._asked_s = now_s, None
        elif not self._connected and now_s - self._heard_s > _CONNACK_S:
            raise Ended("the broker does not answer CONNECT")
        elif self._asked_s is not None and now_s - self._asked_s > self._keepalive_s / 2:
            raise Ended(f"the broker has been silent for {now_s - self._heard_s:.0f} s")
        quiet_s = now_s - min(self._said_s, self._heard_s)
        if self._connected and quiet_s > self._keepalive_s / 2 and self._asked_s is None:
            self._said_s = self._asked_s = now_s
            out += mqtt_wire.pingreq
        return out
