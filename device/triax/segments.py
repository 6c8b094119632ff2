"""Frames on a file system: a storage for triax.spool.Spool that survives a power cut at any byte.

A segment is a file of up to `per_segment` records of one size; its name is a running number, so that names sort by age. A record is

    CRC-32 of what follows (4 bytes), length of the frame (2 bytes), the frame, zeros up to the record's size     little-endian

A record is written once, in place, behind the last valid one. After a power cut the torn record fails its CRC, is not there, and
the next frame takes its place. A segment is removed when its last frame has left, in one step of the file system. Acknowledgements
are not written down: after a restart up to one segment of frames is sent again, which costs some bandwidth and loses nothing.

What a cut can take: frames put since the last sync, at most `sync_frames`, and the frame being written.

`files` is the port's: `names()`, `open(name)` for reading and writing, created if absent, `remove(name)`, `sync(file)`.
Opening and closing files allocates; reading and writing a record does as much as the file system does.
"""

from array import array
from binascii import crc32

from triax.move import move

_HEAD = 6
_NO_SPACE = 28  # ENOSPC, which MicroPython's errno does not name
_SUFFIX = ".seg"
_TOKENS = 0x10000000  # triax.spool counts frames modulo a multiple of `period` up to this


class Segments:
    """`slots` frames of at most `size` bytes in files."""

    def __init__(self, files, slots: int, size: int, per_segment: int = 256, sync_frames: int = 10) -> None:
        if slots < per_segment or slots % per_segment:
            raise ValueError("%d slots, want a multiple of the %d records of a segment" % (slots, per_segment))
        if size > 65535:
            raise ValueError("frames of %d bytes, at most 65535 fit into a record" % size)
        self.slots = slots
        self.size = size
        self.buffer = bytearray(_HEAD + size)
        self.start = _HEAD
        self.length = 0
        self.corrupt = 0
        self._body = memoryview(self.buffer)[4:]
        self._files = files
        self._per = per_segment
        self._record = _HEAD + size
        self._sync_frames = sync_frames
        self._unsynced = 0
        # One more than the ring: the newest segment begins while the oldest is not quite gone.
        self._numbers = array("i", [-1] * (slots // per_segment + 1))
        self.period = slots * len(self._numbers)
        if self.period > _TOKENS:
            raise ValueError("%d segments are too many: make them larger" % (slots // per_segment))
        self._next_number = 0
        self._out = None
        self._out_at = -1
        self._in = None
        self._in_at = -1

    def recover(self):
        """Tokens of the frames that are whole, ascending; the token after them; how many the ring is too small to keep."""
        kept = []  # a list of records for each file that has any
        numbers = []
        surplus = 0
        for number in sorted(int(name[: -len(_SUFFIX)], 16) for name in self._files.names() if _is_segment(name)):
            self._next_number = number + 1
            whole = self._whole(number)
            if not whole:
                self._files.remove(_name(number))
                continue
            kept.append(whole)
            numbers.append(number)
            # The newest `slots` places stay; a file of which none is among them goes.
            if (len(kept) - 1) * self._per + whole[-1] - self.slots >= self._per - 1:
                surplus += len(kept.pop(0))
                self._files.remove(_name(numbers.pop(0)))
        tokens = [index * self._per + record for index, whole in enumerate(kept) for record in whole]
        after = tokens[-1] + 1 if tokens else 0
        for index, number in enumerate(numbers):
            self._numbers[index] = number
        fitting = [token for token in tokens if token >= after - self.slots]
        return fitting, after, surplus + len(tokens) - len(fitting)

    def write(self, token: int, source, length: int) -> None:
        """Keep source[:length] under this token."""
        buffer = self.buffer
        move(buffer, _HEAD, source, 0, length)
        for i in range(_HEAD + length, self._record):
            buffer[i] = 0
        buffer[4] = length & 255
        buffer[5] = length >> 8
        checksum = crc32(self._body)
        for i in range(4):
            buffer[i] = checksum >> 8 * i & 255
        file = self._writer(token)
        file.seek(token % self._per * self._record)
        if file.write(buffer) != self._record:
            raise OSError(_NO_SPACE)
        file.flush()
        self._unsynced += 1
        if self._unsynced >= self._sync_frames:
            self._files.sync(file)
            self._unsynced = 0

    def read(self, token: int) -> bool:
        """Bring the frame to buffer[start:start + length]. False: the file system lost or damaged it."""
        self.length = 0
        try:
            file = self._reader(token)
            file.seek(token % self._per * self._record)
            whole = file.readinto(self.buffer) == self._record and self._valid()
        except OSError:
            whole = False
        if not whole:
            self.corrupt += 1
            return False
        self.length = self.buffer[4] | self.buffer[5] << 8
        return True

    def free(self, token: int) -> None:
        """The oldest frame has left: with the last of a segment its file goes."""
        if token % self._per != self._per - 1:
            return
        segment = self._segment(token)
        self._close(segment)
        if self._numbers[segment] >= 0:
            self._files.remove(_name(self._numbers[segment]))
            self._numbers[segment] = -1

    def close(self) -> None:
        """Write what is open."""
        if self._out is not None:
            self._files.sync(self._out)
        self._close(self._out_at)
        self._close(self._in_at)

    def _segment(self, token: int) -> int:
        return token // self._per % len(self._numbers)

    def _writer(self, token: int):
        segment = self._segment(token)
        if self._out_at != segment:
            if self._out is not None:
                self._files.sync(self._out)
                self._out.close()
                self._out = None
                self._out_at = -1
            if self._numbers[segment] < 0:
                self._numbers[segment] = self._next_number
                self._next_number += 1
            self._out = self._files.open(_name(self._numbers[segment]))
            self._out_at = segment
        return self._out

    def _reader(self, token: int):
        segment = self._segment(token)
        if segment == self._out_at:
            return self._out
        if self._in_at != segment:
            self._close(self._in_at)
            self._in = self._files.open(_name(self._numbers[segment]))
            self._in_at = segment
        return self._in

    def _close(self, segment: int) -> None:
        if segment >= 0 and segment == self._out_at:
            self._out.close()
            self._out = None
            self._out_at = -1
        if segment >= 0 and segment == self._in_at:
            self._in.close()
            self._in = None
            self._in_at = -1

    def _whole(self, number: int):
        """Indices of the whole records of a file."""
        whole = []
        file = self._files.open(_name(number))
        try:
            for index in range(self._per):
                file.seek(index * self._record)
                count = file.readinto(self.buffer)
                if not count:
                    break
                if count == self._record and self._valid():
                    whole.append(index)
                else:
                    self.corrupt += 1
        finally:
            file.close()
        return whole

    def _valid(self) -> bool:
        buffer = self.buffer
        length = buffer[4] | buffer[5] << 8
        if not 0 < length <= self.size:
            return False
        checksum = crc32(self._body)
        for i in range(4):
            if buffer[i] != checksum >> 8 * i & 255:
                return False
        return True


def _name(number: int) -> str:
    return "%08x%s" % (number, _SUFFIX)


def _is_segment(name: str) -> bool:
    return len(name) == 12 and name.endswith(_SUFFIX) and all(c in "0123456789abcdef" for c in name[:8])
