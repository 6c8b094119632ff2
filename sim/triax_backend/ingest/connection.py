"""One client of the ingest front: the protocol, packet by packet, for everything that is not an ordinary frame.

    NEW (a PROXY header or TLS handshake may come first) -> CONNECT -> UP -> CLOSED

No queue, no session: what a client is owed is its PUBACKs, in the order of its messages.
"""

import secrets
from typing import Any, Protocol

from triax_proto.names import split_topic

from triax_backend import mqtt_wire
from triax_backend.ingest import proxy
from triax_backend.ingest.identity import names_of

__all__ = ["BUSY", "Connection", "Refused", "Sink"]

NEW, UP, CLOSED = range(3)
CONNECT_BYTES = 4_096  # of CONNECT: client id, will, user, password; a stranger gets no more memory than that
PACKET_BYTES = 1_100_000  # of anything later; what fits no Kafka record becomes a dead letter
# Unread replies of a client that does not read: 16,000 PUBACKs. Then it is closed.
OUT_BYTES = 64_000
BUSY = mqtt_wire.write_connack(mqtt_wire.UNAVAILABLE)
_DOWNLINK = ("config", "calibration")


class Refused(Exception):
    """The connection ends; the text says why. `reply`: last bytes for the client."""

    def __init__(self, why: str, reply: bytes = b"") -> None:
        super().__init__(why)
        self.reply = reply


class Sink(Protocol):
    """What a connection asks of the front."""

    def connected(self, connection: "Connection", client_id: str) -> None:
        """A CONNECT was accepted; an older connection of that client is to be closed."""

    def published(self, connection: "Connection", publish: mqtt_wire.Publish) -> None:
        """A message that the client may publish."""

    def retained(self, key: str) -> bytes | None:
        """Downlink payload of "<device>/<kind>"."""

    @property
    def busy(self) -> bool:
        """True while no new client can be served."""


class Connection:
    """State of one client. `link`: a non-blocking socket, or None once closed."""

    __slots__ = (
        "client_id",
        "connected_id",
        "counted",
        "deaf",
        "devices",
        "early_pings",
        "expects_proxy",
        "fd",
        "heard_s",
        "held",
        "idle_s",
        "link",
        "out",
        "plain",
        "recv",
        "rest",
        "rest_since_s",
        "source",
        "state",
        "subscribed",
        "text",
        "unacked",
        "will",
        "writing",
    )

    def __init__(self, link: Any, source: str, now_s: float, connect_s: float, *, expects_proxy: bool = False) -> None:
        self.link, self.fd, self.recv = link, link.fileno(), link.recv
        self.source = source
        self.state = NEW
        self.client_id = ""
        self.connected_id = secrets.token_bytes(8)
        self.devices: frozenset[str] | None = None  # None: any
        self.text = bytes(16)  # the one device that its ordinary frames may name, if `devices`
        self.subscribed: set[str] = set()
        self.will: mqtt_wire.Publish | None = None
        self.rest = b""  # bytes of a packet that is not all there, or held back
        self.rest_since_s = now_s
        self.out = bytearray()
        self.counted = 0  # of `rest`, in the sum of all clients
        self.unacked = 0
        self.early_pings = 0
        self.plain = False  # up, and nothing unfinished or held: ordinary frames may go the short way
        self.held = False  # nothing is taken from it
        self.deaf = False  # nor read
        self.writing = False  # waits for room in its socket
        self.expects_proxy = expects_proxy
        self.heard_s = now_s
        self.idle_s = connect_s  # silence after which it is closed; 0: never

    def __repr__(self) -> str:
        return f"{self.client_id or 'client'} at {self.source}"

    def identify(self, devices: frozenset[str], own: str) -> None:
        """The client is these devices and no other."""
        self.devices, self.text = devices, own.encode()

    def reply(self, data: bytes) -> None:
        """Send now if nothing waits, else behind it. Raises Refused if the client does not read."""
        if self.out:
            self.out += data
            if len(self.out) > OUT_BYTES:
                raise Refused("it does not read what it is sent")
            return
        try:
            sent = self.link.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Refused(f"connection lost: {error.strerror}") from None
        if sent < len(data):
            self.out += data[sent:]

    def proxy_header(self, data: bytes) -> int | None:
        """Bytes of the PROXY header at the start of `data`, None: more. Raises BadPacket, IdentityError."""
        header = proxy.parse(data)
        if header is None:
            return None
        self.expects_proxy = False
        self.source = header.source or self.source
        if header.common_name is not None:
            self.identify(names_of([header.common_name]), header.common_name)
        elif header.source:
            raise Refused("the balancer names no verified certificate")
        return header.size

    def limit(self) -> int:
        """Bytes that its next packet may have."""
        return PACKET_BYTES if self.state == UP else CONNECT_BYTES

    def packet(self, packet: mqtt_wire.Packet, front: Sink) -> None:
        """Act on one packet. Raises Refused, WireError."""
        kind = packet.kind
        if self.state == NEW:
            if kind != mqtt_wire.CONNECT:
                raise mqtt_wire.BadPacket(f"packet type {kind} before CONNECT [3.1.0-1]")
            self._connect(mqtt_wire.parse_connect(packet), front)
        elif kind == mqtt_wire.PUBLISH:
            self._publish(mqtt_wire.parse_publish(packet), front)
        elif kind == mqtt_wire.PINGREQ:
            if self.early_pings:
                self.early_pings -= 1
            else:
                self.reply(mqtt_wire.pingresp)
        elif kind == mqtt_wire.SUBSCRIBE:
            self._subscribe(*mqtt_wire.parse_subscribe(packet), front)
        elif kind == mqtt_wire.UNSUBSCRIBE:
            packet_id, filters = mqtt_wire.parse_subscribe(packet)
            self.subscribed -= {text for text, _ in filters}
            self.reply(bytes([mqtt_wire.UNSUBACK << 4, 2]) + packet_id.to_bytes(2, "big"))
        elif kind == mqtt_wire.DISCONNECT:
            self.will = None
            raise Refused("")
        elif kind != mqtt_wire.PUBACK:
            raise mqtt_wire.BadPacket(f"packet type {kind} from a client [3.1.0-2]")

    def _connect(self, connect: mqtt_wire.Connect, front: Sink) -> None:
        if front.busy:
            raise Refused("no room for it now", BUSY)
        client_id = connect.client_id
        if not client_id:
            if not connect.clean:
                raise Refused("a session without a client id [3.1.3-8]", mqtt_wire.write_connack(mqtt_wire.BAD_CLIENT_ID))
            client_id = f"auto-{secrets.token_hex(8)}"
        if connect.will_topic is not None:
            self._check_will(connect)
        self.client_id = client_id
        self.idle_s = 1.5 * connect.keepalive_s  # [3.1.2-24]
        self.state = UP
        front.connected(self, client_id)
        self.reply(mqtt_wire.write_connack(mqtt_wire.ACCEPTED))  # no session present, whatever was asked for: we keep none

    def _check_will(self, connect: mqtt_wire.Connect) -> None:
        topic = connect.will_topic or ""
        found = split_topic(topic)
        if found is None or found[1] not in ("status", "event") or not self.may_use(found[0]):
            raise Refused(f"a will on {topic!r}: only its own status or event", mqtt_wire.write_connack(mqtt_wire.NOT_AUTHORISED))
        self.will = mqtt_wire.Publish(topic, connect.will_payload, 0, 0, connect.will_retain, False)

    def may_use(self, device: int) -> bool:
        """True if the client may speak and hear for `device`."""
        return self.devices is None or f"{device:016x}" in self.devices

    def _publish(self, publish: mqtt_wire.Publish, front: Sink) -> None:
        if publish.qos == 2:
            raise Refused("QoS 2: frames carry their identity, QoS 1 is enough and the front keeps no state for more")
        if self.devices is not None:
            found = split_topic(publish.topic)
            if found is None or not self.may_use(found[0]) or found[1] in _DOWNLINK:
                raise Refused(f"it may not publish to {publish.topic!r}")
        front.published(self, publish)

    def _subscribe(self, packet_id: int, filters: list[tuple[str, int]], front: Sink) -> None:
        """Only a device's own configuration and calibration can be had; they come at QoS 0 and again with each connection."""
        codes, payloads = [], []
        for text, _ in filters:
            found = split_topic(text)
            if found is None or found[1] not in _DOWNLINK or not self.may_use(found[0]):
                codes.append(mqtt_wire.DENIED)
                continue
            codes.append(0)
            self.subscribed.add(text)
            payload = front.retained(f"{found[0]:016x}/{found[1]}")
            if payload is not None:
                payloads.append(mqtt_wire.write_publish(text, payload, retain=True))
        self.reply(mqtt_wire.write_suback(packet_id, codes) + b"".join(payloads))
