"""MQTT 3.1.1 publisher: bytes in, events out. No socket, no clock, no task; time is an argument.

The owner moves bytes: what `out.buffer[:out.length]` holds goes to the network, then `out.taken(n)`; what comes from there goes
into `receive` while `wants_bytes()`, then `next_event` is called until it says NOTHING. Events are small ints, their details stand
in attributes.

    IDLE  --connect()-->  WAIT  --CONNACK 0-->  UP  --anything wrong-->  ENDED  --connect()-->  WAIT ...

Every connection is a clean session: configuration and calibration are retained messages, frames are kept by the spool, so a broker
needs to remember nothing of a node, and any of many brokers will do. A frame that was not acknowledged is published again on the
next connection: the same payload, a new packet.

The window holds what was published and not yet released: QoS 1 until its PUBACK (in any order), QoS 0 until its last byte was sent.
Milliseconds are modulo 2^29 (6.2 days) so that they are never an allocation on a 32-bit port; no wait here is longer than a day.
"""

from triax.errors import ProtocolError
from triax.packets import NAMES, Reader, Writer, connect_rest, text
from triax.window import Window

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


# Kinds of packets (MQTT 3.1.1, 2.2.1). triax.packets states those that it reads again: shared, they would cost memory twice.
_CONNECT = const(1)
_CONNACK = const(2)
_PUBLISH = const(3)
_PUBACK = const(4)
_SUBSCRIBE = const(8)
_SUBACK = const(9)
_PINGREQ = const(12)
_PINGRESP = const(13)
_DISCONNECT = const(14)

# Events
NOTHING = const(0)
CONNECTED = const(1)
REFUSED = const(2)  # `code`, `reason`: the broker does not want this client
RELEASED = const(3)  # `window.owner`, `window.token`: a published message has left
MESSAGE = const(4)  # `topic`, `payload()`; then `acknowledge()`
OVERSIZE = const(5)  # `topic`, `reader.length`: a message too large to keep, skipped; then `acknowledge()`
SUBSCRIBED = const(6)
DENIED = const(7)  # the broker refused a subscription
RECONNECT = const(8)  # `reason`: this connection is of no more use

IDLE = const(0)
WAIT = const(1)
UP = const(2)
ENDED = const(3)

# Packets that may come in each state, as bits of their kinds.
_LEGAL = const((0, 1 << _CONNACK, 1 << _PUBLISH | 1 << _PUBACK | 1 << _SUBACK | 1 << _PINGRESP, 0))

MS_MASK = const(0x1FFFFFFF)

# No PUBACK within 10 s: the broker or its bridge to Kafka is stuck (design.md 3.4), another connection may not be.
_PUBACK_MS = const(10000)
# As long for CONNACK and SUBACK: a balancer that accepts and has no broker behind it must not hold a node for ever.
_CONNACK_MS = const(10000)

_NO_ID = const(0)

_REFUSALS = (
    "",
    "protocol version not accepted: the broker is older than MQTT 3.1.1",
    "client identifier rejected",
    "server unavailable: try later",
    "bad user name or password: check the credentials",
    "not authorised: check the broker's user and ACL files",
)


def elapsed(now_ms: int, then_ms: int) -> int:
    """Milliseconds from then to now, modulo 2^29."""
    return (now_ms - then_ms) & MS_MASK


class Publisher:
    """One client. `out_bytes` bounds what waits for the socket, `in_bytes` the largest message kept, `window` what is in flight.

    will = (topic("t/status"), b"gone", 1, True)
    core = Publisher("node-1", username="node-1", password="secret", keepalive_s=30, will=will)
    core.connect(now_ms)
    """

    def __init__(
        self, client_id: str, username=None, password=None, keepalive_s=30, will=None, window=8, out_bytes=4096, in_bytes=4608
    ) -> None:
        self.out = Writer(out_bytes)
        self.reader = Reader(in_bytes)
        self.window = Window(window)
        self.state = IDLE
        self.code = 0
        self.reason = ""
        self.topic = ""
        self.stray_acks = 0
        self.login(client_id, username, password, keepalive_s, will)
        self._clear(0)

    def login(self, client_id: str, username, password, keepalive_s: int, will) -> None:
        """What the next CONNECT says. `will`: (topic, payload, QoS, retain) or None. keepalive_s 0: no pings."""
        self._login = connect_rest(client_id, username, password, keepalive_s, will)
        if len(self._login) + 5 > len(self.out.buffer):
            raise ValueError("CONNECT of %d bytes does not fit into out_bytes %d" % (len(self._login), len(self.out.buffer)))
        self._keepalive_ms = keepalive_s * 1000

    def connect(self, now_ms: int) -> None:
        """A new connection is open: forget the old one, write CONNECT. What was in flight is the spool's to publish again."""
        self._clear(now_ms)
        self.out.head(_CONNECT << 4, len(self._login))
        self.out.put(self._login, 0, len(self._login))
        self.state = WAIT

    def close(self) -> None:
        """The connection has gone."""
        self.state = ENDED

    def disconnect(self) -> None:
        """Write DISCONNECT: the broker will not publish the last will. Close the link once it is sent."""
        if self.state == UP and self.out.room(0):
            self.out.head(_DISCONNECT << 4, 0)
        self.state = ENDED

    def publish(
        self, topic: bytes, source, start: int, length: int, qos: int, owner: int, token: int, now_ms: int, retain: int = 0
    ) -> bool:
        """Write `source[start:start + length]` to a topic; `owner` and `token` >= 0 come back in RELEASED. Allocates nothing.

        False: not now (window or buffer full, or not connected).
        """
        rest = len(topic) + length + (2 if qos else 0)
        if self.state != UP or self.window.full() or not self.out.room(rest):
            return False
        self.out.head(_PUBLISH << 4 | qos << 1 | retain, rest)
        self.out.put(topic, 0, len(topic))
        packet_id = _NO_ID
        if qos:
            packet_id = self.window.new_id(self._sub_id)
            self.out.number(packet_id)
        self.out.put(source, start, length)
        self.window.add(packet_id, owner, token, now_ms, self.out.end())
        self._wrote_ms = now_ms
        return True

    def subscribe(self, topics, now_ms: int) -> bool:
        """Ask for topics (str) at QoS 1, in one packet; SUBSCRIBED or DENIED follows. False: not now."""
        body = b"".join([text(name) + b"\x01" for name in topics])
        if self.state != UP or self._sub_id or not self.out.room(len(body) + 2):
            return False
        self._sub_id = self.window.new_id(_NO_ID)
        self._sub_count = len(topics)
        self._sub_ms = now_ms
        self.out.head(_SUBSCRIBE << 4 | 2, len(body) + 2)
        self.out.number(self._sub_id)
        self.out.put(body, 0, len(body))
        return True

    def payload(self):
        """The message that MESSAGE announced: a view, good until `next_event`."""
        return memoryview(self.reader.body)[self._payload_at : self.reader.kept]

    def acknowledge(self) -> None:
        """The message of the last MESSAGE or OVERSIZE is safe: write its PUBACK, if it wants one. Call it before anything else."""
        if self._message_id:
            self.out.head(_PUBACK << 4, 2)
            self.out.number(self._message_id)
            self._message_id = _NO_ID

    def wants_bytes(self) -> bool:
        """False: what was lent is not read to its end (no room for a PUBACK); send first."""
        return self.reader.drained()

    def receive(self, buffer, length: int, now_ms: int) -> None:
        """Lend `length` bytes from the broker until next_event says NOTHING."""
        self.reader.feed(buffer, length)
        self._heard_ms = now_ms
        self._pinged = False

    def next_event(self, now_ms: int) -> int:
        """What happened next, else NOTHING. After RECONNECT or REFUSED the connection is to be closed. Raises ProtocolError."""
        if self.state != WAIT and self.state != UP:
            return NOTHING
        if self.window.passed(self.out.total):
            return RELEASED
        try:
            while self.out.room(2) and self.reader.next():  # room for the PUBACK that the packet may want
                event = self._packet()
                if event != NOTHING:
                    return event
        except ProtocolError:
            self.state = ENDED
            raise
        return self._watch(now_ms)

    # --- time ---

    def _watch(self, now_ms: int) -> int:
        if self.state == WAIT:
            if elapsed(now_ms, self._wrote_ms) >= _CONNACK_MS:
                return self._end("no CONNACK within 10 s")
            return NOTHING
        if self._sub_id and elapsed(now_ms, self._sub_ms) >= _CONNACK_MS:
            return self._end("no SUBACK within 10 s")
        if self.window.oldest_ms(now_ms) >= _PUBACK_MS:
            return self._end("no PUBACK within 10 s")
        return self._keep_alive(now_ms) if self._keepalive_ms else NOTHING

    def _keep_alive(self, now_ms: int) -> int:
        """PINGREQ when either side was silent for half a keepalive, the end when the broker stays silent for as long again.

        So a half-open connection is found within one keepalive, and the broker, which waits 1.5, hears from us in time.
        """
        half = self._keepalive_ms >> 1
        if self._pinged:
            if elapsed(now_ms, self._ping_ms) >= half:
                return self._end("the broker is silent: half-open connection")
        elif (elapsed(now_ms, self._heard_ms) >= half or elapsed(now_ms, self._wrote_ms) >= half) and self.out.room(0):
            self.out.head(_PINGREQ << 4, 0)
            self._pinged = True
            self._ping_ms = now_ms
            self._wrote_ms = now_ms
        return NOTHING

    def _end(self, reason: str) -> int:
        self.reason = reason
        self.state = ENDED
        return RECONNECT

    # --- packets in ---

    def _packet(self) -> int:
        kind = self.reader.kind
        if not _LEGAL[self.state] >> kind & 1:
            self.reader.fail("%s in state %s" % (NAMES[kind], ("IDLE", "WAIT", "UP", "ENDED")[self.state]))
        if kind == _PUBACK:
            return self._on_puback()
        if kind == _PUBLISH:
            return self._on_publish()
        if kind == _CONNACK:
            return self._on_connack()
        if kind == _SUBACK:
            return self._on_suback()
        return NOTHING

    def _on_connack(self) -> int:
        flags = self.reader.body[0]
        code = self.reader.body[1]
        if flags or code > 5:
            self.reader.fail("CONNACK with flags %d, code %d on a clean session" % (flags, code))
        if code:
            self.code = code
            self.reason = _REFUSALS[code]
            self.state = ENDED
            return REFUSED
        self.state = UP
        return CONNECTED

    def _on_puback(self) -> int:
        packet_id = self.reader.body[0] << 8 | self.reader.body[1]
        if packet_id == _NO_ID:
            self.reader.fail("PUBACK of packet 0")
        if self.window.acked(packet_id):
            return RELEASED
        self.stray_acks += 1
        return NOTHING

    def _on_suback(self) -> int:
        body = self.reader.body
        if not self._sub_id or body[0] << 8 | body[1] != self._sub_id:
            self.reader.fail("SUBACK of packet %d, which asked for nothing" % (body[0] << 8 | body[1]))
        if self.reader.length != 2 + self._sub_count:
            self.reader.fail("SUBACK for %d topics, asked for %d" % (self.reader.length - 2, self._sub_count))
        self._sub_id = _NO_ID
        event = SUBSCRIBED
        for i in range(2, self.reader.length):
            if body[i] == 128:
                event = DENIED
            elif body[i] > 1:
                self.reader.fail("SUBACK code %d" % body[i])
        return event

    def _on_publish(self) -> int:
        reader = self.reader
        size = reader.body[0] << 8 | reader.body[1]
        at = 2 + size
        end = at + (2 if reader.flags & 2 else 0)
        if not size or end > reader.length:
            reader.fail("PUBLISH with a topic of %d bytes in %d" % (size, reader.length))
        if end > reader.kept:
            reader.fail("PUBLISH with a topic of %d bytes, more than the %d kept" % (size, reader.kept))
        try:
            self.topic = str(bytes(reader.body[2:at]), "utf-8")
        except UnicodeError:
            reader.fail("PUBLISH with a topic that is no UTF-8")
        self._message_id = _NO_ID
        if reader.flags & 2:
            self._message_id = reader.body[at] << 8 | reader.body[at + 1]
            if not self._message_id:
                reader.fail("PUBLISH of QoS 1 with packet 0")
        self._payload_at = end
        return OVERSIZE if reader.length > reader.kept else MESSAGE

    def _clear(self, now_ms: int) -> None:
        self.reader.reset()
        self.out.reset()
        self.window.reset()
        self._sub_id = _NO_ID
        self._sub_count = 0
        self._sub_ms = now_ms
        self._wrote_ms = now_ms
        self._heard_ms = now_ms
        self._ping_ms = now_ms
        self._pinged = False
        self._payload_at = 0
        self._message_id = _NO_ID
