"""What the channels of a node have to say, in the order in which it is said.

Documents first (a birth message goes before the frames that it describes), then events, then frames, then raw frames: each kind
of all channels in turn, so that no channel starves another. Who published what comes back with its release as `owner`: channel *
8 + kind.
"""

from triax.spool import NONE, Spool

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


_CLEAN = const(0)
_DIRTY = const(1)
_SENT = const(2)


class Document:
    """A value of which only the last is worth sending. `encode(channel)` gives its bytes, None: nothing to say."""

    def __init__(self, topic: bytes, encode, retain: int) -> None:
        self.topic = topic
        self.encode = encode
        self.retain = retain
        self.arrived = None  # called when it has
        self.token = 0
        self._state = _CLEAN

    def touch(self) -> None:
        """The value has changed."""
        self.token = self.token + 1 & 0xFFFF
        self._state = _DIRTY

    def waits(self) -> bool:
        """Is there something to send?"""
        return self._state == _DIRTY

    def took(self) -> None:
        """It is on its way."""
        self._state = _SENT

    def skip(self) -> None:
        """There is nothing to say after all."""
        self._state = _CLEAN

    def release(self, token: int) -> None:
        """It has arrived; a newer value has not."""
        if token == self.token and self._state == _SENT:
            self._state = _CLEAN
            if self.arrived is not None:
                self.arrived()

    def reconnected(self) -> None:
        """A new connection: what did not arrive, and what every connection begins with, is sent again."""
        if self._state == _SENT or self.retain:
            self._state = _DIRTY


class Outlet:
    """A topic with a spool."""

    def __init__(self, topic: bytes, spool: Spool) -> None:
        self.topic = topic
        self.spool = spool


_OUTLETS = const(3)  # owners below this are outlets, from it on documents


class Outbox:
    """Publishes what waits in the channels' outlets and documents."""

    def __init__(self, channels: list, core) -> None:
        self._channels = channels
        self._core = core
        self._turn = 0

    def publish(self, now_ms: int) -> None:
        """Write as much as the window and the buffer take."""
        channels = self._channels
        count = len(channels)
        self._turn = (self._turn + 1) % count
        for i in range(count):
            index = (i + self._turn) % count
            documents = channels[index].documents
            for k in range(len(documents)):
                if documents[k].waits() and not self._publish_document(channels[index], k, index << 3 | _OUTLETS + k, now_ms):
                    return
        for k in range(_OUTLETS):
            for i in range(count):
                index = (i + self._turn) % count
                if k < len(channels[index].outlets) and not self._publish_outlet(channels[index], k, index << 3 | k, now_ms):
                    return

    def released(self, owner: int, token: int) -> bool:
        """A message has left. True: it was a document, so the broker has acknowledged it."""
        channel = self._channels[owner >> 3]
        kind = owner & 7
        if kind < _OUTLETS:
            channel.outlets[kind].spool.release(token)
            return False
        channel.documents[kind - _OUTLETS].release(token)
        return True

    def reconnected(self) -> None:
        """A new connection: what was in flight waits again."""
        for channel in self._channels:
            for outlet in channel.outlets:
                outlet.spool.reconnected()
            for document in channel.documents:
                document.reconnected()

    def _publish_document(self, channel, k: int, owner: int, now_ms: int) -> bool:
        document = channel.documents[k]
        data = document.encode(channel)
        if data is None:
            document.skip()
            return True
        done = self._core.publish(document.topic, data, 0, len(data), 1, owner, document.token, now_ms, document.retain)
        if done:
            document.took()
        return done

    def _publish_outlet(self, channel, k: int, owner: int, now_ms: int) -> bool:
        outlet = channel.outlets[k]
        spool = outlet.spool
        storage = spool.storage
        qos = channel.configuration.values["qos"] if outlet is channel.frames else 1
        while True:
            token = spool.next(now_ms)
            if token == NONE:
                return True
            if not spool.read(token):
                continue
            if not self._core.publish(outlet.topic, storage.buffer, storage.start, storage.length, qos, owner, token, now_ms):
                return False
            spool.took(token)
