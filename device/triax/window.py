"""What is in flight on one MQTT connection: packet identifiers, and whose message each one is. Allocates nothing after start.

An entry is free, or holds a message: of QoS 1 with its packet identifier until the PUBACK, of QoS 0 with identifier 0 until the
writer's total has passed its end.
"""

from array import array

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


_FREE = const(-1)
# Milliseconds and byte counts are modulo 2^29.
_MASK = const(0x1FFFFFFF)
_HALF = const(0x0FFFFFFF)


class Window:
    """At most `size` messages. `owner` and `token` tell which message the last `acked` or `passed` let go."""

    def __init__(self, size: int) -> None:
        if not 1 <= size <= 1024:
            raise ValueError("window of %d messages, want 1 to 1024" % size)
        self.size = size
        self.limit = size  # may be made smaller while it runs
        self.count = 0
        self.owner = 0
        self.token = 0
        self._ids = array("H", [0] * size)
        self._owners = array("h", [0] * size)
        self._tokens = array("i", [_FREE] * size)
        self._times = array("i", [0] * size)
        self._ends = array("i", [0] * size)
        self._last_id = 0

    def reset(self) -> None:
        """Nothing is in flight. Identifiers go on, so that a late PUBACK meets none of the new ones."""
        self.count = 0
        for i in range(self.size):
            self._tokens[i] = _FREE

    def full(self) -> bool:
        """No message may be added now."""
        return self.count >= self.limit

    def add(self, packet_id: int, owner: int, token: int, now_ms: int, end: int) -> None:
        """Put a message in flight; not while it is full."""
        i = 0
        while self._tokens[i] != _FREE:
            i += 1
        self._ids[i] = packet_id
        self._owners[i] = owner
        self._tokens[i] = token
        self._times[i] = now_ms
        self._ends[i] = end
        self.count += 1

    def acked(self, packet_id: int) -> bool:
        """Let the message of this identifier go. False: there is none."""
        for i in range(self.size):
            if self._ids[i] == packet_id and self._tokens[i] != _FREE:
                self._release(i)
                return True
        return False

    def passed(self, total: int) -> bool:
        """Let one message of QoS 0 go whose last byte is among the `total` bytes sent. False: there is none."""
        for i in range(self.size):
            if self._tokens[i] != _FREE and not self._ids[i] and (total - self._ends[i]) & _MASK <= _HALF:
                self._release(i)
                return True
        return False

    def oldest_ms(self, now_ms: int) -> int:
        """Age of the message that has waited longest, 0: nothing waits."""
        oldest = 0
        for i in range(self.size):
            if self._tokens[i] != _FREE:
                age = (now_ms - self._times[i]) & _MASK
                if age > oldest:
                    oldest = age
        return oldest

    def new_id(self, other: int) -> int:
        """A packet identifier that neither the window nor `other` uses: at most 1,025 are taken, so the search is short."""
        while True:
            self._last_id = self._last_id % 65535 + 1
            if self._last_id != other and not self._used(self._last_id):
                return self._last_id

    def _used(self, packet_id: int) -> bool:
        for i in range(self.size):
            if self._ids[i] == packet_id and self._tokens[i] != _FREE:
                return True
        return False

    def _release(self, i: int) -> None:
        self.owner = self._owners[i]
        self.token = self._tokens[i]
        self._tokens[i] = _FREE
        self.count -= 1
