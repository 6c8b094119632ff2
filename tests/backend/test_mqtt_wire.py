"""MQTT packets: whole, byte by byte, with more behind, and wrong ones."""

import contextlib

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triax_backend import mqtt_wire as wire

PACKETS = [
    wire.write_connect("node", clean=True, keepalive_s=30),
    wire.write_connect("node", clean=False, keepalive_s=0, user="u", password="p"),
    wire.write_connack(0),
    wire.write_publish("a/b", b"", qos=0),
    wire.write_publish("a/b", bytes(300), qos=1, packet_id=7),
    wire.write_publish("a/b", bytes(20_000), qos=2, packet_id=8, retain=True),
    wire.write_subscribe(3, [("a", 1), ("b", 0)]),
    wire.write_suback(3, [1, 0x80]),
    wire.puback(300),
    wire.pingreq,
    wire.pingresp,
    wire.disconnect,
]


@pytest.mark.parametrize("data", PACKETS, ids=lambda data: f"{data[:1].hex()}-{len(data)}")
def test_a_packet_is_cut_the_same_however_it_comes(data):
    packet = wire.cut(data, 0, 1 << 20)
    assert packet is not None
    assert packet.size == len(data)
    assert wire.cut(data + b"\xc0\x00", 0, 1 << 20) == packet
    assert wire.cut(b"\xc0\x00" + data, 2, 1 << 20) == packet
    for end in range(len(data)):
        assert wire.cut(data[:end], 0, 1 << 20) is None


@given(st.text(alphabet=st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1), st.binary(max_size=500))
def test_a_publish_comes_back(topic, payload):
    data = wire.write_publish(topic, payload, qos=1, packet_id=65_535, retain=True)
    packet = wire.cut(data, 0, 1 << 20)
    assert packet is not None
    assert wire.parse_publish(packet) == (topic, payload, 1, 65_535, True, False)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_packet_more_or_a_typed_error(data):
    parsers = {1: wire.parse_connect, 3: wire.parse_publish, 8: wire.parse_subscribe, 10: wire.parse_subscribe}
    with contextlib.suppress(wire.WireError):
        packet = wire.cut(data, 0, 150)
        if packet is not None:
            assert packet.size <= len(data)
            parsers.get(packet.kind, lambda _: None)(packet)


def test_connect_as_paho_writes_it():
    sent = []

    class Client(paho.Client):
        def _packet_queue(self, command, packet, *_rest, **_more):
            sent.append(bytes(packet))
            return paho.MQTT_ERR_SUCCESS

    client = Client(paho.CallbackAPIVersion.VERSION2, client_id="node-1", clean_session=False)
    client.will_set("triax/v1/00000000000000aa/status", b"gone", qos=1, retain=True)
    client.username_pw_set("user", "secret")
    client._send_connect(77)
    packet = wire.cut(sent[0], 0, 4096)
    assert wire.parse_connect(packet) == wire.Connect(
        "node-1", False, 77, "triax/v1/00000000000000aa/status", b"gone", 1, True, "user", b"secret"
    )


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"\x00\x00", wire.BadPacket, "type 0 is reserved"),
        (b"\xf0\x00", wire.BadPacket, "type 15 is reserved"),
        (b"\xc1\x00", wire.BadPacket, "type 12 with flags 0x1"),
        (b"\x80\x00", wire.BadPacket, "type 8 with flags 0x0"),
        (b"\x30\xff\xff\xff\xff\x01", wire.BadLength, "more than four bytes"),
        (b"\x30\xff\xff\xff\x7f", wire.Oversize, "a packet of 268435460 bytes, at most 1000"),
        (wire.write_publish("a", bytes(2_000)), wire.Oversize, "at most 1000"),
    ],
)
def test_no_packet(data, error, text):
    with pytest.raises(error, match=text):
        wire.cut(data, 0, 1_000)


def _packet(data):
    packet = wire.cut(data, 0, 4_096)
    assert packet is not None
    return packet


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"\x36\x05\x00\x01a\x00\x01", wire.BadPacket, "QoS 3"),
        (b"\x30\x02\x00\x00", wire.BadPacket, "PUBLISH to ''"),
        (b"\x30\x03\x00\x01#", wire.BadPacket, "PUBLISH to '#'"),
        (b"\x30\x03\x00\x05a", wire.BadLength, "4 bytes behind its packet"),
        (b"\x30\x01\x00", wire.BadLength, "inside a number"),
        (b"\x32\x05\x00\x01a\x00\x00", wire.BadPacket, "packet id 0"),
        (b"\x32\x03\x00\x01a", wire.BadLength, "inside a number"),
        (b"\x30\x04\x00\x02\xc3\x28", wire.BadPacket, "no UTF-8"),
        (b"\x30\x04\x00\x02a\x00", wire.BadPacket, "null character"),
    ],
)
def test_a_publish_that_cannot_be(data, error, text):
    with pytest.raises(error, match=text):
        wire.parse_publish(_packet(data))


def _connect(flags=2, rest=b"\x00\x01x", name=b"\x00\x04MQTT", level=4):
    body = name + bytes([level, flags, 0, 60]) + rest
    return _packet(bytes([0x10, len(body)]) + body)


@pytest.mark.parametrize(
    ("packet", "error", "text"),
    [
        (_connect(flags=3), wire.BadPacket, "reserved flag"),
        (_connect(flags=0x1E, rest=b"\x00\x01x\x00\x01t\x00\x00"), wire.BadPacket, "will of QoS 3"),
        (_connect(flags=0x22), wire.BadPacket, "flags of a will and no will"),
        (_connect(flags=0x42, rest=b"\x00\x01x\x00\x01p"), wire.BadPacket, "password and no user"),
        (_connect(rest=b"\x00\x01xyz"), wire.BadLength, "2 bytes too many"),
        (_connect(rest=b"\x00\x09x"), wire.BadLength, "behind its packet"),
        (_connect(name=b"\x00\x04MQTT", level=3), wire.OtherVersion, "level 3; we speak MQTT 3.1.1"),
        (_connect(name=b"\x00\x06MQIsdp", level=3), wire.OtherVersion, "'MQIsdp' level 3"),
    ],
)
def test_a_connect_that_cannot_be(packet, error, text):
    with pytest.raises(error, match=text):
        wire.parse_connect(packet)


def test_other_versions_are_told_so_in_their_own_form():
    with pytest.raises(wire.OtherVersion, match="MQTT 5") as five:
        wire.parse_connect(_connect(level=5, rest=b"\x00\x00\x01x"))
    assert five.value.reply == b"\x20\x03\x00\x84\x00"
    with pytest.raises(wire.OtherVersion) as three:
        wire.parse_connect(_connect(name=b"\x00\x06MQIsdp", level=3))
    assert three.value.reply == b"\x20\x02\x00\x01"


@pytest.mark.parametrize("body", [b"\x00\x01", b"\x00\x00\x00\x01a\x01"])
def test_a_subscribe_without_filter_or_packet_id(body):
    with pytest.raises(wire.BadPacket, match="without filter or packet id"):
        wire.parse_subscribe(_packet(bytes([0x82, len(body)]) + body))


def test_a_subscribe_cut_short_or_with_qos_3():
    with pytest.raises(wire.BadLength, match="before its last QoS"):
        wire.parse_subscribe(_packet(b"\x82\x05\x00\x01\x00\x01a"))
    with pytest.raises(wire.BadPacket, match="QoS 3"):
        wire.parse_subscribe(_packet(b"\x82\x06\x00\x01\x00\x01a\x03"))
