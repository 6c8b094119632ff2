"""MQTT 3.1.1 packets for whoever sits at the other end of a node or of a broker: bytes in, packets out, no socket, no clock.

A stream is cut by `cut`: a packet, or None for "more", or an error. Numbers in square brackets are the normative statements of
MQTT 3.1.1 that a peer has broken.

WireError (ValueError): the peer's bytes are no MQTT 3.1.1; the connection is to be closed
├── BadLength: a remaining length of more than four bytes, or a field that runs out of its packet
├── BadPacket: a type, flag or field that does not exist or is not allowed here
├── Oversize: a packet larger than we take
└── OtherVersion: CONNECT of another MQTT version; `reply` is the CONNACK that says so
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "BadLength",
    "BadPacket",
    "Connect",
    "OtherVersion",
    "Oversize",
    "Packet",
    "Publish",
    "WireError",
    "cut",
    "disconnect",
    "parse_connect",
    "parse_publish",
    "parse_subscribe",
    "pingreq",
    "puback",
    "pubacks",
    "write_connack",
    "write_connect",
    "write_publish",
    "write_suback",
    "write_subscribe",
]

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = 10, 11, 12, 13, 14

pingreq = b"\xc0\x00"
pingresp = b"\xd0\x00"
disconnect = b"\xe0\x00"

ACCEPTED, BAD_VERSION, BAD_CLIENT_ID, UNAVAILABLE, BAD_LOGIN, NOT_AUTHORISED = range(6)
DENIED = 0x80  # return code of SUBACK

_LENGTH_BYTES = 4  # of a remaining length, at most [2.2.3]
# Flags of the fixed header that a type must have [2.2.2-1]; PUBLISH has its own.
_FLAGS = {SUBSCRIBE: 2, UNSUBSCRIBE: 2, 6: 2}


class WireError(ValueError):
    """The peer's bytes are no MQTT 3.1.1."""


class BadLength(WireError):
    """A length that cannot be."""


class BadPacket(WireError):
    """A packet that does not exist or is not allowed."""


class Oversize(WireError):
    """A packet larger than the limit."""


class OtherVersion(WireError):
    """CONNECT of another MQTT version."""

    def __init__(self, message: str, reply: bytes) -> None:
        super().__init__(message)
        self.reply = reply


class Packet(NamedTuple):
    """One packet. `size`: bytes on the wire, fixed header included."""

    kind: int
    flags: int
    body: bytes
    size: int


def cut(buffer: bytes | bytearray | memoryview, at: int, limit: int) -> Packet | None:
    """The packet that begins at `at`; None if it is not all there. Raises BadLength, BadPacket, Oversize (whole packet > limit)."""
    end = len(buffer)
    if at >= end:
        return None
    kind, flags = buffer[at] >> 4, buffer[at] & 15
    if kind in (0, 15):
        raise BadPacket(f"packet type {kind} is reserved [2.2.1]")
    if kind != PUBLISH and flags != _FLAGS.get(kind, 0):
        raise BadPacket(f"packet type {kind} with flags {flags:#x} [2.2.2-2]")
    length = shift = 0
    start = at + 1
    while True:
        if start >= end:
            return None
        byte = buffer[start]
        start += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift >= 7 * _LENGTH_BYTES:
            raise BadLength("a remaining length of more than four bytes [2.2.3]")
    size = start - at + length
    if size > limit:
        raise Oversize(f"a packet of {size} bytes, at most {limit} are taken")
    if start + length > end:
        return None
    return Packet(kind, flags, bytes(buffer[start : start + length]), size)


def _u16(body: bytes, at: int) -> int:
    if at + 2 > len(body):
        raise BadLength(f"a packet ends at byte {len(body)} inside a number")
    return body[at] << 8 | body[at + 1]


def _field(body: bytes, at: int) -> tuple[bytes, int]:
    """Binary field with its length in front, and where the next one begins."""
    end = at + 2 + _u16(body, at)
    if end > len(body):
        raise BadLength(f"a field ends {end - len(body)} bytes behind its packet")
    return body[at + 2 : end], end


def _text(body: bytes, at: int) -> tuple[str, int]:
    data, end = _field(body, at)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadPacket(f"text that is no UTF-8 [1.5.3-1]: {data[:32]!r}") from None
    if "\0" in text:
        raise BadPacket(f"text with a null character [1.5.3-2]: {data[:32]!r}")
    return text, end


class Publish(NamedTuple):
    """`packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    retain: bool
    repeated: bool


def parse_publish(packet: Packet) -> Publish:
    """Raises BadPacket, BadLength."""
    qos = packet.flags >> 1 & 3
    if qos == 3:
        raise BadPacket("PUBLISH with QoS 3 [3.3.1-4]")
    topic, at = _text(packet.body, 0)
    if not topic or "+" in topic or "#" in topic:
        raise BadPacket(f"PUBLISH to {topic!r} [3.3.2-2]")
    packet_id = 0
    if qos:
        packet_id = _u16(packet.body, at)
        at += 2
        if not packet_id:
            raise BadPacket("PUBLISH with packet id 0 [2.3.1-1]")
    return Publish(topic, packet.body[at:], qos, packet_id, bool(packet.flags & 1), bool(packet.flags & 8))


@dataclass(frozen=True, slots=True)
class Connect:
    """What a client asks for. `keepalive_s` 0: none."""

    client_id: str
    clean: bool
    keepalive_s: int
    will_topic: str | None
    will_payload: bytes
    will_qos: int
    will_retain: bool
    user: str | None
    password: bytes | None


def parse_connect(packet: Packet) -> Connect:
    """Raises OtherVersion, BadPacket, BadLength."""
    body = packet.body
    name, at = _text(body, 0)
    if at + 2 > len(body):
        raise BadLength("CONNECT ends inside its variable header")
    level, flags = body[at], body[at + 1]
    if name == "MQTT" and level == 5:
        # MQTT 5's own form: no session, reason 0x84 "unsupported protocol version", no properties.
        raise OtherVersion("MQTT 5; we speak 3.1.1", b"\x20\x03\x00\x84\x00")
    if (name, level) != ("MQTT", 4):
        raise OtherVersion(f"protocol {name!r} level {level}; we speak MQTT 3.1.1", write_connack(BAD_VERSION))
    if flags & 1:
        raise BadPacket("CONNECT with the reserved flag [3.1.2-3]")
    keepalive_s = _u16(body, at + 2)
    client_id, at = _text(body, at + 4)
    will_topic, will_payload = None, b""
    will_qos, will_retain = flags >> 3 & 3, bool(flags & 0x20)
    if flags & 4:
        will_topic, at = _text(body, at)
        will_payload, at = _field(body, at)
        if will_qos == 3:
            raise BadPacket("CONNECT with a will of QoS 3 [3.1.2-14]")
    elif will_qos or will_retain:
        raise BadPacket("CONNECT with flags of a will and no will [3.1.2-11]")
    user = password = None
    if flags & 0x80:
        user, at = _text(body, at)
    if flags & 0x40:
        if user is None:
            raise BadPacket("CONNECT with a password and no user [3.1.2-22]")
        password, at = _field(body, at)
    if at != len(body):
        raise BadLength(f"CONNECT with {len(body) - at} bytes too many")
    return Connect(client_id, bool(flags & 2), keepalive_s, will_topic, will_payload, will_qos, will_retain, user, password)


def parse_subscribe(packet: Packet) -> tuple[int, list[tuple[str, int]]]:
    """Packet id and (filter, QoS) pairs; an UNSUBSCRIBE has QoS 0 everywhere. Raises BadPacket, BadLength."""
    body = packet.body
    packet_id = _u16(body, 0)
    at, filters = 2, []
    while at < len(body):
        text, at = _text(body, at)
        qos = 0
        if packet.kind == SUBSCRIBE:
            if at >= len(body):
                raise BadLength("SUBSCRIBE ends before its last QoS")
            qos = body[at]
            at += 1
            if qos > 2:
                raise BadPacket(f"SUBSCRIBE with QoS {qos} [3.8.3-4]")
        filters.append((text, qos))
    if not filters or not packet_id:
        raise BadPacket("SUBSCRIBE without filter or packet id [3.8.3-3]")
    return packet_id, filters


def _head(first: int, length: int) -> bytes:
    out = bytearray([first])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    return bytes(out)


def _string(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def write_connect(client_id: str, *, clean: bool, keepalive_s: int, user: str | None = None, password: str | None = None) -> bytes:
    """CONNECT without a will."""
    flags = clean << 1 | (user is not None) << 7 | (password is not None) << 6
    body = _string("MQTT") + bytes([4, flags]) + keepalive_s.to_bytes(2, "big") + _string(client_id)
    body += b"".join(_string(part) for part in (user, password) if part is not None)
    return _head(CONNECT << 4, len(body)) + body


def write_connack(code: int, session: bool = False) -> bytes:
    """CONNACK with return code 0 (accepted) to 5."""
    return bytes([CONNACK << 4, 2, session, code])


def write_subscribe(packet_id: int, filters: list[tuple[str, int]]) -> bytes:
    """SUBSCRIBE to (filter, QoS) pairs."""
    body = packet_id.to_bytes(2, "big") + b"".join(_string(text) + bytes([qos]) for text, qos in filters)
    return _head(SUBSCRIBE << 4 | 2, len(body)) + body


def write_suback(packet_id: int, codes: list[int]) -> bytes:
    """SUBACK with granted QoS or DENIED for each filter."""
    body = packet_id.to_bytes(2, "big") + bytes(codes)
    return _head(SUBACK << 4, len(body)) + body


def write_publish(topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 0, retain: bool = False) -> bytes:
    """PUBLISH; a packet id at QoS 1 and 2 only."""
    body = _string(topic) + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return _head(PUBLISH << 4 | qos << 1 | retain, len(body)) + body


def puback(packet_id: int) -> bytes:
    """PUBACK."""
    return bytes([PUBACK << 4, 2, packet_id >> 8, packet_id & 255])


def pubacks(packet_ids: npt.NDArray[np.uint16]) -> bytes:
    """One PUBACK for each packet id, in order."""
    out = np.empty((len(packet_ids), 4), np.uint8)
    out[:, 0], out[:, 1] = PUBACK << 4, 2
    out[:, 2], out[:, 3] = packet_ids >> 8, packet_ids & 255
    return out.tobytes()
