"""A node on virtual parts in virtual time, its link in memory, and a broker of a few lines, written from the standard."""

import numpy as np
from triax import boot
from triax.channel import Channel
from triax.errors import LinkError
from triax.node import Node
from triax.spool import Memory, Spool
from triax_proto import frame
from triax_proto.v1 import device_pb2, event_pb2, frame_pb2
from triax_sim import chips
from triax_sim.wiring import connect
from triax_sim.world import World

from .tape import part_class

CLASSES = {
    "info": device_pb2.DeviceInfo,
    "status": device_pb2.Status,
    "config/ack": device_pb2.ConfigAck,
    "event": event_pb2.Event,
}

DEVICE = 0x0011223344556600
UTC_US = 1_800_000_000_000_000
LINK = {"host": "broker", "port": 1883, "tls": False, "keepalive_s": 20}


class Still:
    """Counts of a part that lies still."""

    def __call__(self, first, count):
        i = np.arange(first, first + count)
        return np.stack([i % 7, -(i % 5), 1000 + i % 3], 1).astype(np.int32)


class Store:
    def __init__(self, data=None):
        self.data = dict(data or {})
        self.broken = False

    def read(self, name):
        return self.data.get(name)

    def write(self, name, data):
        if self.broken:
            raise OSError(28, "no space left on device")
        self.data[name] = bytes(data)


class Clock:
    """The world's time; UTC from a moment on."""

    utc_error_us = 500

    def __init__(self, world):
        self.world = world
        self.ticks_us = world.ticks_us
        self.utc_from_us = 0
        self.step_us = 0

    def utc_us(self):
        return UTC_US + self.world.now_us + self.step_us if self.world.now_us >= self.utc_from_us else None


class Board:
    name = "virtual"

    def __init__(self):
        self.restarts = 0
        self.updates = []
        self.signal = -60

    def restart(self):
        self.restarts += 1

    def update(self, manifest):
        self.updates.append(manifest)

    def free_heap(self):
        return 12345

    def signal_dbm(self):
        return self.signal


class Watchdog:
    fed = 0

    def feed(self):
        self.fed += 1


class Broker:
    """Keeps retained messages and everything published; acknowledges at once unless told not to."""

    def __init__(self):
        self.up = True
        self.answers = True  # False: a half-open connection
        self.acks = True
        self.refuses = 0
        self.username = None
        self.retained = {}
        self.published = []  # (topic, payload, QoS, retain)
        self.connects = []
        self.session = None

    def open(self):
        self.session = Session(self)
        return self.session

    def messages(self, kind, device=DEVICE):
        return [payload for topic, payload, _, _ in self.published if topic == f"triax/v1/{device:016x}/{kind}"]

    def send(self, kind, payload, device=DEVICE, retain=True):
        topic = f"triax/v1/{device:016x}/{kind}"
        if retain:
            self.retained[topic] = payload
        if self.session:
            self.session.deliver(topic, payload)


class Session:
    def __init__(self, broker):
        self.broker = broker
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.topics = set()
        self.will = None
        self.acked = []
        self.packet_id = 0

    def feed(self, data):
        self.inbox += data
        while (packet := self._packet()) is not None:
            if self.broker.answers:
                self._handle(*packet)

    def _packet(self):
        size, shift, at = 0, 0, 1
        while True:
            if at >= len(self.inbox):
                return None
            byte = self.inbox[at]
            size |= (byte & 127) << shift
            shift, at = shift + 7, at + 1
            if byte < 128:
                break
        if len(self.inbox) < at + size:
            return None
        first, body = self.inbox[0], bytes(self.inbox[at : at + size])
        del self.inbox[: at + size]
        return first, body

    def _handle(self, first, body):
        kind = first >> 4
        if kind == 1:
            self._connect(body)
        elif kind == 3:
            self._publish(first, body)
        elif kind == 4:
            self.acked.append(int.from_bytes(body, "big"))
        elif kind == 8:
            self._subscribe(body)
        elif kind == 12:
            self.outbox += b"\xd0\x00"
        elif kind == 14:
            self.will = None
        else:
            raise AssertionError(f"a publisher sent packet {kind}")

    def _connect(self, body):
        assert body[:7] == b"\x00\x04MQTT\x04"
        fields, rest = [], body[10:]
        while rest:
            size = int.from_bytes(rest[:2], "big")
            fields.append(rest[2 : 2 + size])
            rest = rest[2 + size :]
        flags = body[7]
        assert flags & 2
        client_id = fields.pop(0)
        if flags & 4:
            self.will = (fields.pop(0).decode(), fields.pop(0), flags >> 5 & 1)
        username = fields.pop(0).decode() if flags & 128 else None
        code = self.broker.refuses or (4 if self.broker.username not in (None, username) else 0)
        self.broker.connects.append((client_id.decode(), username, code))
        self.outbox += bytes((0x20, 2, 0, code))

    def _publish(self, first, body):
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if first & 6:
            if self.broker.acks:
                self.outbox += b"\x40\x02" + rest[:2]
            rest = rest[2:]
        self.broker.published.append((topic, rest, first >> 1 & 3, first & 1))
        if first & 1:
            self.broker.retained[topic] = rest

    def _subscribe(self, body):
        rest, codes = body[2:], b""
        while rest:
            size = int.from_bytes(rest[:2], "big")
            self.topics.add(rest[2 : 2 + size].decode())
            codes += rest[2 + size : 3 + size]
            rest = rest[3 + size :]
        self.outbox += bytes((0x90, 2 + len(codes))) + body[:2] + codes
        for topic in sorted(self.topics):
            if topic in self.broker.retained:
                self.deliver(topic, self.broker.retained[topic])

    def deliver(self, topic, payload):
        if topic not in self.topics:
            return
        self.packet_id += 1
        rest = len(topic).to_bytes(2, "big") + topic.encode() + self.packet_id.to_bytes(2, "big") + payload
        size, head = len(rest), bytearray()
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        self.outbox += b"\x32" + bytes(head) + bytes([size]) + rest

    def lost(self):
        """The connection broke without DISCONNECT."""
        if self.will:
            topic, payload, retain = self.will
            self.broker.published.append((topic, payload, 1, retain))
            self.broker.retained[topic] = payload
            self.will = None


class Link:
    """A link to one of `brokers`, by host name; `chunk` bytes at most go through at once."""

    blocks = False

    def __init__(self, brokers):
        self.brokers = brokers
        self.session = None
        self.chunk = 10**6
        self.tries = []
        self.pending = False

    def connect(self, host, port, tls):
        self.close()
        self.tries.append(host)
        self.host = host
        return True

    def connected(self):
        broker = self.brokers.get(self.host)
        if broker is None:
            raise LinkError(f"{self.host}: no such host")
        if not broker.up:
            raise LinkError(f"{self.host}: refused")
        self.session = broker.open()
        return True

    def send(self, buffer, count):
        if not self.session.broker.up:
            raise OSError(104, "connection reset")
        count = min(count, self.chunk)
        self.session.feed(bytes(buffer[:count]))
        return count

    def readinto(self, buffer):
        if not self.session.broker.up:
            return 0
        data = self.session.outbox[: min(len(buffer), self.chunk)]
        if not data:
            return None
        buffer[: len(data)] = data
        del self.session.outbox[: len(data)]
        return len(data)

    def close(self):
        if self.session is not None:
            self.session.lost()
            if self.session.broker.session is self.session:
                self.session.broker.session = None
            self.session = None


class Rig:
    """A node with `sensors` parts. `run(ms)` lets virtual time pass in steps as a loop would."""

    def __init__(
        self, sensors=1, part="iis3dwb", store=None, slots=200, spool=None, settings=None, provisioned=True, link=None, **node
    ):
        self.world = World(start_us=2_000_000)
        self.clock = Clock(self.world)
        self.broker = Broker()
        self.link = Link({"broker": self.broker})
        self.board = Board()
        self.watchdog = Watchdog()
        self.store = store or Store()
        if provisioned and not store:
            boot.seed(self.store, 1_700_000_000 + 86400 * 100)
        self.log = []
        self.channels, self.twins = [], []
        for i in range(sensors):
            driver = part_class(part)
            twin = chips.load(part)(self.world, Still())
            _, device = connect(self.world, twin, "spi")
            own = spool or Spool(Memory(slots, frame.wire_size()))
            defaults = {"range_g": driver.RANGES_G[-1], "odr_hz": driver.ODRS_HZ[-1], **(settings or {})}
            self.channels.append(Channel(DEVICE + i, driver(device), own, defaults, raw_sets=200))
            self.twins.append(twin)
        self.node = Node(
            self.channels,
            self.clock,
            self.link,
            self.store,
            {**LINK, **(link or {})},
            self.board,
            "test",
            self.watchdog,
            log=self.log.append,
            random_below=lambda limit: limit // 2,
            **node,
        )

    def start(self):
        self.node.start()
        return self

    def run(self, ms, step_us=12000):
        end = self.world.now_us + ms * 1000
        while self.world.now_us < end and not self.node.stopped:
            self.node.step()
            self.world.advance(step_us)
        return self

    def frames(self, device=DEVICE):
        """Frames as the broker got them, read by Google's parser."""
        return [frame_pb2.Frame.FromString(data) for data in self.broker.messages("frame", device)]

    def last(self, kind, device=DEVICE):
        messages = self.broker.messages(kind, device)
        return CLASSES[kind].FromString(messages[-1]) if messages else None

    def all(self, kind, device=DEVICE):
        return [CLASSES[kind].FromString(data) for data in self.broker.messages(kind, device)]

    def configure(self, version, device=DEVICE, link=None, **fields):
        new = device_pb2.Config(version=version, **fields)
        if link:
            new.link.CopyFrom(device_pb2.Config.Link(**link))
        self.broker.send("config", new.SerializeToString(), device)
