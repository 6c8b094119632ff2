"""A blocking MQTT client on a plain socket, and frames to publish: tests see every byte."""

import itertools
import socket
import time

import numpy as np
from confluent_kafka import Consumer, KafkaError, TopicPartition
from triax_backend import mqtt_wire as wire
from triax_proto import batch, frame, names
from triax_proto.errors import FrameError

TIMEOUT_S = 10.0


def frames(device, first, count, boot=1, seed=0):
    """`count` ordinary frames of one device, uint8 (count, 273), with noise in x, y, z."""
    out = frame.empty(count)
    out["device"], out["boot"], out["sequence"] = device, boot, np.arange(first, first + count)
    rng = np.random.default_rng([seed, device & 0xFFFF, first])
    for axis in "xyz":
        out[axis] = rng.integers(-(2**20), 2**20, (count, 10))
    return frame.encode(out)


class WireClient:
    """CONNECT is sent and answered when it is made; afterwards bytes as the test wants them."""

    def __init__(self, port, client_id="test", *, keepalive_s=60, clean=True, connect=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()
        self._ids = itertools.cycle(range(1, 65_536))
        try:
            self.say(connect or wire.write_connect(client_id, clean=clean, keepalive_s=keepalive_s))
            self.connack = self.hear()
        except BaseException:
            self.close()
            raise

    def say(self, data):
        self.socket.sendall(data)

    def hear(self, timeout_s=TIMEOUT_S):
        """The next packet; None if the peer closed. Raises TimeoutError."""
        self.socket.settimeout(timeout_s)
        while True:
            packet = wire.cut(self._data, 0, 1 << 21)
            if packet is not None:
                del self._data[: packet.size]
                return packet
            try:
                data = self.socket.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._data += data

    def publish(self, topic, payload, qos=1):
        """Send one PUBLISH; its packet id."""
        packet_id = next(self._ids) if qos else 0
        self.say(wire.write_publish(topic, payload, qos=qos, packet_id=packet_id))
        return packet_id

    def frames(self, device, first, count, qos=1, boot=1):
        """Publish ordinary frames in one write; their packet ids."""
        topic = names.mqtt_topic(device, "frame")
        ids = [next(self._ids) if qos else 0 for _ in range(count)]
        rows = zip(frames(device, first, count, boot), ids, strict=True)
        self.say(b"".join(wire.write_publish(topic, row.tobytes(), qos=qos, packet_id=i) for row, i in rows))
        return ids

    def acks(self, count, timeout_s=TIMEOUT_S):
        """Packet ids of the next `count` PUBACKs, in order."""
        out = []
        while len(out) < count:
            packet = self.hear(timeout_s)
            assert packet is not None, f"closed after {len(out)} of {count} PUBACKs"
            assert packet.kind == wire.PUBACK
            out.append(int.from_bytes(packet.body, "big"))
        return out

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()


def topic_records(settings, topic):
    """Every record of a topic so far: (partition, key, value, headers), in the order of each partition."""
    consumer = Consumer({**settings.kafka_config(), "group.id": "test", "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        unread = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, n, 0) for n in unread])
        out, deadline = [], time.monotonic() + 30
        while unread:
            assert time.monotonic() < deadline, f"{topic}: partitions {unread} were not read to their end"
            for message in consumer.consume(500, 0.1):
                if message.error() is None:
                    out.append((message.partition(), message.key(), message.value(), dict(message.headers() or [])))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
        return out
    finally:
        consumer.close()


def kafka_frames(settings, devices):
    """(device, boot, sequence) of every frame of `devices` in Kafka, repeats included; each must be in its partition. What others
    have put there that is no frame is left out."""
    found = []
    for partition, _key, value, _headers in topic_records(settings, names.FRAMES):
        try:
            rows = [frame.parse(data)[0] for data in batch.split(value)]
        except FrameError:
            continue
        for row in rows:
            device = int(row["device"])
            if device in devices:
                assert partition == names.partition(device, 16)
                found.append((device, int(row["boot"]), int(row["sequence"])))
    return found


def dead_letters(settings, device):
    """(cause, stage, payload) of the dead letters whose topic names `device`."""
    text = f"/{device:016x}/".encode()
    return [
        (headers["cause"].decode(), headers["stage"].decode(), value)
        for _, _, value, headers in topic_records(settings, names.DEADLETTER)
        if text in headers["source"]
    ]
