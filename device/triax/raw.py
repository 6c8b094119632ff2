"""RawFrame: every count of a bounded stretch, as differences in varints. Same header as a Frame, its own sequence.

Counts are cut into raw frames by number, never by burst; a gap ends one early. The worst case is three bytes a count for parts of
16 bits, four for 20.
"""

import struct
from array import array

from triax import frame, kernels
from triax.errors import BadSetting


class RawEncoder:
    """Collects `sets` samples, then encodes them into `buffer` in place.

    The buffers are made once (about 20 bytes a sample), so that a capture on command allocates nothing.
    """

    def __init__(self, device: int, boot: int, sets: int, count_bits: int) -> None:
        if not 1 <= sets <= 4096:
            raise BadSetting("a raw frame has 1 to 4096 samples, not %s" % sets)
        self.sets = sets
        self.counts = array("i", bytes(12 * sets))
        self.filled = 0
        most = 3 * sets * (3 if count_bits <= 16 else 4)
        self.buffer = bytearray(frame.HEADER + 3 * 4 + most + frame.TAIL)
        frame.start_header(self.buffer, device, boot, 0, 0, 0, 0.0)

    def begin(self, capture: int, scale_g: float) -> None:
        """Start a capture: `capture` is the id of the command that asked for it."""
        self.filled = 0
        struct.pack_into("<I", self.buffer, frame.FIELD_10, capture)
        struct.pack_into("<f", self.buffer, frame.SCALE_G, scale_g)

    def take(self, counts, at: int, sets: int) -> int:
        """Collect sets of `counts` from set `at` on; stops when full. Returns how many it took."""
        if sets > self.sets - self.filled:
            sets = self.sets - self.filled
        mine = self.counts
        to = 3 * self.filled
        for i in range(3 * at, 3 * (at + sets)):
            mine[to] = counts[i]
            to += 1
        self.filled += sets
        return sets

    def encode(self, first_sample, lost, flags: int, config, temperature_mc: int) -> int:
        """Write the raw frame, checksum last; returns its length. `first_sample`: its eight bytes. The time is put by the clock."""
        buf = self.buffer
        sets = self.filled
        for i in range(8):
            buf[frame.FIRST_SAMPLE + i] = first_sample[i]
        kernels.put32(buf, frame.SAMPLES_AT, sets)
        at = frame.HEADER
        for axis in range(3):
            if sets:
                length = kernels.packed_size(self.counts, axis, sets)
                at = frame.put_length(buf, at, 12 + axis << 3 | 2, length)
                at = kernels.pack(self.counts, axis, sets, buf, at)
        at = frame.put_tail(buf, at, lost, flags, config, temperature_mc)
        kernels.crc32(buf, frame.DEVICE - 1, at, buf, frame.CHECKSUM)
        return at

    def next(self) -> None:
        """Go on to the next raw frame."""
        self.filled = 0
        kernels.add(self.buffer, frame.SEQUENCE, 4, 1)
