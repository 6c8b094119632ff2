"""Cuts what a broker sends into MQTT 3.1.1 control packets, in place and with bounded memory.

A packet is one byte of kind and flags, one to four bytes of length (seven bits each, low ones first), then that many bytes.
`feed` lends a buffer to the reader, `next` says whether a packet is complete. Its body stands in `body` up to `kept` bytes; what a
PUBLISH has beyond that is skipped, so that a huge retained message costs time but neither memory nor the connection.
"""

from triax.errors import ProtocolError
from triax.move import move

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


CONNECT = const(1)
CONNACK = const(2)
PUBLISH = const(3)
PUBACK = const(4)
SUBSCRIBE = const(8)
SUBACK = const(9)
PINGREQ = const(12)
PINGRESP = const(13)
DISCONNECT = const(14)

_HEAD = const(0)
_LENGTH = const(1)
_BODY = const(2)

# What a broker may send a publisher: (smallest, largest) length. -1: as large as the reader keeps; -2: any, the rest is skipped.
_LENGTHS = {CONNACK: (2, 2), PUBLISH: (3, -2), PUBACK: (2, 2), SUBACK: (3, -1), PINGRESP: (0, 0)}
NAMES = {CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK", SUBACK: "SUBACK", PINGRESP: "PINGRESP"}

# The count of bytes wraps before 2^30: a larger integer would be an allocation on a 32-bit port.
_COUNT = const(0x1FFFFFFF)


class Reader:
    """Reads packets of which at most `limit` bytes are kept."""

    def __init__(self, limit):
        self.body = bytearray(limit)
        self.kind = 0
        self.flags = 0
        self.length = 0
        self.kept = 0
        self.reset()

    def reset(self):
        """Forget everything: a new connection begins."""
        self._state = _HEAD
        self._buffer = self.body
        self._at = 0
        self._end = 0
        self._seen = 0
        self._shift = 0
        self.count = 0

    def feed(self, buffer, length):
        """Lend the first `length` bytes of a buffer, until `next` has returned False."""
        if self._at < self._end:
            raise ValueError("the bytes lent before are not read to their end")
        self._buffer = buffer
        self._at = 0
        self._end = length

    def next(self):
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

    def fail(self, what):
        """Raise ProtocolError: what is wrong, and where."""
        raise ProtocolError("%s, at byte %d of the connection" % (what, self.count))

    def _take_head(self, byte):
        self.kind = byte >> 4
        self.flags = byte & 15
        if self.kind not in _LENGTHS:
            self.fail("packet kind %d, which a broker never sends here" % self.kind)
        if self.kind != PUBLISH and self.flags:
            self.fail("%s with flags %d, want 0" % (NAMES[self.kind], self.flags))
        if self.kind == PUBLISH and self.flags & 6 > 2:
            self.fail("PUBLISH of QoS %d, which was not subscribed to" % (self.flags >> 1 & 3))
        self.length = 0
        self._shift = 0
        self._state = _LENGTH

    def _take_length(self, byte):
        self.length |= (byte & 127) << self._shift
        self._shift += 7
        if byte & 128:
            if self._shift > 21:
                self.fail("a length of more than four bytes")
            return
        least, most = _LENGTHS[self.kind]
        if self.length < least or most >= 0 and self.length > most or most == -1 and self.length > len(self.body):
            self.fail("%s of %d bytes" % (NAMES[self.kind], self.length))
        self._seen = 0
        self.kept = min(self.length, len(self.body))
        self._state = _BODY

    def _take_body(self):
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
