"""The MQTT core: each parser whole, byte by byte and with trailing bytes; the window; every timeout; hostile bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import mqtt, packets
from triax.errors import ProtocolError
from triax.mqtt import CONNECTED, DENIED, MESSAGE, NOTHING, OVERSIZE, RECONNECT, REFUSED, RELEASED, SUBSCRIBED, Publisher
from triax.packets import topic

CONNACK = b"\x20\x02\x00\x00"
FRAME_NAME = "triax/v1/0011223344556677/frame"
FRAME = topic(FRAME_NAME)
LIMIT = 200


def puback(packet_id):
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def publish(topic, payload, qos=0, packet_id=1, flags=0):
    rest = len(topic).to_bytes(2, "big") + topic + (packet_id.to_bytes(2, "big") if qos else b"") + payload
    return bytes((0x30 | qos << 1 | flags,)) + varint(len(rest)) + rest


def drain(core):
    """What the network takes."""
    data = bytes(core.out.buffer[: core.out.length])
    core.out.taken(len(data))
    return data


def events(core, data, now_ms=0, step=None):
    """Events with their details, as the bytes come in pieces of `step`."""
    seen = []
    for at in range(0, len(data), step or max(len(data), 1)):
        piece = bytearray(data[at : at + (step or len(data))])
        core.receive(piece, len(piece), now_ms)
        while (event := core.next_event(now_ms)) != NOTHING:
            detail = {
                RELEASED: lambda: (core.window.owner, core.window.token),
                MESSAGE: lambda: (core.topic, bytes(core.payload())),
                OVERSIZE: lambda: core.topic,
                REFUSED: lambda: core.reason,
                RECONNECT: lambda: core.reason,
            }.get(event, lambda: None)()
            seen.append((event, detail))
            if event in (MESSAGE, OVERSIZE):
                core.acknowledge()
    return seen


def up(**options):
    core = Publisher("node-1", **{"in_bytes": LIMIT, **options})
    core.connect(0)
    drain(core)
    assert events(core, CONNACK) == [(CONNECTED, None)]
    return core


def send(core, token, payload=b"frame", qos=1, now_ms=0, owner=0):
    return core.publish(FRAME, payload, 0, len(payload), qos, owner, token, now_ms)


def test_connect_as_the_standard_writes_it():
    will = (topic("w"), b"gone", 1, True)
    core = Publisher("id", username="u", password="pw", keepalive_s=300, will=will)
    core.connect(0)
    body = (
        b"\x00\x04MQTT\x04"
        + bytes([0b11101110])
        + b"\x01\x2c"
        + b"\x00\x02id"
        + b"\x00\x01w"
        + b"\x00\x04gone"
        + b"\x00\x01u"
        + b"\x00\x02pw"
    )
    assert drain(core) == b"\x10" + bytes([len(body)]) + body


def test_publish_as_the_standard_writes_it():
    core = up()
    payload = bytes(range(250))
    assert core.publish(FRAME, b"..." + payload, 3, 250, 1, 0, 7, 0, 1)
    assert drain(core) == publish(FRAME_NAME.encode(), payload, 1, 1, flags=1)
    assert send(core, 8, qos=0)
    assert drain(core) == publish(FRAME_NAME.encode(), b"frame")


INCOMING = {
    "ack": (puback(1), [(RELEASED, (3, 40))]),
    "acks out of order": (puback(2) + puback(1), [(RELEASED, (3, 41)), (RELEASED, (3, 40))]),
    "stray ack": (puback(99), []),
    "message": (publish(b"a/b", b"\x00\x01"), [(MESSAGE, ("a/b", b"\x00\x01"))]),
    "message of QoS 1": (publish(b"a/b", b"", 1, 77), [(MESSAGE, ("a/b", b""))]),
    "message as large as fits": (publish(b"a", b"x" * (LIMIT - 3)), [(MESSAGE, ("a", b"x" * (LIMIT - 3)))]),
    "oversize": (publish(b"a", b"x" * (LIMIT - 2)), [(OVERSIZE, "a")]),
    "oversize, then another": (publish(b"a", b"x" * 20000, 1, 9) + publish(b"b", b"!"), [(OVERSIZE, "a"), (MESSAGE, ("b", b"!"))]),
    "pong": (b"\xd0\x00", []),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("step", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("trailing", [b"", puback(2)])
@pytest.mark.parametrize("name", INCOMING)
def test_every_packet_whole_in_pieces_and_with_trailing_bytes(name, step, trailing):
    data, want = INCOMING[name]
    core = up()
    assert send(core, 40, owner=3)
    assert send(core, 41, owner=3)
    extra = [(RELEASED, (3, 41))] if trailing and (RELEASED, (3, 41)) not in want else []
    assert events(core, data + trailing, step=step) == want + extra


def test_a_message_of_qos_1_is_acknowledged_when_it_is_safe():
    core = up()
    data = bytearray(publish(b"a", b"x", 1, 0x1234))
    core.receive(data, len(data), 0)
    assert core.next_event(0) == MESSAGE
    assert drain(core) == b""
    core.acknowledge()
    assert drain(core) == puback(0x1234)
    core.acknowledge()
    assert drain(core) == b""


def test_no_packet_is_read_without_room_for_its_puback():
    core = up(out_bytes=100)
    while send(core, 1, b"x", qos=0):
        pass
    core.out.length = 97  # the network is slow
    data = bytearray(publish(b"a", b"x", 1, 5))
    core.receive(data, len(data), 0)
    assert core.next_event(0) == NOTHING
    assert not core.wants_bytes()
    core.out.taken(20)
    assert core.next_event(0) in (MESSAGE, RELEASED)


@pytest.mark.parametrize(("code", "word"), [(1, "version"), (2, "identifier"), (3, "later"), (4, "credentials"), (5, "ACL")])
def test_a_refusal_says_what_to_check(code, word):
    core = Publisher("node-1")
    core.connect(0)
    ((event, reason),) = events(core, bytes((0x20, 2, 0, code)))
    assert event == REFUSED
    assert core.code == code
    assert word in reason
    assert not send(core, 1)


BROKEN = {
    "reserved kind": b"\x00\x00",
    "a client's packet": b"\x10\x00",
    "PUBREC": b"\x50\x02\x00\x01",
    "flags of an ack": b"\x42\x02\x00\x01",
    "QoS 2": publish(b"a", b"", 2),
    "QoS 3": b"\x36\x05\x00\x01a\x00\x01",
    "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "short ack": b"\x40\x01\x00",
    "long ack": b"\x40\x03\x00\x01\x00",
    "ack of packet 0": puback(0),
    "second CONNACK": CONNACK,
    "SUBACK out of the blue": b"\x90\x03\x00\x01\x00",
    "huge SUBACK": b"\x90\xff\x7f",
    "pong with a body": b"\xd0\x01\x00",
    "topic longer than the packet": b"\x30\x04\x00\x09ab",
    "empty topic": b"\x30\x03\x00\x00a",
    "topic that ends the packet before its id": b"\x32\x04\x00\x01ab",
    "id 0": publish(b"a", b"", 1, 0),
    "topic in Latin-1": publish(b"\xff", b""),
    "topic longer than what is kept": publish(b"a" * (LIMIT + 1), b""),
}


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_bytes_end_the_connection_with_what_and_where(name, step):
    core = up()
    with pytest.raises(ProtocolError, match=r", at byte \d+ of the connection"):
        events(core, BROKEN[name], step=step)
    assert core.state == mqtt.ENDED
    assert core.next_event(10**6) == NOTHING
    core.connect(5)
    drain(core)
    assert events(core, CONNACK) == [(CONNECTED, None)]


@pytest.mark.parametrize("data", [b"\x20\x02\x01\x00", b"\x20\x02\x00\x06", puback(1), b"\x20\x03\x00\x00\x00"])
def test_broken_answers_to_connect(data):
    core = Publisher("node-1")
    core.connect(0)
    with pytest.raises(ProtocolError):
        events(core, data)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.booleans())
def test_fuzz_no_bytes_do_worse_than_a_protocol_error(pieces, connected):
    core = up() if connected else Publisher("node-1", in_bytes=LIMIT)
    if not connected:
        core.connect(0)
    for token in range(3):
        send(core, token)
    try:
        for piece in pieces:
            events(core, piece)
    except ProtocolError:
        assert core.state == mqtt.ENDED
    assert len(core.reader.body) <= LIMIT
    assert core.window.count <= core.window.size


@pytest.mark.parametrize("step", [1, 700, None])
def test_a_large_message_has_room_while_it_is_read(step):
    core = up(in_bytes=4608)
    ready = core.reader.body
    payload = bytes(range(256)) * 16
    assert events(core, publish(b"a", payload), step=step) == [(MESSAGE, ("a", payload))]
    assert len(core.reader.body) <= 4608
    assert events(core, publish(b"a", payload + bytes(600)), step=step) == [(OVERSIZE, "a")]
    assert core.reader.body is ready


def test_a_message_that_memory_has_no_room_for_is_told_and_skipped(monkeypatch):
    core = up(in_bytes=4608)

    def no_room(size):
        raise MemoryError

    monkeypatch.setattr(packets, "bytearray", no_room, raising=False)
    assert events(core, publish(b"a", bytes(513)) + publish(b"a", b"x")) == [(OVERSIZE, "a"), (MESSAGE, ("a", b"x"))]


PACKETS = st.one_of(
    st.integers(1, 3).map(puback),
    st.builds(
        publish, st.sampled_from([b"a", b"triax/x"]), st.binary(max_size=LIMIT + 20), st.sampled_from([0, 1]), st.integers(1, 65535)
    ),
    st.just(b"\xd0\x00"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PACKETS, max_size=8), st.data())
def test_fuzz_events_do_not_depend_on_how_the_stream_was_cut(pieces, data):
    stream = b"".join(pieces)

    def run(step):
        core = up(out_bytes=2000)
        for token in range(3):
            send(core, token)
        drain(core)
        return events(core, stream, step=step), drain(core)

    assert run(data.draw(st.integers(1, max(len(stream), 1)))) == run(None)


def test_the_window_is_a_bound_and_identifiers_never_collide():
    core = up(window=3)
    core.window._last_id = 65533
    assert [send(core, token) for token in range(5)] == [True, True, True, False, False]
    sent = drain(core)
    ids = [sent[i * 42 + 35] << 8 | sent[i * 42 + 36] for i in range(3)]
    assert ids == [65534, 65535, 1]
    assert events(core, puback(65535)) == [(RELEASED, (0, 1))]
    core.window._last_id = 65533
    assert send(core, 9)
    assert core.window._last_id == 65535  # 65534 is in flight


def test_a_qos_0_message_leaves_when_its_last_byte_is_sent():
    core = up()
    send(core, 1, qos=0)
    send(core, 2, qos=0)
    size = core.out.length // 2
    assert core.next_event(0) == NOTHING
    core.out.taken(size - 1)
    assert core.next_event(0) == NOTHING
    core.out.taken(1)
    assert core.next_event(0) == RELEASED
    assert core.window.token == 1
    assert core.next_event(0) == NOTHING
    core.out.taken(size)
    assert core.next_event(0) == RELEASED
    assert core.window.token == 2


def test_bytes_stay_in_order_when_the_network_takes_a_few_at_a_time():
    whole, pieces = up(), up()
    got = bytearray()
    for token in range(6):
        send(whole, token)
        send(pieces, token)
        take = min(pieces.out.length, 17)
        got += pieces.out.buffer[:take]
        pieces.out.taken(take)
    assert got + drain(pieces) == drain(whole)


def test_a_full_buffer_refuses_and_loses_nothing():
    core = up(out_bytes=100, window=8)
    assert send(core, 1)
    assert send(core, 2)
    assert not send(core, 3)
    assert core.window.count == 2


@pytest.mark.parametrize("start", [0, mqtt.MS_MASK - 3000])
def test_no_puback_within_ten_seconds_means_reconnect(start):
    core = Publisher("node-1", keepalive_s=600)
    core.connect(start)
    drain(core)
    events(core, CONNACK, start)
    send(core, 1, now_ms=start)
    at = lambda ms: (start + ms) & mqtt.MS_MASK  # noqa: E731
    assert core.next_event(at(9999)) == NOTHING
    assert core.next_event(at(10000)) == RECONNECT
    assert "PUBACK" in core.reason
    assert core.next_event(at(10001)) == NOTHING


def test_no_connack_means_reconnect():
    core = Publisher("node-1")
    core.connect(100)
    assert core.next_event(10099) == NOTHING
    assert core.next_event(10100) == RECONNECT


def test_no_suback_means_reconnect():
    core = up()
    core.subscribe(["a"], 0)
    assert core.next_event(9999) == NOTHING
    assert core.next_event(10000) == RECONNECT


@pytest.mark.parametrize("traffic", [False, True])
def test_a_half_open_connection_is_found_within_one_and_a_half_keepalives(traffic):
    core = up(keepalive_s=20)
    now, found = 0, None
    while found is None and now < 60000:
        now += 100
        if traffic:
            send(core, 1, qos=0, now_ms=now)
        drain(core)
        while (event := core.next_event(now)) == RELEASED:
            pass
        found = now if event == RECONNECT else None
    assert found is not None
    assert found <= 1.5 * 20000
    assert "half-open" in core.reason


@pytest.mark.parametrize("hears", [False, True])
def test_the_broker_hears_from_us_within_the_keepalive(hears):
    core = up(keepalive_s=10)
    silence = longest = 0
    for now in range(100, 60000, 100):
        silence += 100
        if hears and now % 700 == 0:
            assert events(core, publish(b"a", b"x"), now) == [(MESSAGE, ("a", b"x"))]
        assert core.next_event(now) == NOTHING
        if out := drain(core):
            assert out == b"\xc0\x00"
            silence = 0
            events(core, b"\xd0\x00", now)
        longest = max(longest, silence)
    assert longest <= 10000


def test_keepalive_0_never_pings():
    core = up(keepalive_s=0)
    assert core.next_event(10**8) == NOTHING
    assert drain(core) == b""


@pytest.mark.parametrize(("codes", "want"), [(b"\x01\x00", SUBSCRIBED), (b"\x01\x80", DENIED)])
def test_subscribe(codes, want):
    core = up()
    assert core.subscribe(["a/b", "c"], 0)
    assert drain(core) == b"\x82\x0c\x00\x01\x00\x03a/b\x01\x00\x01c\x01"
    assert not core.subscribe(["d"], 0)
    assert events(core, b"\x90\x04\x00\x01" + codes) == [(want, None)]


@pytest.mark.parametrize("answer", [b"\x90\x04\x00\x02\x00\x00", b"\x90\x03\x00\x01\x00", b"\x90\x04\x00\x01\x00\x02"])
def test_a_suback_for_something_else(answer):
    core = up()
    core.subscribe(["a/b", "c"], 0)
    with pytest.raises(ProtocolError):
        events(core, answer)


def test_disconnect_says_goodbye_once():
    core = up()
    core.disconnect()
    core.disconnect()
    assert drain(core) == b"\xe0\x00"
    assert not send(core, 1)


def test_a_new_connection_forgets_half_a_packet_and_what_was_in_flight():
    core = up()
    send(core, 1)
    events(core, b"\x30\x7f\x00")
    core.close()
    core.connect(0)
    drain(core)
    assert events(core, CONNACK + puback(1)) == [(CONNECTED, None)]
    assert core.stray_acks == 1
    assert core.window.count == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: topic("a/+"),
        lambda: topic("#"),
        lambda: topic(""),
        lambda: Publisher("x", password="p"),
        lambda: Publisher("x", keepalive_s=65536),
        lambda: Publisher("x", window=0),
        lambda: Publisher("x" * 5000),
        lambda: Publisher("x" * 65536),
    ],
)
def test_the_caller_is_told_what_cannot_be(make):
    with pytest.raises(ValueError, match=r"."):
        make()


def test_bytes_are_not_lent_twice():
    core = up(out_bytes=60)
    core.out.length = 58
    core.receive(puback(1), 4, 0)
    core.next_event(0)
    with pytest.raises(ValueError, match="not read"):
        core.receive(puback(1), 4, 0)
