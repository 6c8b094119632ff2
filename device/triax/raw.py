"""RawFrame: every count of a bounded stretch, as differences in varints. Same header as a Frame, its own sequence.

Counts are cut into raw frames by number, never by burst; a gap ends one early. The worst case is three bytes a count for parts of
16 bits, four for 20.
"""

import struct
from array import array

from triax import frame, kernels
from triax.errors import BadSetting
from triax.outbox import Outlet
from triax.spool import Memory, Spool


def size(sets: int, count_bits: int) -> int:
    """Bytes of a RawFrame at most."""
    return frame.HEADER + 12 + 3 * sets * (3 if count_bits <= 16 else 4) + frame.TAIL


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
        self.left = 0  # samples still to come
        self.at = 0
        self._emit = None
        self.buffer = bytearray(size(sets, count_bits))
        frame.start_header(self.buffer, device, boot, 0, 0, 0, 0.0)

    def begin(self, capture: int, scale_g: float, samples: int, emit) -> None:
        """Start a capture of `samples` samples: `capture` is the id of the command that asked for it."""
        self.filled = 0
        self.left = samples
        self._emit = emit
        struct.pack_into("<I", self.buffer, frame.FIELD_10, capture)
        struct.pack_into("<f", self.buffer, frame.SCALE_G, scale_g)

    def take(self, counts, sets: int) -> bool:
        """Collect the first `sets` of `counts`; True: a raw frame is full, the next call goes on at set `at`."""
        at = self.at
        end = sets if sets - at <= self.left else at + self.left
        if end - at > self.sets - self.filled:
            end = at + self.sets - self.filled
        mine = self.counts
        to = 3 * self.filled
        for i in range(3 * at, 3 * end):
            mine[to] = counts[i]
            to += 1
        self.filled += end - at
        self.left -= end - at
        full = self.filled == self.sets or (self.filled > 0 and not self.left)
        self.at = end if full else 0
        return full

    def send(self, encoder, ahead: int, flags: int, temperature_mc: int) -> None:
        """Encode, checksum last, and hand over; the time is in the header already. The first sample is `ahead` of that of the frame
        in `encoder`, whose counters this one carries too."""
        buf = self.buffer
        sets = self.filled
        buf[frame.FIRST_SAMPLE : frame.FIRST_SAMPLE + 8] = encoder.first_sample
        kernels.add(buf, frame.FIRST_SAMPLE, 8, ahead)
        kernels.put32(buf, frame.SAMPLES_AT, sets)
        at = frame.HEADER
        for axis in range(3):
            length = kernels.packed_size(self.counts, axis, sets)
            at = frame.put_length(buf, at, 12 + axis << 3 | 2, length)
            at = kernels.pack(self.counts, axis, sets, buf, at)
        at = frame.put_tail(buf, at, encoder.lost, flags, encoder.config, temperature_mc)
        kernels.crc32(buf, frame.DEVICE - 1, at, buf, frame.CHECKSUM)
        self.filled = 0
        self._emit(buf, at)
        kernels.add(buf, frame.SEQUENCE, 4, 1)


class Raw(Outlet):
    """Raw captures of a channel: what they need and where they go. `longest_ms`: of one capture."""

    def __init__(self, topic: bytes, part, sets: int, slots: int, longest_ms: int) -> None:
        super().__init__(topic, Spool(Memory(slots, size(sets, part.COUNT_BITS)), False))
        self._part = part
        self._sets = sets
        self._longest_ms = longest_ms
        self._encoder = None

    def begin(self, device: int, boot: int) -> None:
        """Number raw frames from now on."""
        self._encoder = RawEncoder(device, boot, self._sets, self._part.COUNT_BITS)

    def start(self, capture, number: int, duration_ms: int) -> bool:
        """Have a Capture send every sample for a while, under the number of the command. False: it does so already."""
        if capture.raw_running():
            return False
        capture.start_raw(self._encoder, number, min(duration_ms, self._longest_ms), self.spool.put)
        return True
