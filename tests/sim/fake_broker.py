"""A broker for tests of the generator: does what it is told, keeps what it was sent."""

import selectors
import socket
import threading
import time

from triax_sim.packet import cut


class FakeBroker(threading.Thread):
    """Accepts MQTT connections on 127.0.0.1 and acknowledges QoS 1, unless `mute` (no PUBACK), `deaf` (reads nothing) or `refuse`.

    `frames`: (client, payload, packet id, DUP) of every PUBLISH on a frame topic, in order of arrival.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.frames = []
        self.births = 0
        self.pings = 0
        self.connects = []
        self.mute = self.deaf = self.refuse = False
        self.max_open = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._links = {}
        self._end = False
        self._cut = threading.Event()

    def run(self):
        while not self._end:
            if self._cut.is_set():
                self._cut.clear()
                for link in list(self._links):
                    self._close(link)
            if self.deaf:
                time.sleep(0.005)
                continue
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.fileobj)

    def _accept(self):
        link, _ = self._listener.accept()
        if self.refuse:
            link.close()
            return
        link.setblocking(False)
        self._links[link] = ["", b""]
        self.max_open = max(self.max_open, len(self._links))
        self._selector.register(link, selectors.EVENT_READ)

    def _close(self, link):
        self._selector.unregister(link)
        del self._links[link]
        link.close()

    def _serve(self, link):
        state = self._links[link]
        try:
            data = link.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._close(link)
            return
        state[1] += data
        at = 0
        for first, body, after in cut(state[1]):
            at = after
            self._packet(link, state, first, body)
        state[1] = state[1][at:]

    def _packet(self, link, state, first, body):
        kind = first & 0xF0
        if kind == 0x10:
            size = int.from_bytes(body[10:12], "big")
            state[0] = body[12 : 12 + size].decode()
            self.connects.append((time.time(), state[0], body))
            link.send(b"\x20\x02\x00\x00")
        elif kind == 0x30:
            size = int.from_bytes(body[:2], "big")
            topic, rest = body[2 : 2 + size], body[2 + size :]
            number = 0
            if first & 0x06:
                number, rest = int.from_bytes(rest[:2], "big"), rest[2:]
            if topic.endswith(b"/frame"):
                self.frames.append((state[0], rest, number, bool(first & 8)))
            else:
                self.births += 1
            if number and not self.mute:
                link.send(b"\x40\x02" + number.to_bytes(2, "big"))
        elif kind == 0xC0:
            self.pings += 1
            if not self.mute:
                link.send(b"\xd0\x00")

    def settled(self):
        """Wait until nothing more comes: at QoS 0 the sender is done before we are."""
        deadline, seen = time.monotonic() + 5, -1
        while len(self.frames) != seen and time.monotonic() < deadline:
            seen = len(self.frames)
            time.sleep(0.15)
        return self

    def cut_all(self):
        """Close every connection."""
        self._cut.set()

    def stop(self):
        self._end = True
        self.join(5)
        for link in list(self._links):
            self._close(link)
        self._listener.close()
        self._selector.close()
