"""One exchange with a time server (RFC 4330, RFC 5905): bytes in and out, an offset and a bound on its error.

The request carries a random number where a client's transmit time may stand, so that nobody who has not seen it can answer.
Times of the node are microseconds of its monotonic clock; the clock is never set, an offset is kept. With T1 sent and T4
received (node), T2 received and T3 sent (server):

    offset = ((T2 - T1) + (T3 - T4)) / 2        delay = (T4 - T1) - (T3 - T2)
    error  = delay / 2 + root delay / 2 + root dispersion

The first term holds for any asymmetry of the two ways; the others are the server's own distance to its reference clock.
Allocates.
"""

import struct

from triax.errors import TimeReplyError

# From 1900, where NTP begins, to 1970.
_UNIX_S = 2208988800
_ERA_S = 4294967296

# A slower answer would bound the error at more than half a second: ask again.
MAX_DELAY_US = 1000000
# RFC 5905 calls a server further than this from its reference unusable (MAXDIST is 1.5 s).
MAX_ROOT_US = 1500000


def request(nonce: bytes) -> bytes:
    """The 48 bytes to send. `nonce`: 8 random bytes, other ones each time."""
    if len(nonce) != 8:
        raise ValueError("a nonce of %d bytes, want 8" % len(nonce))
    return b"\x23" + bytes(39) + nonce  # version 4, mode 3: client


def reply(data, nonce: bytes, sent_us: int, received_us: int):
    """(offset_us, error_us): UTC microseconds since 1970 = monotonic + offset_us, within error_us. Raises TimeReplyError."""
    if len(data) < 48:
        raise TimeReplyError("a reply of %d bytes, want 48" % len(data))
    data = bytes(data[:48])
    if data[24:32] != nonce:
        raise TimeReplyError("the reply answers another request")
    if data[0] & 7 != 4:
        raise TimeReplyError("mode %d is no server's" % (data[0] & 7))
    if data[0] >> 3 & 7 not in (3, 4):
        raise TimeReplyError("version %d" % (data[0] >> 3 & 7))
    if data[1] == 0:
        raise TimeReplyError("the server refuses: %s" % _code(data[12:16]))
    if data[0] >> 6 == 3 or data[1] > 15:
        raise TimeReplyError("the server's own clock is not set")
    root_delay, root_dispersion = struct.unpack(">iI", data[4:12])
    root_us = _short(abs(root_delay)) // 2 + _short(root_dispersion)
    if root_us > MAX_ROOT_US:
        raise TimeReplyError("the server is %d us from its reference" % root_us)
    received = _unix_us(data[32:40])
    sent = _unix_us(data[40:48])
    held_us = sent - received
    delay_us = received_us - sent_us - held_us
    if held_us < 0 or delay_us < 0:
        raise TimeReplyError("the server says that it held the request for %d us of %d" % (held_us, received_us - sent_us))
    if delay_us > MAX_DELAY_US:
        raise TimeReplyError("the answer took %d us" % delay_us)
    offset_us = (received - sent_us + sent - received_us) // 2
    return offset_us, delay_us // 2 + root_us + 2  # 2: rounding of both halves


def _short(value: int) -> int:
    """16.16 seconds in microseconds, rounded up."""
    return (value * 1000000 + 65535) >> 16


def _unix_us(stamp: bytes) -> int:
    seconds, fraction = struct.unpack(">II", stamp)
    if seconds == 0 and fraction == 0:
        raise TimeReplyError("a time of zero")
    if seconds < 0x80000000:  # era 1 begins in 2036; the upper half of era 0 began in 1968
        seconds += _ERA_S
    return (seconds - _UNIX_S) * 1000000 + (fraction * 1000000 >> 32)


def _code(data: bytes) -> str:
    return "".join([chr(c) for c in data if 32 <= c < 127]) or "no reason given"
