"""Frame and RawFrame headers on the wire: one layout for a given number of values, written in place.

A frame is a protobuf message whose scalars are all there, each under its tag at a fixed place, so encoding is putting bytes: 273
for ten values an axis, the same bytes that Google's protobuf gives (proto/triax/v1/frame.proto). The counters of the node live in
the header itself, as little-endian bytes: no int of 32 or 64 bits is ever made.
"""

import struct

from triax import kernels
from triax.kernels_data import DONE, MAXIMUM, MINIMUM, SAMPLES

try:
    from micropython import const
except ImportError:  # CPython

    def const(value: int) -> int:
        return value


# Where the header's fields are; the tag is the byte before. Field 10 is `decimation` in a Frame, `capture` in a RawFrame.
CHECKSUM = const(1)
DEVICE = const(6)
_BOOT = const(15)
SEQUENCE = const(20)
FIRST_SAMPLE = const(25)
SAMPLES_AT = const(34)
TIME_US = const(39)
TIME_ERROR_US = const(48)
RATE_HZ = const(53)
FIELD_10 = const(58)
SCALE_G = const(63)
HEADER = const(67)
TAIL = const(24)  # fields 18 to 21

_ABSOLUTE_ZERO_MC = const(-273150)

_FIXED64 = const((2, 5, 7))  # numbers of the header's fields of eight bytes; the others have four


def size(values: int) -> int:
    """Bytes of a Frame with `values` values an axis."""
    packed = 3 * (2 + (4 * values > 127) + 4 * values) if values else 0
    return HEADER + packed + 14 + 15 + 27 + TAIL


def start_header(buf, device: int, boot: int, sequence: int, first_sample: int, field_10: int, scale_g: float) -> None:
    """Tags of the header, and the fields that do not change: at start, or after a change of configuration."""
    place = 0
    for number in range(1, 12):
        wide = number in _FIXED64
        buf[place] = number << 3 | (1 if wide else 5)
        place += 9 if wide else 5
    struct.pack_into("<Q", buf, DEVICE, device)
    struct.pack_into("<I", buf, _BOOT, boot)
    struct.pack_into("<I", buf, SEQUENCE, sequence)
    struct.pack_into("<Q", buf, FIRST_SAMPLE, first_sample)
    struct.pack_into("<I", buf, FIELD_10, field_10)
    struct.pack_into("<f", buf, SCALE_G, scale_g)


def put_tail(buf, at: int, lost, flags: int, config, temperature_mc: int) -> int:
    """Fields 18 to 21 (`lost`, `config`: four bytes each); returns the index after them."""
    for field in range(4):
        buf[at + 6 * field] = (18 + field << 3 | 5) & 127 | 128
        buf[at + 6 * field + 1] = 1
    for i in range(4):
        buf[at + 2 + i] = lost[i]
        buf[at + 14 + i] = config[i]
    kernels.put32(buf, at + 8, flags)
    if temperature_mc < _ABSOLUTE_ZERO_MC:  # not measured: -2^31
        kernels.put32(buf, at + 20, 0)
        buf[at + 23] = 128
    else:
        kernels.put32(buf, at + 20, temperature_mc)
    return at + TAIL


def put_length(buf, at: int, tag: int, length: int) -> int:
    """Tag (one byte) and length of a packed field; returns the index after them."""
    buf[at] = tag
    at += 1
    while length > 127:
        buf[at] = length & 127 | 128
        at += 1
        length >>= 7
    buf[at] = length
    return at + 1


class FrameEncoder:
    """Encodes what an Average holds into `buffer`, in place.

    The header is the node's memory: `sequence` and `first_sample` go on by themselves in `next`; time, its error and the rate
    are put into `buffer` by the clock before `encode`. `lost` and `config` are counters of four bytes.
    """

    def __init__(self, device: int, boot: int, values: int, sequence: int = 0, first_sample: int = 0) -> None:
        self.buffer = bytearray(size(values))
        self.first_sample = memoryview(self.buffer)[FIRST_SAMPLE : FIRST_SAMPLE + 8]
        self.lost = bytearray(4)
        self.config = bytearray(4)
        start_header(self.buffer, device, boot, sequence, first_sample, 0, 0.0)

    def configure(self, config: int, decimation: int, scale_g: float) -> None:
        """What is in force from the next frame on; `config` is its version."""
        struct.pack_into("<I", self.config, 0, config)
        struct.pack_into("<I", self.buffer, FIELD_10, decimation)
        struct.pack_into("<f", self.buffer, SCALE_G, scale_g)

    def encode(self, average, flags: int, temperature_mc: int) -> int:
        """Write the frame, checksum last; returns its length. Whole windows only: an unfinished one is in the extremes alone."""
        buf = self.buffer
        state = average.state
        done = state[DONE]
        kernels.put32(buf, SAMPLES_AT, state[SAMPLES])
        at = HEADER
        for axis in range(3):
            if done:
                at = put_length(buf, at, 12 + axis << 3 | 2, 4 * done)
                kernels.put_values(buf, at, average.values, axis * average.length, done)
                at += 4 * done
        at = put_length(buf, at, 15 << 3 | 2, 12)
        kernels.put_values(buf, at, state, MINIMUM, 3)
        buf[at + 12] = 0x82  # field 16, length-delimited: the tag takes two bytes from here on
        at = put_length(buf, at + 13, 1, 12)
        kernels.put_values(buf, at, state, MAXIMUM, 3)
        buf[at + 12] = 0x8A  # field 17
        at = put_length(buf, at + 13, 1, 24)
        for axis in range(3):
            kernels.put_squares(buf, at + 8 * axis, state, axis)
        at = put_tail(buf, at + 24, self.lost, flags, self.config, temperature_mc)
        kernels.crc32(buf, DEVICE - 1, at, buf, CHECKSUM)
        return at

    def next(self, samples: int) -> None:
        """Go on to the next frame: `samples` raw samples further, one number further."""
        kernels.add(self.buffer, FIRST_SAMPLE, 8, samples)
        kernels.add(self.buffer, SEQUENCE, 4, 1)

    def skip(self, samples: int) -> None:
        """`samples` raw samples are lost before the frame that has begun: counted, and its first sample is that much later."""
        kernels.add(self.buffer, FIRST_SAMPLE, 8, samples)
        kernels.add(self.lost, 0, 4, samples)
