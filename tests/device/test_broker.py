"""The node against a real mosquitto over the Linux link, heard by a plain paho client that knows only the .proto files."""

import hashlib
import time
import zlib

import pytest
from triax.errors import LinkError
from triax.ports.tcp import Link
from triax_proto.v1.device_pb2 import Config, ConfigAck, DeviceInfo, Status
from triax_proto.v1.frame_pb2 import Frame
from triax_tools.authority import Authority

from .brokers import Listener, Mosquitto, free_port, wait_for
from .node_rig import DEVICE, Rig

pytestmark = pytest.mark.servers
PREFIX = f"triax/v1/{DEVICE:016x}"


class RealRig(Rig):
    """Virtual part, virtual time, real network: the world goes on only while the node is stepped."""

    def __init__(self, port, link, host="127.0.0.1", tls=False):
        super().__init__(link={"host": host, "port": port, "tls": tls})
        self.node._link = self.node.connection.link = link

    def until(self, condition, what, seconds=20):
        def stepped():
            self.run(12)
            time.sleep(0.001)
            return condition()

        wait_for(stepped, what, seconds)


@pytest.fixture
def broker(tmp_path):
    one = Mosquitto(tmp_path)
    yield one
    one.close()


@pytest.fixture
def listener(broker):
    one = Listener(broker.port)
    yield one
    one.close()


def frames(listener):
    return [(Frame.FromString(data), data) for data in listener.of("frame")]


def test_a_paho_client_that_knows_only_the_proto_files_understands_the_node(broker, listener, make_link):
    rig = RealRig(broker.port, make_link()).start()
    rig.until(lambda: len(listener.of("frame")) >= 20, "frames")
    info = DeviceInfo.FromString(listener.of("info")[0])
    assert (info.device, info.part, info.decimation) == (DEVICE, "iis3dwb", 267)
    assert Status.FromString(listener.of("status")[0]).online
    for number, (one, data) in enumerate(frames(listener)):
        assert (one.device, one.boot, one.sequence) == (DEVICE, info.boot, number)
        assert one.checksum == zlib.crc32(data[5:])
        assert len(one.x) == len(one.y) == len(one.z) == 10
        assert one.z[0] * one.scale_g / one.decimation == pytest.approx(1001 * info.scale_g, rel=1e-3)
    listener.publish(PREFIX + "/config", Config(version=3, test_pattern=True).SerializeToString())
    blob = b"calibration of this unit" * 100
    listener.publish(PREFIX + "/calibration", blob)
    rig.until(lambda: listener.of("config/ack") and listener.of("info")[-1] != listener.of("info")[0], "the acknowledgement")
    ack = ConfigAck.FromString(listener.of("config/ack")[-1])
    assert (ack.version, ack.result) == (3, ConfigAck.RESULT_APPLIED)
    rig.until(lambda: DeviceInfo.FromString(listener.of("info")[-1]).calibration_hash, "the hash")
    assert DeviceInfo.FromString(listener.of("info")[-1]).calibration_hash == hashlib.sha256(blob).digest()
    rig.until(lambda: frames(listener)[-1][0].config == 3, "frames of the new configuration")
    rig.node._link.close()  # no DISCONNECT: as a power cut
    wait_for(lambda: not Status.FromString(listener.of("status")[-1]).online, "the last will")
    assert Status.FromString(listener.of("status")[-1]).reason == Status.REASON_LOST
    late = Listener(broker.port)
    wait_for(lambda: len(late.of("info")) == 1 and len(late.of("status")) == 1, "retained birth and will")
    assert all(retain for _, _, retain in late.messages)
    late.close()


def test_a_broker_killed_with_frames_in_flight_loses_nothing(broker, listener, make_link):
    rig = RealRig(broker.port, make_link()).start()
    rig.until(lambda: len(listener.of("frame")) >= 10, "frames")
    broker.freeze()
    rig.run(1500)
    in_flight = rig.node.core.window.count
    assert in_flight == 8, "the window is full"
    acked = rig.node.acked
    broker.kill()
    rig.run(1000)
    broker.start()
    assert listener.subscribed.wait(10)
    rig.until(lambda: rig.channels[0].frames.spool.depth == 0 and rig.node.acked > acked + 20, "the backlog")
    time.sleep(0.2)
    seen = {}
    for one, data in frames(listener):
        assert seen.setdefault(one.sequence, data) == data, "resent, but not the same bytes"
    assert set(seen) == set(range(max(seen) + 1))
    assert rig.channels[0].frames.spool.dropped == 0
    assert rig.node.reconnects == 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("authority"))
    one.issue_server(["localhost", "127.0.0.1"])
    one.issue_client("node")
    return one


@pytest.fixture
def secure(tmp_path, authority):
    one = Mosquitto(tmp_path, files(authority, "broker"))
    yield one
    one.close()


@pytest.fixture
def make_link():
    """Links that are closed whatever happens."""
    made = []

    def make(*files):
        made.append(Link(*files))
        return made[-1]

    yield make
    for link in made:
        link.close()


def outcome(link, port):
    """Connect and say hello; returns the CONNACK, or raises what the link says."""
    link.connect("localhost", port, True)
    wait_for(link.connected, "the connection")
    hello = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
    assert link.send(hello, len(hello)) == len(hello)
    buffer, got = bytearray(10), []
    wait_for(lambda: (count := link.readinto(buffer)) is not None and (got.append(count) or True), "an answer")
    return bytes(buffer[: got[0]])


def files(authority, stem):
    return authority.certificate_path, authority.folder / f"{stem}.pem", authority.folder / f"{stem}.key"


def client(authority):
    return files(authority, "node")


def test_tls_with_both_certificates(secure, authority, make_link):
    link = make_link(*client(authority))
    assert outcome(link, secure.port) == b"\x20\x02\x00\x00"


def test_tls_the_whole_node(secure, authority, make_link):
    rig = RealRig(secure.port, make_link(*client(authority)), "localhost", True).start()
    rig.until(lambda: rig.node.acked > 30, "frames over TLS")
    rig.node.stop()
    rig.until(lambda: rig.node.stopped, "the goodbye")


def test_tls_of_a_wrong_authority(secure, authority, tmp_path, make_link):
    other = Authority(tmp_path / "other")
    with pytest.raises(LinkError, match=r"not signed by our CA .*check `ca`"):
        outcome(make_link(other.certificate_path, *client(authority)[1:]), secure.port)


def test_tls_with_an_expired_certificate(tmp_path, authority, make_link):
    authority.issue_server(["localhost"], days=-1, stem="expired")
    broker = Mosquitto(tmp_path, files(authority, "expired"))
    with pytest.raises(LinkError, match=r"expired .*renew"):
        outcome(make_link(*client(authority)), broker.port)
    broker.close()


def test_tls_for_another_name(tmp_path, authority, make_link):
    authority.issue_server(["elsewhere.example"], stem="elsewhere")
    broker = Mosquitto(
        tmp_path, (authority.certificate_path, authority.folder / "elsewhere.pem", authority.folder / "elsewhere.key")
    )
    with pytest.raises(LinkError, match="another name"):
        outcome(make_link(*client(authority)), broker.port)
    broker.close()


def test_tls_without_our_certificate(secure, authority, make_link):
    with pytest.raises((LinkError, OSError), match=r"(?i)tls|reset|certificate"):
        outcome(make_link(authority.certificate_path), secure.port)


def test_tls_where_none_is_spoken(broker, authority, make_link):
    with pytest.raises(LinkError, match=r"no TLS there|reset"):
        outcome(make_link(*client(authority)), broker.port)


@pytest.mark.parametrize(
    ("host", "what"),
    [("no-such-host.invalid", "no such host"), ("127.0.0.1", "refused")],
)
def test_what_to_check_when_there_is_no_connection(host, what, make_link):
    link = make_link()
    link.connect(host, free_port(), False)
    with pytest.raises(LinkError, match=what):
        wait_for(link.connected, "an answer")


def test_a_missing_certificate_file_is_named(broker, tmp_path, make_link):
    link = make_link(tmp_path / "nowhere.pem")
    link.connect("127.0.0.1", broker.port, True)
    with pytest.raises(LinkError, match="file is missing"):
        wait_for(link.connected, "an answer")


def test_closing_while_connecting_leaves_nothing_open(broker, make_link):
    link = make_link()
    for _ in range(20):
        link.connect("127.0.0.1", broker.port, False)
        link.close()
    assert not link.connected()
