"""The ingest front with real clients and a real Kafka: what it acknowledges is there, and nobody can block it."""

import contextlib
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import paho.mqtt.client as paho
import pytest
from confluent_kafka import Producer
from triax_backend import mqtt_wire as wire
from triax_backend.ingest.hold import Limits
from triax_backend.servers.ports import free_port
from triax_backend.supervise import Supervisor
from triax_proto import names

from .front_thread import running_front
from .wire_client import WireClient, dead_letters, frames, kafka_frames, topic_records

pytestmark = [pytest.mark.servers, pytest.mark.timeout(90)]


def _until(true, timeout_s=30.0, what="it"):
    deadline = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def front(stack):
    with running_front(stack.settings) as running:
        yield running


def _status(stack, device):
    """Values under the device's status key, in order."""
    key = f"{device:016x}/status".encode()
    return [value for _, found, value, _ in topic_records(stack.settings, names.DEVICES) if found == key]


@pytest.mark.parametrize("qos", [0, 1])
def test_paho_publishes_everything_a_node_does(stack, front, qos):
    device = 0xC0_00 + qos
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"paho-{qos}")
    client.connect("127.0.0.1", front[0])
    client.loop_start()
    sent = [client.publish(names.mqtt_topic(device, "frame"), row.tobytes(), qos=qos) for row in frames(device, 0, 50)]
    sent += [client.publish(names.mqtt_topic(device, kind), kind.encode(), qos=1) for kind in ("info", "event", "raw")]
    for message in sent:
        message.wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
    _until(lambda: len(kafka_frames(stack.settings, {device})) == 50)
    assert kafka_frames(stack.settings, {device}) == [(device, 1, n) for n in range(50)]
    assert [v for _, k, v, _ in topic_records(stack.settings, names.DEVICES) if k == f"{device:016x}/info".encode()] == [b"info"]
    assert [v for _, k, v, _ in topic_records(stack.settings, names.EVENTS) if k == f"{device:016x}".encode()] == [b"event"]


@pytest.mark.skipif(
    shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed: apt-get install mosquitto-clients"
)
def test_mosquitto_pub_and_sub(stack, front):
    device = 0xC1_01
    where = ["-h", "127.0.0.1", "-p", str(front[0]), "-q", "1"]
    frame = frames(device, 0, 1)[0].tobytes()
    subprocess.run(["mosquitto_pub", *where, "-t", names.mqtt_topic(device, "frame"), "-s"], input=frame, check=True, timeout=20)
    assert kafka_frames(stack.settings, {device}) == [(device, 1, 0)]
    topic = names.mqtt_topic(device, "config")
    subprocess.run(["mosquitto_pub", *where, "-t", topic, "-r", "-m", "as told"], check=True, timeout=20)
    _until(lambda: front[1].downlink.get(f"{device:016x}/config"))
    heard = subprocess.run(
        ["mosquitto_sub", *where, "-t", topic, "-C", "1", "-W", "10"], capture_output=True, check=True, timeout=20
    )
    assert heard.stdout == b"as told\n"


def test_acknowledged_in_order_and_only_when_in_kafka(stack, front):
    device = 0xC2_01
    with WireClient(front[0], "order") as node:
        first = node.frames(device, 0, 20)
        assert node.acks(20) == first
        stack["kafka"].pause()
        try:
            later = node.frames(device, 20, 20)
            node.say(wire.pingreq)
            assert node.hear().kind == wire.PINGRESP
            with pytest.raises(TimeoutError):
                node.hear(0.5)
        finally:
            stack["kafka"].resume()
        assert node.acks(20) == later
    assert kafka_frames(stack.settings, {device}) == [(device, 1, n) for n in range(40)]


def test_bytes_may_come_one_by_one(stack, front):
    device = 0xC3_01
    topic = names.mqtt_topic(device, "frame")
    data = wire.write_connect("slow", clean=True, keepalive_s=60)
    with socket.create_connection(("127.0.0.1", front[0]), timeout=10) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rows = frames(device, 0, 3)
        data += b"".join(wire.write_publish(topic, row.tobytes(), qos=1, packet_id=n + 1) for n, row in enumerate(rows))
        for at in range(400):
            link.sendall(data[at : at + 1])
        link.sendall(data[400:])
        got = b""
        while len(got) < 16:
            got += link.recv(100)
    assert got == wire.write_connack(0) + wire.puback(1) + wire.puback(2) + wire.puback(3)
    assert kafka_frames(stack.settings, {device}) == [(device, 1, n) for n in range(3)]


def test_poison_is_a_dead_letter_and_is_acknowledged(stack, front):
    device = 0xC4_01
    topic = names.mqtt_topic(device, "frame")
    flipped = bytearray(frames(device, 1, 1)[0].tobytes())
    flipped[100] ^= 1
    with WireClient(front[0], "poison") as node:
        ids = [node.publish(topic, data) for data in (bytes(flipped), frames(0xC4_FF, 0, 1)[0].tobytes(), b"nothing")]
        ids.append(node.publish(f"other/{device:016x}/topic", b"lost"))
        ids += node.frames(device, 2, 2)
        assert node.acks(6) == ids
    assert kafka_frames(stack.settings, {device}) == [(device, 1, 2), (device, 1, 3)]
    causes = sorted(cause for cause, stage, _ in dead_letters(stack.settings, device) if stage == "ingest")
    assert causes == ["checksum", "not a frame", "topic of another device", "unknown topic"]


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x", b"\x20\x03\x00\x84\x00"),
        (b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01x"[:-1] + b"x", b"\x20\x02\x00\x01"),
        (b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", b"\x20\x02\x00\x02"),
        (wire.pingreq, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"\x10\xff\xff\xff\x7f", b""),
        (b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01x", b""),
        (wire.write_connect("x" * 5_000, clean=True, keepalive_s=60), b""),
    ],
    ids=["mqtt5", "mqtt31", "no-id", "ping-first", "http", "huge", "reserved-flag", "long-id"],
)
def test_who_speaks_wrong_is_closed_with_the_code_of_its_protocol(front, data, reply):
    with socket.create_connection(("127.0.0.1", front[0]), timeout=10) as link:
        link.sendall(data)
        got = b""
        try:
            while more := link.recv(100):
                got += more
        except ConnectionResetError:
            pass
    assert got == reply


@pytest.mark.parametrize(
    "data",
    [
        wire.write_publish("a/b", b"", qos=2, packet_id=1),
        wire.write_publish("triax/v1/+/frame", b"", qos=0),
        b"\x32\x05\x00\x01a\x00\x00",
        b"\x36\x05\x00\x01a\x00\x01",
        b"\xf0\x00",
        b"\x30" + b"\xff\xff\x7f",
        wire.write_connect("again", clean=True, keepalive_s=1),
        wire.write_connack(0),
        wire.disconnect,
    ],
    ids=["qos2", "wildcard", "id0", "qos3", "reserved", "oversize", "second-connect", "connack", "disconnect"],
)
def test_an_accepted_client_that_breaks_the_protocol_is_closed(front, data):
    with WireClient(front[0], "breaker") as node:
        assert node.connack.body == b"\x00\x00"
        node.say(data)
        assert node.hear() is None


def test_who_does_not_go_on_is_closed(stack, monkeypatch):
    """No CONNECT, a packet that is begun and not ended (a byte now and then keeps nobody alive), replies that are not read."""
    monkeypatch.setattr("triax_backend.ingest.clients._CONNECT_S", 0.5)
    monkeypatch.setattr("triax_backend.ingest.clients._PARTIAL_S", 1.0)
    topic = names.mqtt_topic(0xC5_00, "calibration")
    with running_front(stack.settings) as (port, front):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
            assert silent.recv(1) == b""
        with WireClient(port, "half") as node:
            node.say(b"\x32\xb4\x02")
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    time.sleep(0.1)
                    node.say(b"\x00")
                pytest.fail("a slow writer was kept")
        with WireClient(port, "deaf") as node:
            node.say(wire.write_publish(topic, bytes(4_000), qos=1, packet_id=1, retain=True))
            node.acks(1)
            _until(lambda: front.downlink.get(topic.split("/", 2)[2]))
            node.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            with contextlib.suppress(ConnectionError):
                for n in range(20_000):
                    node.say(wire.write_subscribe(n % 60_000 + 1, [(topic, 0)]))
                pytest.fail("a client that does not read was kept")
        _until(lambda: not front.clients.by_fd, what="closing")


def test_others_are_served_while_many_are_hostile(stack, front):
    device = 0xC5_01
    half = wire.write_connect("half", clean=True, keepalive_s=60)[:7]
    hostile = [socket.create_connection(("127.0.0.1", front[0]), timeout=10) for _ in range(100)]
    try:
        for n, link in enumerate(hostile):
            link.sendall(half if n % 2 else b"\xff" * 50)
        with WireClient(front[0], "good") as node:
            ids = node.frames(device, 0, 50)
            assert node.acks(50) == ids
    finally:
        for link in hostile:
            link.close()


def test_a_second_connection_of_a_client_takes_over(front):
    with WireClient(front[0], "twin") as first, WireClient(front[0], "twin") as second:
        assert first.hear() is None
        second.say(wire.pingreq)
        assert second.hear().kind == wire.PINGRESP


def _will_connect(client, device, keepalive_s=60, kind="status"):
    topic, text = names.mqtt_topic(device, kind).encode(), client.encode()
    body = b"\x00\x04MQTT\x04\x26" + keepalive_s.to_bytes(2, "big")
    for part in (text, topic, b"lost"):
        body += len(part).to_bytes(2, "big") + part
    return bytes([0x10, len(body)]) + body


def test_a_lost_connection_leaves_its_will_and_a_proper_end_does_not(stack, front):
    lost, ended, silent = 0xC6_01, 0xC6_02, 0xC6_03
    for device in (lost, ended):
        with WireClient(front[0], connect=_will_connect(f"will-{device}", device)) as node:
            node.publish(names.mqtt_topic(device, "status"), b"online")
            node.acks(1)
            if device == ended:
                node.say(wire.disconnect)
                assert node.hear() is None
    with WireClient(front[0], connect=_will_connect("silent", silent, keepalive_s=1)) as node:
        start = time.monotonic()
        assert node.hear() is None
        assert 1.4 < time.monotonic() - start < 10
    _until(lambda: _status(stack, silent) == [b"lost"] and _status(stack, lost) == [b"online", b"lost"], what="the wills")
    assert _status(stack, ended) == [b"online"]


def test_a_will_for_another_topic_is_refused(front):
    with WireClient(front[0], connect=_will_connect("bad-will", 0xC6_09, kind="frame")) as node:
        assert node.connack.body == b"\x00\x05"
        assert node.hear() is None


def test_a_node_that_moved_to_another_front_is_not_declared_lost(stack, front):
    device = 0xC7_01
    with running_front(stack.settings) as (other_port, _other):
        old = WireClient(front[0], connect=_will_connect("mover", device))
        old.publish(names.mqtt_topic(device, "status"), b"here")
        old.acks(1)
        with WireClient(other_port, connect=_will_connect("mover", device)) as new:
            new.publish(names.mqtt_topic(device, "status"), b"there")
            new.acks(1)
            connection = next(one for one in front[1].clients.by_fd.values() if one.client_id == "mover")
            _until(lambda: front[1].downlink.moved(f"{device:016x}", connection.connected_id), what="news of the move")
            old.close()
            _until(lambda: connection.link is None, what="the loss")
            new.say(wire.disconnect)
            assert new.hear() is None
    assert _status(stack, device) == [b"here", b"there"]


def test_configuration_is_told_at_once_and_when_it_changes(stack, front):
    device = 0xC8_01
    text = f"{device:016x}"
    topics = [names.mqtt_topic(device, kind) for kind in ("config", "calibration")]
    producer = Producer(stack.settings.kafka_config())
    producer.produce(names.CONFIG, b"version 1", f"{text}/config", names.partition(device, 16))
    producer.flush(10)
    _until(lambda: front[1].downlink.get(f"{text}/config") == b"version 1")
    with WireClient(front[0], "told") as node:
        node.say(wire.write_subscribe(9, [(topics[0], 1), (topics[1], 1), ("triax/v1/+/frame", 0), ("#", 0)]))
        assert node.hear().body == b"\x00\x09\x00\x00\x80\x80"
        assert node.hear() == wire.cut(wire.write_publish(topics[0], b"version 1", retain=True), 0, 1_000)
        producer.produce(names.CONFIG, b"cal", f"{text}/calibration", names.partition(device, 16))
        producer.flush(10)
        assert node.hear() == wire.cut(wire.write_publish(topics[1], b"cal"), 0, 1_000)
        node.say(b"\xa2" + bytes([4 + len(topics[0])]) + b"\x00\x0a" + len(topics[0]).to_bytes(2, "big") + topics[0].encode())
        assert node.hear().kind == wire.UNSUBACK
    with WireClient(front[0], "operator") as operator, WireClient(front[0], "told") as node:
        node.say(wire.write_subscribe(9, [(topics[0], 1)]))
        assert [node.hear().kind for _ in range(2)] == [wire.SUBACK, wire.PUBLISH]
        operator.publish(topics[0], b"measure once")
        operator.acks(1)
        assert node.hear() == wire.cut(wire.write_publish(topics[0], b"measure once"), 0, 1_000)
        assert front[1].downlink.get(f"{text}/config") == b"version 1"
        operator.say(wire.write_publish(topics[0], b"", qos=1, packet_id=7, retain=True))
        operator.acks(1)
        assert node.hear() == wire.cut(wire.write_publish(topics[0], b""), 0, 1_000)
        assert front[1].downlink.get(f"{text}/config") is None


def test_a_full_front_takes_nothing_answers_pings_and_refuses_newcomers(stack):
    device = 0xC9_01
    with running_front(stack.settings, limits=Limits(messages=1_000)) as (port, front), WireClient(port, "eager") as node:
        stack["kafka"].pause()
        try:
            ids = []
            while not front.busy:
                ids += node.frames(device, len(ids), 100)
                time.sleep(0.05)
            ids += node.frames(device, len(ids), 60)
            node.say(wire.pingreq)
            assert node.hear().kind == wire.PINGRESP
            assert front.out.in_flight <= 1_000 + 65_536 // 311
            with WireClient(port, "newcomer") as newcomer:
                assert newcomer.connack.body == b"\x00\x03"
            ids += node.frames(device, len(ids), 500)
        finally:
            stack["kafka"].resume()
        assert node.acks(len(ids)) == ids
        node.say(wire.pingreq)
        assert node.hear().kind == wire.PINGRESP
        with pytest.raises(TimeoutError):
            node.hear(0.3)
    assert sorted(kafka_frames(stack.settings, {device})) == [(device, 1, n) for n in range(len(ids))]


def test_one_client_cannot_take_the_room_of_all(stack):
    device = 0xCA_01
    with running_front(stack.settings, limits=Limits(client_messages=300)) as (port, front), WireClient(port, "greedy") as node:
        stack["kafka"].pause()
        try:
            ids = []
            for _ in range(20):
                ids += node.frames(device, len(ids), 100)
                time.sleep(0.06)
            assert front.out.in_flight <= 300 + 65_536 // 311
            with WireClient(port, "modest") as modest:
                assert modest.connack.body == b"\x00\x00"
        finally:
            stack["kafka"].resume()
        assert node.acks(len(ids)) == ids


def test_more_clients_than_allowed_are_turned_away(stack):
    with contextlib.ExitStack() as close, running_front(stack.settings, limits=Limits(clients=3)) as (port, _front):

        def connect(name):
            return close.enter_context(contextlib.closing(WireClient(port, name)))

        first = [connect(f"c{n}") for n in range(3)]
        assert all(one.connack is not None for one in first)
        assert connect("fourth").connack is None
        first[0].say(wire.disconnect)
        assert first[0].hear() is None
        assert connect("fifth").connack.body == b"\x00\x00"


def test_processes_share_a_port_and_drain(stack, tmp_path):
    """Frames go in through two processes; SIGTERM delivers what was taken."""
    port, metrics = free_port(), free_port(1)
    devices = [0xCB_00 + n for n in range(40)]
    with contextlib.ExitStack() as close, Supervisor(stack.settings, tmp_path) as supervisor:
        more = ["--directory", str(tmp_path), "--metrics-port", str(metrics)]
        supervisor.run("ingest", "--host", "127.0.0.1", "--port", str(port), "--processes", "2", *more)

        def counts():
            """Clients that each process has accepted; none before both serve."""
            found = []
            for n in (0, 1):
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(f"http://127.0.0.1:{metrics + n}/metrics", timeout=2) as page,
                ):
                    found += re.findall(r"^triax_clients_accepted_total (\S+)$", page.read().decode(), re.MULTILINE)
            return [float(one) for one in found] if len(found) == 2 else None

        _until(counts, what="both processes")
        _until(
            lambda: all(b"identity none" in (tmp_path / "logs" / f"ingest-{n}.log").read_bytes() for n in (0, 1)), what="listening"
        )
        nodes = [close.enter_context(WireClient(port, f"node-{device}")) for device in devices]
        for device, node in zip(devices, nodes, strict=True):
            ids = node.frames(device, 0, 10)
            assert node.acks(10) == ids
        assert min(counts()) > 0
        for device, node in zip(devices, nodes, strict=True):
            node.frames(device, 10, 10)
        time.sleep(0.3)
        assert supervisor.stop() == {"ingest": 0}
        assert all(node.acks(10) for node in nodes)
        assert all(node.hear() is None for node in nodes)
    want = sorted((device, 1, n) for device in devices for n in range(20))
    assert sorted(kafka_frames(stack.settings, set(devices))) == want
