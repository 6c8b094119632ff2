"""Who may publish for which device: certificates on the front's own TLS, names from a balancer's PROXY header."""

import contextlib
import datetime
import os
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from triax_backend import mqtt_wire as wire
from triax_backend.ingest import Identity, IdentityError, proxy
from triax_backend.ingest.identity import TlsLink, names_of
from triax_backend.servers.haproxy import HAProxy
from triax_proto import names

from .front_thread import running_front
from .wire_client import WireClient, kafka_frames

OWN, SECOND, FOREIGN = 0xD0_01, 0xD0_02, 0xD0_03


class Authority:
    """A CA that signs certificates into a directory."""

    def __init__(self, directory, name):
        self.directory, self.key = directory, ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = self._write(name, self._build(self.name, self.key, ca=True), None)

    def _build(self, subject, key, *, ca=False, hosts=()):
        now = datetime.datetime.now(datetime.UTC)
        certificate = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        certificate = certificate.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        certificate = certificate.not_valid_after(now + datetime.timedelta(1))
        certificate = certificate.add_extension(x509.BasicConstraints(ca, None), critical=True)
        if hosts:
            certificate = certificate.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
            )
        return certificate.sign(self.key, hashes.SHA256())

    def _write(self, name, certificate, key):
        path = self.directory / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            path.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        return str(path)

    def sign(self, name, *hosts):
        """Certificate and key files for `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._write(name, self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, hosts=hosts), key)
        return path, path.replace(".pem", ".key")


class TlsClient(WireClient):
    """The same over TLS with a client certificate, or none."""

    def __init__(self, port, ca, pair, **more):
        self._context = ssl.create_default_context(cafile=ca)
        if pair:
            self._context.load_cert_chain(*pair)
        super().__init__(port, **more)

    def say(self, data):
        if not isinstance(self.socket, ssl.SSLSocket):
            self.socket = self._context.wrap_socket(self.socket, server_hostname="front")
        super().say(data)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "devices")


@pytest.fixture(scope="module")
def tls_port(stack, authority):
    cert, key = authority.sign("front", "front")
    with running_front(stack.settings, Identity("tls", cert, key, authority.file)) as (port, _):
        yield port


@pytest.mark.servers
def test_a_certificate_names_the_devices_that_it_may_publish_for(stack, authority, tls_port):
    pair = authority.sign(f"{OWN:016x}", f"{SECOND:016x}", "node-7.example")
    with TlsClient(tls_port, authority.file, pair) as node:
        ids = node.frames(OWN, 0, 300) + node.frames(SECOND, 0, 5)
        assert node.acks(305) == ids
        node.say(wire.write_subscribe(1, [(names.mqtt_topic(d, "config"), 0) for d in (OWN, SECOND, FOREIGN)]))
        assert node.hear().body[2:] == b"\x00\x00\x80"
        node.frames(FOREIGN, 0, 1)
        assert node.hear() is None
    for topic in (names.mqtt_topic(FOREIGN, "info"), names.mqtt_topic(OWN, "config"), "a/b"):
        with TlsClient(tls_port, authority.file, pair) as node:
            node.publish(topic, b"x")
            assert node.hear() is None
    found = kafka_frames(stack.settings, {OWN, SECOND, FOREIGN})
    assert sorted(found) == [(OWN, 1, n) for n in range(300)] + [(SECOND, 1, n) for n in range(5)]


@pytest.mark.servers
def test_a_client_without_a_certificate_of_the_ca_does_not_get_in(tmp_path, authority, tls_port):
    other = Authority(tmp_path, "others")
    for pair in (None, other.sign(f"{OWN:016x}"), authority.sign("printer-3")):
        try:
            with TlsClient(tls_port, authority.file, pair) as node:
                assert node.connack is None
        except (ssl.SSLError, ConnectionError):
            pass
    with WireClient(tls_port) as plain:
        assert plain.connack is None or plain.connack.kind != wire.CONNACK


def test_all_that_has_come_is_read_at_once(authority):
    """A client writes a TLS record for each message, and a front that read one a round would take one message a round."""
    server = Identity("tls", *authority.sign("front", "front"), authority.file).context()
    client = ssl.create_default_context(cafile=authority.file)
    client.load_cert_chain(*authority.sign(f"{OWN:016x}"))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    link = TlsLink(server.wrap_socket(ours, server_side=True, do_handshake_on_connect=False))

    def talk():
        with client.wrap_socket(theirs, server_hostname="front") as tls:
            for number in range(100):
                tls.sendall(b"%03d" % number)
            sent.set()
            done.wait(10)

    sent, done = threading.Event(), threading.Event()
    talker = threading.Thread(target=talk)
    talker.start()
    while link.handshake() is None:
        time.sleep(0.001)
    assert sent.wait(10)
    assert link.recv(1 << 16) == b"".join(b"%03d" % number for number in range(100))
    with pytest.raises(BlockingIOError):
        link.recv(1 << 16)
    done.set()
    talker.join(10)
    assert link.recv(1 << 16) == b"", "closed"
    link.close()


def test_what_came_before_a_connection_broke_is_not_lost(authority):
    server = Identity("tls", *authority.sign("front", "front"), authority.file).context()
    client = ssl.create_default_context(cafile=authority.file)
    client.load_cert_chain(*authority.sign(f"{OWN:016x}"))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    link = TlsLink(server.wrap_socket(ours, server_side=True, do_handshake_on_connect=False))

    def talk():
        tls = client.wrap_socket(theirs, server_hostname="front")
        tls.sendall(b"the")
        tls.sendall(b"last")
        os.write(tls.fileno(), b"no record of TLS")
        tls.close()

    talker = threading.Thread(target=talk)
    talker.start()
    while link.handshake() is None:
        time.sleep(0.001)
    talker.join(10)
    assert link.recv(1 << 16) == b"thelast"
    with pytest.raises(ssl.SSLError):
        link.recv(1 << 16)
    link.close()


def header(name, family=0x11, command=0x21, verified=0):
    """A PROXY v2 header as HAProxy's send-proxy-v2-ssl-cn writes it."""
    addresses = socket.inet_aton("10.1.2.3") + socket.inet_aton("10.9.9.9") + struct.pack(">HH", 40_000, 8_883)
    body = addresses
    if name is not None:
        inner = struct.pack(">BI", 0x07, verified) + b"\x22" + struct.pack(">H", len(name)) + name.encode()
        body += b"\x04\x00\x01\x00" + b"\x20" + struct.pack(">H", len(inner)) + inner
    return proxy.SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


class ProxyClient(WireClient):
    """A client behind a balancer."""

    def __init__(self, port, head):
        super().__init__(port, connect=head + wire.write_connect("proxied", clean=True, keepalive_s=60))


@pytest.mark.servers
def test_a_balancer_names_the_client(stack):
    device = 0xD1_01
    with running_front(stack.settings, Identity("proxy")) as (port, front):
        with ProxyClient(port, header(f"{device:016x}")) as node:
            assert node.connack.body == b"\x00\x00"
            assert "10.1.2.3:40000" in repr(next(iter(front.clients.by_fd.values())))
            ids = node.frames(device, 0, 20)
            assert node.acks(20) == ids
            node.frames(FOREIGN, 0, 1)
            assert node.hear() is None
        for head in (header(None), header(f"{device:016x}", verified=1), header("printer-3"), b"", header(None, command=0x20)):
            with ProxyClient(port, head) as node:
                if node.connack is not None:  # the balancer's own check may connect; it is nobody
                    node.frames(device, 100, 1)
                    assert node.hear() is None
    assert sorted(kafka_frames(stack.settings, {device})) == [(device, 1, n) for n in range(20)]


@pytest.mark.servers
def test_a_real_balancer_ends_tls_and_names_the_client(stack, authority, tmp_path):
    device = 0xD2_01
    cert, key = authority.sign("front", "front")
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(part).read_text() for part in (cert, key)))
    with running_front(stack.settings, Identity("proxy")) as (port, _front):
        balancer = HAProxy(tmp_path, [port], tls=(both, Path(authority.file)))
        balancer.start()
        try:
            with TlsClient(balancer.port, authority.file, authority.sign(f"{device:016x}")) as node:
                ids = node.frames(device, 0, 50)
                assert node.acks(50) == ids
                node.frames(FOREIGN, 0, 1)
                assert node.hear() is None
        finally:
            balancer.stop()
    assert sorted(kafka_frames(stack.settings, {device})) == [(device, 1, n) for n in range(50)]


@pytest.mark.servers
def test_any_front_behind_a_balancer_will_do(stack, tmp_path):
    devices = [0xD3_00 + n for n in range(10)]
    with running_front(stack.settings) as (first, one), running_front(stack.settings) as (second, other):
        balancer = HAProxy(tmp_path, [first, second])
        balancer.start()
        try:
            with contextlib.ExitStack() as close:
                nodes = [close.enter_context(WireClient(balancer.port, f"balanced-{device}")) for device in devices]
                for device, node in zip(devices, nodes, strict=True):
                    ids = node.frames(device, 0, 5)
                    assert node.acks(5) == ids
                assert [len(front.clients.names) for front in (one, other)] == [5, 5]
        finally:
            balancer.stop()
    assert sorted(kafka_frames(stack.settings, set(devices))) == sorted((device, 1, n) for device in devices for n in range(5))


def test_a_proxy_header_is_parsed_whole_or_awaited():
    data = header("00000000000000aa")
    for end in range(len(data)):
        assert proxy.parse(data[:end]) is None
    assert proxy.parse(data + b"\x10") == proxy.Header(len(data), "10.1.2.3:40000", "00000000000000aa")
    six = proxy.SIGNATURE + b"\x21\x21\x00\x24" + bytes(15) + b"\x01" + bytes(16) + b"\x00\x07\x00\x08"
    assert proxy.parse(six) == proxy.Header(len(six), "::1:7", None)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x10\x0d\x00\x04MQTT", "is the balancer set to send it"),
        (b"PROXY TCP4 1.2.3.4", "no PROXY v2 header"),
        (proxy.SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), "version and command 0x11"),
        (proxy.SIGNATURE + b"\x21\x11\x00\x04" + bytes(4), "4 bytes of addresses, not 12"),
        (proxy.SIGNATURE + b"\x21\x11\x00\x10" + bytes(12) + b"\x20\x00\x09x", "TLV of 9 bytes where 1 are"),
        (proxy.SIGNATURE + b"\x21\x11\x00\x0e" + bytes(12) + b"\x20\x00", "ends inside a TLV"),
    ],
)
def test_a_proxy_header_that_cannot_be(data, text):
    with pytest.raises(wire.BadPacket, match=text):
        proxy.parse(data)


def test_settings_that_cannot_work(tmp_path):
    with pytest.raises(IdentityError, match="no identity 'pam': want none, tls or proxy"):
        Identity("pam").context()
    with pytest.raises(IdentityError, match="needs --cert, --key and --ca"):
        Identity("tls").context()
    missing = str(tmp_path / "none.pem")
    with pytest.raises(IdentityError, match=r"cannot be read: .*No such file"):
        Identity("tls", missing, missing, missing).context()
    assert Identity("proxy").context() is None


def test_names():
    assert names_of(["00000000000000aa", "00000000000000bb", "host"]) == {"00000000000000aa", "00000000000000bb"}
    for wrong in ([], ["host", "00000000000000aa"], ["00000000000000AA"], ["*"]):
        with pytest.raises(IdentityError, match="no device is called that"):
            names_of(wrong)
