"""MQTT 3.1.1 control packets: cut out of what a broker sends, and written into a buffer made once; in place, memory bounded.

A packet is one byte of kind and flags, one to four bytes of length (seven bits each, low ones first), then that many bytes.
Reader: `feed` lends a buffer, `next` says whether a packet is complete. Its body stands in `body` up to `kept` bytes. A PUBLISH
that is too large, or for which there is no memory, is skipped: it costs time, but not the connection.
"""

from triax.errors import ProtocolError
from triax.move import move

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


# MQTT 3.1.1, 2.2.1
_CONNACK = const(2)
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBACK = const(9)
_PINGRESP = const(13)

_HEAD = const(0)
_LENGTH = const(1)
_BODY = const(2)

# What a broker may send a publisher: (smallest, largest) length. -1: up to the reader's limit; -2: any, the rest is skipped.
_LENGTHS = {_CONNACK: (2, 2), _PUBLISH: (3, -2), _PUBACK: (2, 2), _SUBACK: (3, -1), _PINGRESP: (0, 0)}
NAMES = {_CONNACK: "CONNACK", _PUBLISH: "PUBLISH", _PUBACK: "PUBACK", _SUBACK: "SUBACK", _PINGRESP: "PINGRESP"}

# Room for a body that is always there. A configuration and a calibration (4 KiB) come rarely: they get theirs while they are read.
_READY = const(128)

# The count of bytes wraps before 2^30: a larger integer would be an allocation on a 32-bit port.
_COUNT = const(0x1FFFFFFF)


class Reader:
    """Reads packets; the body of one of more than `limit` bytes is not kept, but for its begin."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ready = bytearray(min(limit, _READY))
        self.kind = 0
        self.flags = 0
        self.length = 0
        self.kept = 0
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new connection begins."""
        self._state = _HEAD
        self.body = self._ready
        self._buffer = self._ready
        self._at = 0
        self._end = 0
        self._seen = 0
        self._shift = 0
        self.count = 0

    def feed(self, buffer, length: int) -> None:
        """Lend the first `length` bytes of a buffer, until `next` has returned False."""
        if self._at < self._end:
            raise ValueError("the bytes lent before are not read to their end")
        self._buffer = buffer
        self._at = 0
        self._end = length

    def next(self) -> bool:
        """True: a packet stands in kind, flags, length, body and kept. False: more bytes are needed. Raises ProtocolError."""
        while True:
            if self._state == _BODY:
                if self._take_body():
                    self._state = _HEAD
                    return True
                return False
            if self._at >= self._end:
                return False
            byte = self._buffer[self._at]
            self._at += 1
            self.count = (self.count + 1) & _COUNT
            if self._state == _HEAD:
                self._take_head(byte)
            else:
                self._take_length(byte)

    def drained(self) -> bool:
        """Is everything that was lent read?"""
        return self._at >= self._end

    def fail(self, what: str) -> None:
        """Raise ProtocolError: what is wrong, and where."""
        raise ProtocolError("%s, at byte %d of the connection" % (what, self.count))

    def _take_head(self, byte: int) -> None:
        self.kind = byte >> 4
        self.flags = byte & 15
        if self.kind not in _LENGTHS:
            self.fail("packet kind %d, which a broker never sends here" % self.kind)
        if self.kind != _PUBLISH and self.flags:
            self.fail("%s with flags %d, want 0" % (NAMES[self.kind], self.flags))
        if self.kind == _PUBLISH and self.flags & 6 > 2:
            self.fail("PUBLISH of QoS %d, which was not subscribed to" % (self.flags >> 1 & 3))
        self.length = 0
        self._shift = 0
        self._state = _LENGTH

    def _take_length(self, byte: int) -> None:
        self.length |= (byte & 127) << self._shift
        self._shift += 7
        if byte & 128:
            if self._shift > 21:
                self.fail("a length of more than four bytes")
            return
        least, most = _LENGTHS[self.kind]
        if self.length < least or most >= 0 and self.length > most or most == -1 and self.length > self._limit:
            self.fail("%s of %d bytes" % (NAMES[self.kind], self.length))
        self._seen = 0
        self._make_room()
        self._state = _BODY

    def _make_room(self) -> None:
        self.body = self._ready
        if len(self.body) < self.length <= self._limit:
            try:
                self.body = bytearray(self.length)
            except MemoryError:
                pass
        self.kept = min(self.length, len(self.body))

    def _take_body(self) -> bool:
        have = self._end - self._at
        take = min(self.length - self._seen, have)
        if take:
            keep = min(self.kept - self._seen, take)
            if keep > 0:
                move(self.body, self._seen, self._buffer, self._at, keep)
            self._seen += take
            self._at += take
            self.count = (self.count + take) & _COUNT
        return self._seen == self.length


class Writer:
    """Packets that wait for the network: `buffer[:length]`."""

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.length = 0
        self.total = 0  # bytes taken by the network, modulo 2^29

    def reset(self) -> None:
        """Forget everything: a new connection begins."""
        self.length = 0
        self.total = 0

    def room(self, rest: int) -> bool:
        """Does a packet with `rest` bytes after its length fit?"""
        return self.length + rest + 5 <= len(self.buffer)

    def end(self) -> int:
        """Value of `total` when everything written so far is taken."""
        return (self.total + self.length) & _COUNT

    def taken(self, count: int) -> None:
        """The network took the first `count` bytes."""
        self.total = (self.total + count) & _COUNT
        self.length -= count
        if self.length:
            move(self.buffer, 0, self.buffer, count, self.length)

    def head(self, first: int, rest: int) -> None:
        """First byte and length of a packet; `rest` bytes must follow."""
        at = self.length
        self.buffer[at] = first
        at += 1
        while rest > 127:
            self.buffer[at] = rest & 127 | 128
            at += 1
            rest >>= 7
        self.buffer[at] = rest
        self.length = at + 1

    def number(self, value: int) -> None:
        """Two bytes, high one first."""
        self.buffer[self.length] = value >> 8
        self.buffer[self.length + 1] = value & 255
        self.length += 2

    def put(self, source, start: int, length: int) -> None:
        """source[start:start + length]"""
        move(self.buffer, self.length, source, start, length)
        self.length += length


def text(value) -> bytes:
    """MQTT string of a str or bytes: two bytes of length, then UTF-8."""
    data = value.encode() if isinstance(value, str) else bytes(value)
    if len(data) > 65535:
        raise ValueError("an MQTT string of %d bytes, at most 65535 fit" % len(data))
    return bytes((len(data) >> 8, len(data) & 255)) + data


def topic(name: str) -> bytes:
    """A topic to publish to, encoded once."""
    if not name or "+" in name or "#" in name or "\0" in name:
        raise ValueError("%r is no topic to publish to" % name)
    return text(name)


def connect_rest(client_id: str, username, password, keepalive_s: int, will) -> bytes:
    """What follows the length of a CONNECT with a clean session. `will`: (topic, payload, QoS, retain) or None."""
    if not 0 <= keepalive_s <= 65535:
        raise ValueError("keepalive of %d s, want 0 to 65535" % keepalive_s)
    if password is not None and username is None:
        raise ValueError("a password needs a user name")
    flags = 2  # clean session
    rest = text(client_id)
    if will is not None:
        flags |= 4 | will[2] << 3 | (32 if will[3] else 0)
        rest += will[0] + text(will[1])
    if username is not None:
        flags |= 128
        rest += text(username)
    if password is not None:
        flags |= 64
        rest += text(password)
    return b"\x00\x04MQTT\x04" + bytes((flags, keepalive_s >> 8, keepalive_s & 255)) + rest
