"""Keeps one MQTT connection up: when to try, when to give up, how long to rest. The link moves bytes, triax.mqtt reads them.

    RESTING --time--> OPENING --link up--> OPEN --CONNACK--> (the core is UP)
       ^                 |                  |
       +---- failed -----+------------------+      `reason` tells why

The rest before try n is random between 0 and min(60 s, 2 s * 2^n) ("full jitter"): ten thousand nodes that lost the same broker
come back spread out, not in step. The count starts again once a message has been acknowledged, not merely accepted: a broker
that accepts and then breaks is not hammered.
"""

from triax import mqtt
from triax.errors import LinkError, ProtocolError
from triax.mqtt import elapsed

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


RESTING = const(0)
OPENING = const(1)
OPEN = const(2)

# One more event besides those of triax.mqtt.
LOST = const(20)

_BASE_MS = const(2000)
_LONGEST_MS = const(60000)
# A link that says neither yes nor no: its own time limit is shorter.
_OPENING_MS = const(30000)
# Read at most this much in one step: a flood from the broker must not keep the FIFO waiting.
_READ_BYTES = const(512)


class Connection:
    """`random_below(n)`: a random int from 0 to n - 1."""

    def __init__(self, link, core, random_below) -> None:
        self.link = link
        self.core = core
        self.state = RESTING
        self.reason = ""
        self.opened = 0  # connections that the broker accepted
        self.refused = False  # the last failure was a refusal by the broker that trying again will not change
        self.longest_ms = _LONGEST_MS
        self._settings = {}
        self._random_below = random_below
        self._tries = 0
        self._since_ms = 0
        self._rest_ms = 0
        self._read = bytearray(_READ_BYTES)

    def use(self, settings: dict) -> None:
        """Host, port and TLS of the next connection."""
        self._settings = settings

    def settled(self) -> None:
        """A message has been acknowledged: the next failure is a first one."""
        self._tries = 0

    def hurry(self) -> None:
        """Do not rest before the next try."""
        self._tries = 0
        self._rest_ms = 0

    def close(self, reason: str, now_ms: int) -> None:
        """End this connection; the next try comes after a rest."""
        self.reason = reason
        self.core.close()
        self.link.close()
        self.state = RESTING
        self._since_ms = now_ms
        self._rest_ms = self._random_below(min(self.longest_ms, _BASE_MS << min(self._tries, 10)))
        self._tries += 1

    def about_to_block(self, now_ms: int) -> bool:
        """Will this step call connect?"""
        return self.state == RESTING and elapsed(now_ms, self._since_ms) >= self._rest_ms

    def step(self, now_ms: int) -> int:
        """Move bytes. Returns what happened: an event of triax.mqtt or LOST; NOTHING ends the round. Call until then."""
        try:
            if self.state == OPEN:
                return self._step_open(now_ms)
            if self.state == OPENING:
                return self._step_opening(now_ms)
            if elapsed(now_ms, self._since_ms) >= self._rest_ms:
                return self._open(now_ms)
        except LinkError as error:
            return self._fail(str(error), now_ms)
        except ProtocolError as error:
            return self._fail("the broker broke MQTT: %s" % error, now_ms)
        except OSError as error:
            return self._fail("connection lost: %s" % error, now_ms)
        return mqtt.NOTHING

    def flush(self) -> None:
        """Hand what is written to the link, as far as it takes it. Raises OSError, LinkError."""
        out = self.core.out
        if out.length:
            taken = self.link.send(out.buffer, out.length)
            if taken:
                out.taken(taken)

    def _open(self, now_ms: int) -> int:
        self.refused = False
        self._since_ms = now_ms
        self.state = OPENING
        settings = self._settings
        if not self.link.connect(settings["host"], settings["port"], settings["tls"]):
            self._opened(now_ms)
        return mqtt.NOTHING

    def _step_opening(self, now_ms: int) -> int:
        if self.link.connected():
            self._opened(now_ms)
        elif elapsed(now_ms, self._since_ms) >= _OPENING_MS:
            return self._fail("no connection within 30 s", now_ms)
        return mqtt.NOTHING

    def _opened(self, now_ms: int) -> None:
        self.state = OPEN
        self.core.connect(now_ms)

    def _step_open(self, now_ms: int) -> int:
        self.flush()
        event = self.core.next_event(now_ms)
        if event == mqtt.NOTHING and self.core.wants_bytes():
            count = self.link.readinto(self._read)
            if count is not None:
                if count == 0:
                    return self._fail("the broker closed the connection", now_ms)
                self.core.receive(self._read, count, now_ms)
                event = self.core.next_event(now_ms)
        if event == mqtt.REFUSED:
            self.refused = self.core.code != 3  # 3: unavailable, later it may not be
            return self._fail("the broker refuses: %s" % self.core.reason, now_ms)
        if event == mqtt.RECONNECT:
            return self._fail(self.core.reason, now_ms)
        if event == mqtt.CONNECTED:
            self.opened += 1
        return event

    def _fail(self, reason: str, now_ms: int) -> int:
        self.close(reason, now_ms)
        return LOST
