"""The generator against mosquitto itself: TCP, a Unix socket, TLS with a certificate for each device."""

import socket

import numpy as np
import pytest
from triax_backend.servers.mosquitto import Mosquitto
from triax_proto.frame import parse
from triax_sim import ledger as ledgers
from triax_sim import packet
from triax_sim.bulk import device_ids
from triax_sim.certificates import Authority
from triax_sim.fleet import Fleet
from triax_sim.gold import Gold
from triax_sim.plan import Cohort, Plan, Target

pytestmark = pytest.mark.servers


class Listening(Mosquitto):
    """A mosquitto with further listeners."""

    def __init__(self, directory, extra):
        super().__init__(directory)
        self.extra = extra

    def prepare(self):
        super().prepare()
        conf = self.data / "mosquitto.conf"
        conf.write_text(conf.read_text() + self.extra)


class Subscriber:
    """A subscriber at QoS 0 of all frames."""

    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port), timeout=5)
        topic = b"triax/v1/+/frame"
        body = b"\x00\x01" + len(topic).to_bytes(2, "big") + topic + b"\x00"
        self.link.sendall(packet.connect("checker", 60) + bytes([0x82, len(body)]) + body)
        self.data = b""
        while len(self.data) < 9:  # CONNACK, SUBACK
            self.data += self.link.recv(9 - len(self.data))
        self.data = b""

    def frames(self, count):
        """`count` frames."""
        self.link.settimeout(5)
        payloads = []
        while len(payloads) < count:
            self.data += self.link.recv(1 << 20)
            at = 0
            for _, body, after in packet.cut(self.data):
                at = after
                payloads.append(body[2 + int.from_bytes(body[:2], "big") :])
            self.data = self.data[at:]
        self.link.close()
        return payloads


def check(broker, target, tmp_path, maker=Fleet, **cohort):
    subscriber = Subscriber(broker.port)
    cohorts = (Cohort("bulk", 0, **cohort),)
    plan = Plan(target, cohorts, str(tmp_path / "a.ledger"), str(tmp_path / "a.json"), boot=1_800_000_000, duration_s=1.0)
    result = maker(plan).run()
    rows = ledgers.read([plan.ledger])
    assert result["acked" if cohort.get("qos", 1) else "sent"] == len(rows) == result["due"]
    names = ("device", "boot", "sequence", "checksum")
    arrived = [tuple(int(parse(data)[name][0]) for name in names) for data in subscriber.frames(len(rows))]
    assert len(arrived) == len(set(arrived))
    assert set(arrived) == set(zip(*(rows[name].tolist() for name in names), strict=True))


def test_a_thousand_devices_over_tcp(tmp_path):
    broker = Mosquitto(tmp_path)
    broker.start()
    try:
        check(broker, Target(port=broker.port), tmp_path, count=1000, qos=0)
        check(broker, Target(port=broker.port), tmp_path, count=300, qos=1)
    finally:
        broker.stop()


def test_a_unix_socket(tmp_path):
    path = tmp_path / "mqtt.sock"
    broker = Listening(tmp_path, f"listener 0 {path}\n")
    broker.start()
    try:
        check(broker, Target(unix=str(path)), tmp_path, count=20)
    finally:
        broker.stop()


@pytest.mark.parametrize("maker", [Fleet, Gold])
def test_a_certificate_for_each_device(tmp_path, maker):
    """mosquitto takes the name of the certificate for the user name, and lets each write to its own topic only."""
    authority = Authority(tmp_path / "tls")
    server = authority.server()
    acl = tmp_path / "acl"
    acl.write_text("topic read triax/#\npattern readwrite triax/v1/%u/#\n")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    broker = Listening(
        tmp_path,
        f"acl_file {acl}\nlistener {port} 127.0.0.1\ncafile {authority.ca}\ncertfile {server}\nkeyfile {server}\n"
        "require_certificate true\nuse_identity_as_username true\n",
    )
    broker.start()
    try:
        folder = authority.devices(device_ids(1, np.arange(8)).tolist())
        target = Target(port=port, ca=str(authority.ca), certificates=str(folder))
        count, kind = (8, "bulk") if maker is Fleet else (2, "gold")
        check(broker, target, tmp_path, maker, count=count, kind=kind)
    finally:
        broker.stop()
