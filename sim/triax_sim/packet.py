"""MQTT 3.1.1 as a fleet needs it: CONNECT, PUBLISH heads and PINGREQ written, replies cut out of a byte stream."""

from collections.abc import Iterator

__all__ = ["CONNACK", "DISCONNECT", "PINGREQ", "PINGRESP", "PUBACK", "BadReply", "connect", "cut", "publish", "publish_head"]

CONNACK, PUBACK, PINGRESP = 0x20, 0x40, 0xD0  # first bytes as a server sends them
PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"

_WILL, _WILL_RETAIN, _CLEAN, _PASSWORD, _USERNAME = 0x04, 0x20, 0x02, 0x40, 0x80


class BadReply(ValueError):
    """The server's bytes are no MQTT packet."""


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        byte, size = size & 0x7F, size >> 7
        out.append(byte | 0x80 if size else byte)
        if not size:
            return bytes(out)


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def connect(
    client: str,
    keepalive_s: int,
    will: tuple[str, bytes] | None = None,
    username: str | None = None,
    password: str | None = None,
) -> bytes:
    """CONNECT with a clean session; `will`: topic and payload of a retained last will at QoS 1."""
    flags = _CLEAN
    payload = _text(client.encode())
    if will is not None:
        flags |= _WILL | _WILL_RETAIN | 1 << 3
        payload += _text(will[0].encode()) + _text(will[1])
    if username is not None:
        flags |= _USERNAME
        payload += _text(username.encode())
    if password is not None:
        flags |= _PASSWORD
        payload += _text(password.encode())
    body = _text(b"MQTT") + b"\x04" + bytes([flags]) + keepalive_s.to_bytes(2, "big") + payload
    return b"\x10" + _length(len(body)) + body


def publish_head(topic: str, qos: int, size: int) -> bytes:
    """Everything of a PUBLISH before its packet id (QoS 1) or its payload of `size` bytes."""
    body = _text(topic.encode())
    return bytes([0x30 | qos << 1]) + _length(len(body) + (2 if qos else 0) + size) + body


def publish(topic: str, payload: bytes, retain: bool = False) -> bytes:
    """A whole PUBLISH at QoS 0."""
    head = bytearray(publish_head(topic, 0, len(payload)))
    head[0] |= 1 if retain else 0
    return bytes(head) + payload


def cut(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Whole packets of a stream: first byte, body, index after it. What is incomplete at the end is left.

    Raises BadReply for a remaining length of more than four bytes.
    """
    at = 0
    while at + 2 <= len(data):
        size = shift = 0
        body = at + 1
        while True:
            if body == len(data):
                return
            byte = data[body]
            size |= (byte & 0x7F) << shift
            body += 1
            if byte < 0x80:
                break
            shift += 7
            if shift > 21:
                raise BadReply(f"a remaining length of more than four bytes after {data[at]:#04x}")
        if body + size > len(data):
            return
        yield data[at], data[body : body + size], body + size
        at = body + size
