"""Frames that have not arrived yet: a ring with a stated policy, and where it keeps their bytes.

A frame is put in once, in the order of capture, and leaves when it has arrived: on PUBACK (QoS 1) or when its last byte was sent
(QoS 0). Between the two it has a token, and its bytes never change.

    put --> WAITING --took--> IN_FLIGHT --release--> GONE          reconnected: IN_FLIGHT --> WAITING

After a reconnect everything in the ring is backlog: it is replayed oldest first at `replay_hz`, beside live frames, which go first.
So a node that comes back shows the present at once and does not choke its link, or ten thousand nodes their broker, with the past.
A full ring drops the oldest frame (keep_newest) or refuses the newest; each is counted in `dropped`.

Tokens count frames modulo nearly 2^28, so a PUBACK that comes for a frame dropped meanwhile meets nothing. All
integers stay below 2^30: nothing here allocates on a 32-bit port, apart from what a storage says.
"""

from array import array

from triax.move import move

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


NONE = const(-1)

_GONE = const(0)
_WAITING = const(1)
_IN_FLIGHT = const(2)

_ENOMEM = const(12)

_MS_MASK = const(0x1FFFFFFF)
_TOKENS = const(0x10000000)  # tokens wrap at the largest multiple of the storage's period up to this

# Replay catches up at most this much after a pause in polling: more would be a burst.
_REPLAY_PAUSE_MS = const(250)


class Memory:
    """Storage in RAM: `slots` frames of at most `size` bytes, allocated at start. Gone with the power."""

    def __init__(self, slots: int, size: int) -> None:
        if slots < 1 or size < 1:
            raise ValueError("a spool of %d frames of %d bytes" % (slots, size))
        self.slots = slots
        self.period = slots
        self.size = size
        self.buffer = bytearray(slots * size)
        self.start = 0
        self.length = 0
        self._lengths = array("H", [0] * slots)

    def recover(self):
        """Tokens of frames kept from before the start, ascending; the token after them; how many could not be kept."""
        return [], 0, 0

    def write(self, token: int, source, length: int) -> None:
        """Keep source[:length] under this token."""
        slot = token % self.slots
        move(self.buffer, slot * self.size, source, 0, length)
        self._lengths[slot] = length

    def read(self, token: int) -> bool:
        """The frame is buffer[start:start + length]."""
        slot = token % self.slots
        self.start = slot * self.size
        self.length = self._lengths[slot]
        return True

    def free(self, token: int) -> None:
        """The oldest frame has left."""


class Kept:
    """Storage for what is rare: `slots` messages of at most `size` bytes, each with memory of its own while it waits."""

    def __init__(self, slots: int, size: int) -> None:
        self.slots = slots
        self.period = slots
        self.size = size
        self.buffer = b""
        self.start = 0
        self.length = 0
        self._kept = [b""] * slots

    recover = Memory.recover

    def write(self, token: int, source, length: int) -> None:
        """Keep source[:length] under this token. Raises OSError where there is no memory for it."""
        try:
            self._kept[token % self.slots] = bytes(source[:length])
        except MemoryError:
            raise OSError(_ENOMEM)

    def read(self, token: int) -> bool:
        """The message is buffer[start:start + length]."""
        self.buffer = self._kept[token % self.slots]
        self.length = len(self.buffer)
        return True

    def free(self, token: int) -> None:
        """The oldest message has left."""
        self._kept[token % self.slots] = b""


class Spool:
    """The ring. `storage` is Memory, Kept or triax.segments.Segments; all have the same operations.

    spool.put(frame, length)
    token = spool.next(now_ms)                  # NONE: nothing to send now
    if token != NONE and spool.read(token):
        if publish(storage.buffer, storage.start, storage.length): spool.took(token)
    spool.release(token)                        # it has arrived
    """

    def __init__(self, storage, keep_newest: bool = True, replay_hz: int = 20) -> None:
        self.storage = storage
        self.slots = storage.slots
        self.slot_bytes = storage.size
        self.keep_newest = keep_newest
        self.replay_hz = replay_hz
        self.high_water = 0
        self._wrap = _TOKENS // storage.period * storage.period
        self._states = bytearray(self.slots)
        kept, self._head, self.dropped = storage.recover()
        self._tail = kept[0] if kept else self._head
        for token in kept:
            self._states[token % self.slots] = _WAITING
        self.depth = len(kept)
        self.high_water = self.depth
        self._mark = self._head  # backlog is what stands before it
        self._replay = self._tail
        self._live = self._head
        self._credit = 0  # thousandths of a frame
        self._asked_ms = 0

    @property
    def backlog(self) -> int:
        """Frames, at most, that wait for replay."""
        return self._span(self._replay, self._mark)

    def put(self, source, length: int) -> bool:
        """Keep source[:length]. False: the ring is full and keeps the oldest, the frame is lost and counted.

        Raises ValueError if it is larger than a slot, OSError if the storage fails; the frame is then lost and counted too.
        """
        if length > self.storage.size:
            self.dropped += 1
            raise ValueError("a frame of %d bytes, the spool's slots hold %d" % (length, self.storage.size))
        if self._span(self._tail, self._head) == self.slots:
            if not self.keep_newest:
                self.dropped += 1
                return False
            self._drop_oldest()
        try:
            self.storage.write(self._head, source, length)
        except OSError:
            self.dropped += 1
            raise
        self._states[self._head % self.slots] = _WAITING
        self._head = (self._head + 1) % self._wrap
        self.depth += 1
        if self.depth > self.high_water:
            self.high_water = self.depth
        return True

    def next(self, now_ms: int) -> int:
        """Token of the frame to send next, the same until `took`; NONE: nothing, or the backlog has to wait for its rate."""
        self._earn(now_ms)
        self._live = self._skip(self._live, self._head)
        if self._live != self._head:
            return self._live
        self._replay = self._skip(self._replay, self._mark)
        if self._replay != self._mark and self._credit >= 1000:
            return self._replay
        return NONE

    def read(self, token: int) -> bool:
        """Bring the frame's bytes to the storage's `buffer`. False: the storage lost them; the frame is counted as dropped."""
        if self.storage.read(token):
            return True
        self.dropped += 1
        self._leave(token)
        return False

    def took(self, token: int) -> None:
        """The frame of `next` is on its way."""
        self._states[token % self.slots] = _IN_FLIGHT
        if token == self._live:
            self._live = (token + 1) % self._wrap
        else:
            self._replay = (token + 1) % self._wrap
            self._credit -= 1000

    def release(self, token: int) -> bool:
        """The frame has arrived. False: it was not here any more."""
        if self._span(self._tail, token) >= self._span(self._tail, self._head) or self._states[token % self.slots] == _GONE:
            return False
        self._leave(token)
        return True

    def reconnected(self) -> None:
        """A new connection: what was in flight waits again, everything that is here is backlog."""
        # What was taken stands before the two cursors; looking through 100,000 slots would take longer than a FIFO lasts.
        self._call_back(self._tail, self._replay)
        self._call_back(self._mark, self._live)
        self._replay = self._tail
        self._mark = self._head
        self._live = self._head
        self._credit = 0

    def _call_back(self, token: int, end: int) -> None:
        while token != end:
            if self._states[token % self.slots] == _IN_FLIGHT:
                self._states[token % self.slots] = _WAITING
            token = (token + 1) % self._wrap

    def _leave(self, token: int) -> None:
        self._states[token % self.slots] = _GONE
        self.depth -= 1
        while self._tail != self._head and self._states[self._tail % self.slots] == _GONE:
            self._advance()

    def _drop_oldest(self) -> None:
        if self._states[self._tail % self.slots] != _GONE:
            self._states[self._tail % self.slots] = _GONE
            self.depth -= 1
            self.dropped += 1
        self._advance()

    def _advance(self) -> None:
        """Move the tail by one; cursors that pointed there go with it."""
        old = self._tail
        self.storage.free(old)
        self._tail = (old + 1) % self._wrap
        if self._mark == old:
            self._mark = self._tail
        if self._replay == old:
            self._replay = self._tail
        if self._live == old:
            self._live = self._tail

    def _skip(self, token: int, end: int) -> int:
        while token != end and self._states[token % self.slots] != _WAITING:
            token = (token + 1) % self._wrap
        return token

    def _span(self, first: int, last: int) -> int:
        return (last - first) % self._wrap

    def _earn(self, now_ms: int) -> None:
        passed = (now_ms - self._asked_ms) & _MS_MASK
        self._asked_ms = now_ms
        if passed > _REPLAY_PAUSE_MS:
            passed = _REPLAY_PAUSE_MS
        most = max(1000, self.replay_hz * _REPLAY_PAUSE_MS)
        self._credit = min(self._credit + passed * self.replay_hz, most)
