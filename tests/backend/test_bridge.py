"""The bridge between a broker and Kafka: nothing acknowledged that Kafka has not, nothing lost when anything dies."""

import re
import socket
import threading
import time
import urllib.request

import pytest
from triax_backend import mqtt_wire as wire
from triax_backend.bridge import Bridge
from triax_backend.metrics import Account
from triax_backend.mqtt_link import Address
from triax_backend.preflight import PROBES, Limits, measure, report
from triax_backend.servers import Mosquitto
from triax_backend.servers.ports import free_port
from triax_backend.settings import BadUrl, Settings
from triax_backend.stack import Stack
from triax_backend.subscription import TOPICS
from triax_backend.supervise import Supervisor
from triax_proto import names

from .wire_client import WireClient, dead_letters, frames, kafka_frames, topic_records

pytestmark = pytest.mark.timeout(90)


def _until(true, timeout_s=30.0, what="it"):
    deadline = time.monotonic() + timeout_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout_s} s"
        time.sleep(0.02)
    return value


def _metric(port, name):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.MULTILINE))
    except OSError:
        return -1.0


@pytest.fixture
def bridge(stack, tmp_path, request):
    """A running bridge process; its metrics port."""
    port = free_port()
    client = re.sub(r"\W", "-", request.node.name)
    with Supervisor(stack.settings, tmp_path) as supervisor:
        worker = supervisor.run("bridge", "--metrics-port", str(port), "--client-id", client, "--no-preflight")
        _until(lambda: _metric(port, "triax_subscribed") == 1, what="subscription")
        yield supervisor, worker, port


def _publisher(stack):
    return WireClient(stack["mqtt"].port, f"publisher-{time.monotonic_ns()}")


@pytest.mark.servers
def test_every_topic_of_a_node_finds_its_place(stack, bridge):
    supervisor, _worker, port = bridge
    device, other = 0xB0_01, 0xB0_02
    with _publisher(stack) as node:
        node.frames(device, 0, 30)
        node.frames(other, 0, 5, qos=0)
        for kind in ("info", "status", "config/ack", "event", "raw"):
            node.publish(names.mqtt_topic(device, kind), kind.encode())
        node.acks(35)
    _until(lambda: _metric(port, "triax_frames_out_total") >= 40, what="delivery")
    assert sorted(kafka_frames(stack.settings, {device})) == [(device, 1, n) for n in range(30)]
    assert sorted(kafka_frames(stack.settings, {other})) == [(other, 1, n) for n in range(5)]
    place = names.partition(device, 16)
    text = f"{device:016x}"
    for topic, keys in (
        (names.DEVICES, {f"{text}/{kind}": kind.encode() for kind in ("info", "status", "config/ack")}),
        (names.EVENTS, {text: b"event"}),
        (names.RAW, {text: b"raw"}),
    ):
        found = {k.decode(): (p, v) for p, k, v, _ in topic_records(stack.settings, topic) if (k or b"").startswith(text.encode())}
        assert found == {key: (place, value) for key, value in keys.items()}
    assert supervisor.stop() == {"bridge": 0}


@pytest.mark.servers
def test_poison_goes_to_the_dead_letters_and_holds_nothing_up(stack, bridge):
    _supervisor, _worker, port = bridge
    device = 0xB1_01
    topic = names.mqtt_topic(device, "frame")
    flipped = bytearray(frames(device, 1, 1)[0].tobytes())
    flipped[200] ^= 4
    liar = frames(0xB1_FF, 0, 1)[0].tobytes()
    with _publisher(stack) as node:
        node.frames(device, 0, 1)
        for payload in (bytes(flipped), liar, b"no frame", b""):
            node.publish(topic, payload)
        node.publish(names.mqtt_topic(device, "raw"), b"R" * 999_000)
        node.frames(device, 2, 3)
        node.acks(9)
    _until(lambda: _metric(port, "triax_frames_out_total") + _metric(port, "triax_frames_dead_total") >= 9, what="delivery")
    assert sorted(kafka_frames(stack.settings, {device})) == [(device, 1, n) for n in (0, 2, 3, 4)]
    found = dead_letters(stack.settings, device)
    assert sorted((cause, stage, len(data)) for cause, stage, data in found) == [
        ("checksum", "bridge", 273),
        ("not a frame", "bridge", 0),
        ("not a frame", "bridge", 8),
        ("too large", "bridge", 64_000),
        ("topic of another device", "bridge", 273),
    ]
    assert bytes(flipped) in [data for _, _, data in found]
    assert _metric(port, "triax_frames_in_flight") == 0


@pytest.mark.servers
def test_a_killed_bridge_loses_nothing(stack, bridge):
    """SIGKILL with messages taken and not in Kafka: they were not acknowledged, so the broker sends them again."""
    supervisor, worker, port = bridge
    devices = [0xB2_00 + n for n in range(20)]
    with _publisher(stack) as node:
        for n in range(100):
            for device in devices:
                node.frames(device, n, 1)
            if n == 50:
                stack["kafka"].pause()
                flight = _until(lambda: max(0.0, _metric(port, "triax_frames_in_flight")), what="a frame in flight")
                supervisor.kill("bridge")
                _until(lambda: worker.restarts == 1, what="restart")
                stack["kafka"].resume()
        node.acks(2_000)
    assert flight > 0
    want = {(device, 1, n) for device in devices for n in range(100)}
    found = _until(lambda: (got := kafka_frames(stack.settings, devices)) and set(got) >= want and got, what="all frames in Kafka")
    assert set(found) == want
    assert supervisor.stop() == {"bridge": 0}


@pytest.mark.servers
def test_kafka_may_die_in_the_middle_or_be_down_at_start(stack, bridge):
    """One bridge holds frames when Kafka dies, another starts while it is dead: both deliver when it is back."""
    supervisor, worker, port = bridge
    device, late_port = 0xB3_01, free_port()
    with _publisher(stack) as node:
        node.frames(device, 0, 100)
        node.acks(100)
        _until(lambda: _metric(port, "triax_frames_out_total") >= 100, what="delivery")
        stack["kafka"].kill()
        try:
            node.frames(device, 100, 100)
            node.acks(100)
            _until(lambda: _metric(port, "triax_frames_in_flight") >= 100, what="frames in flight")
            late = supervisor.run("bridge", "--metrics-port", str(late_port), "--client-id", "late", "--no-preflight", name="late")
            _until(lambda: "Kafka does not answer" in late.log.read_text(), what="a word about Kafka")
        finally:
            stack.restart("kafka")
        _until(lambda: _metric(port, "triax_frames_out_total") >= 200, what="delivery after Kafka came back")
        _until(lambda: _metric(late_port, "triax_subscribed") == 1, what="the late one's subscription")
        node.frames(device, 200, 100)
        node.acks(100)
    _until(lambda: _metric(late_port, "triax_frames_out_total") >= 100, what="delivery by the late one")
    everything = {(device, 1, n) for n in range(300)}
    _until(lambda: set(kafka_frames(stack.settings, {device})) == everything, what="delivery")
    assert worker.restarts == late.restarts == 0
    assert supervisor.stop() == {"bridge": 0, "late": 0}


@pytest.mark.servers
def test_a_broker_may_go_and_come_back(stack, tmp_path):
    device = 0xB3_02
    with Stack(tmp_path, only=["mqtt"], external={"kafka": stack.settings.kafka}) as own:
        port = free_port()
        worker = own.supervisor.run("bridge", "--metrics-port", str(port), "--no-preflight")
        _until(lambda: _metric(port, "triax_subscribed") == 1, what="subscription")
        own["mqtt"].stop()
        _until(lambda: re.search(r"mqtt://\S+: .*; again in", worker.log.read_text()), what="a word about the broker")
        own.restart("mqtt")
        with _publisher(own) as node:  # the session was stored: nothing is lost, even before the bridge is back
            node.frames(device, 0, 100)
            node.acks(100)
        _until(lambda: len(set(kafka_frames(stack.settings, {device}))) == 100, what="all frames in Kafka")
        assert worker.restarts == 0


class _Broker:
    """A broker of one connection at a time whose every byte the test sends and sees."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def accept(self):
        self._listener.settimeout(15)
        self.link, _ = self._listener.accept()
        self.link.settimeout(15)
        self.data = bytearray()
        assert self.hear().kind == wire.CONNECT
        self.link.sendall(wire.write_connack(0, session=True))
        assert self.hear().kind == wire.SUBSCRIBE
        self.link.sendall(wire.write_suback(1, [1] * len(TOPICS) + [0]))

    def hear(self, timeout_s=15.0):
        self.link.settimeout(timeout_s)
        while (packet := wire.cut(self.data, 0, 1 << 20)) is None:
            data = self.link.recv(65_536)
            assert data, "the bridge closed"
            self.data += data
        del self.data[: packet.size]
        return packet

    def send(self, device, first, packet_ids):
        topic = names.mqtt_topic(device, "frame")
        rows = zip(frames(device, first, len(packet_ids)), packet_ids, strict=True)
        self.link.sendall(b"".join(wire.write_publish(topic, row.tobytes(), qos=1, packet_id=n) for row, n in rows))

    def close(self):
        self.link.close()
        self._listener.close()


@pytest.fixture
def broker(stack):
    """A fake broker and the bridge that talks to it, in this process."""
    fake = _Broker()
    account = Account("bridge")
    running = Bridge(Settings(mqtt=f"mqtt://127.0.0.1:{fake.port}", kafka=stack.settings.kafka), account, "fake", window=500)
    thread = threading.Thread(target=running.run)
    thread.start()
    fake.accept()
    yield fake, account, running
    running.stop()
    thread.join(30)
    assert not thread.is_alive()
    fake.close()


@pytest.mark.servers
def test_acknowledgements_keep_the_order_of_receipt(broker):
    fake, _account, _bridge = broker
    for n in range(60):
        fake.send(0xB4_00 + n, 0, range(1 + 5 * n, 6 + 5 * n))
    assert [int.from_bytes(fake.hear().body, "big") for _ in range(300)] == list(range(1, 301))


@pytest.mark.servers
def test_no_acknowledgement_before_kafka_has_it_and_none_on_another_connection(stack, broker):
    fake, account, _bridge = broker
    fake.send(0xB5_01, 0, range(1, 11))
    for _ in range(10):
        fake.hear()
    stack["kafka"].pause()
    try:
        fake.send(0xB5_01, 10, range(11, 21))
        _until(lambda: account.in_flight == 10)
        with pytest.raises(TimeoutError):
            fake.hear(0.5)
        fake.link.close()
        fake.accept()
    finally:
        stack["kafka"].resume()
    _until(lambda: account.in_flight == 0)
    with pytest.raises(TimeoutError):
        fake.hear(0.5)
    fake.send(0xB5_01, 10, range(3, 8))
    assert [int.from_bytes(fake.hear().body, "big") for _ in range(5)] == [3, 4, 5, 6, 7]
    assert account.totals["in"] == account.totals["out"] == 25


@pytest.mark.servers
def test_a_full_window_stops_the_reading(stack, broker):
    fake, account, running = broker
    stack["kafka"].pause()
    try:
        sender = threading.Thread(target=fake.send, args=(0xB6_01, 0, [n % 65_535 + 1 for n in range(20_000)]))
        sender.start()
        _until(lambda: account.in_flight >= running.window)
        time.sleep(0.5)
        # One read more than the window at most, however much the broker sends.
        assert account.in_flight <= running.window + 65_536 // 311 + 1
    finally:
        stack["kafka"].resume()
    acks = [int.from_bytes(fake.hear().body, "big") for _ in range(20_000)]
    sender.join(10)
    assert acks == list(range(1, 20_001))


class _PlainMosquitto(Mosquitto):
    """As Debian starts it."""

    def prepare(self):
        super().prepare()
        (self.data / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\nlog_dest stdout\n"
        )


@pytest.mark.servers
def test_preflight_tells_what_a_broker_will_drop(stack, tmp_path):
    assert measure(Address.of(stack.settings.mqtt)) == Limits(PROBES, PROBES)
    plain = _PlainMosquitto(tmp_path)
    plain.start()
    try:
        limits = measure(Address.of(plain.url))
    finally:
        plain.stop()
    assert limits == Limits(20, 1_000)
    slow, drops = report(limits, 40_000)
    assert "about 400 frames/s at most. Raise max_inflight_messages to 40000" in slow
    assert "keeps only 1000 messages for a bridge that is away and drops the others" in drops
    assert report(Limits(PROBES, PROBES), 40_000) == []


def test_addresses():
    address = Address.of("mqtts://bridge:s%40cret@broker?ca=ca.pem")
    assert (address.host, address.port, address.tls, address.user, address.password) == ("broker", 8883, True, "bridge", "s@cret")
    assert "cret" not in repr(address)
    for url, text in (("http://x", "scheme 'http'"), ("mqtt://", "want mqtt://host"), ("mqtts://x?cafile=y", "cafile; want ca")):
        with pytest.raises(BadUrl, match=text):
            Address.of(url)
