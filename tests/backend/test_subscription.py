"""The bridge's side of MQTT without a socket: messages however the bytes come, pings, refusals."""

import numpy as np
import pytest
from triax_backend import mqtt_wire as wire
from triax_backend.frame_rows import Rows
from triax_backend.subscription import PACKET_BYTES, TOPICS, Ended, Oversized, Subscription
from triax_proto import names

from .wire_client import frames

DEVICE = 0xA1
SUBACK = wire.write_suback(1, [1] * len(TOPICS) + [0])


def _publishes(first=0, count=5):
    topic = names.mqtt_topic(DEVICE, "frame")
    return b"".join(
        wire.write_publish(topic, row.tobytes(), qos=1, packet_id=n + 1) for n, row in enumerate(frames(DEVICE, first, count))
    )


INFO = wire.write_publish(names.mqtt_topic(DEVICE, "info"), b"born", qos=1, packet_id=99, retain=True)
STREAM = wire.write_connack(0) + SUBACK + _publishes() + INFO + wire.pingresp + _publishes(5, 40) + INFO


def _feed(session, data, step):
    """All messages of `data`, handed over `step` bytes at a time, as (topic or device, packet id)."""
    out, rest = [], b""
    for at in range(0, len(data), step):
        rest += data[at : at + step]
        items, used = session.feed(np.frombuffer(rest, np.uint8))
        rest = rest[used:]
        for item in items:
            if isinstance(item, Rows):
                out += [(bytes(text).decode(), int(n)) for text, n in zip(item.texts, item.packet_ids, strict=True)]
            elif item.topic.endswith("/frame"):  # came in pieces
                out.append((item.topic.split("/")[2], item.packet_id))
            else:
                out.append((item.topic, item.packet_id))
    return out, rest


@pytest.mark.parametrize("step", [1, 7, 311, 1_000, 1 << 20])
def test_messages_do_not_depend_on_how_bytes_come(step):
    session = Subscription("b", None, None, 30, 0.0)
    found, rest = _feed(session, STREAM + b"\x32", step)
    device, info = f"{DEVICE:016x}", names.mqtt_topic(DEVICE, "info")
    want = [(device, n) for n in range(1, 6)] + [(info, 99)] + [(device, n) for n in range(1, 41)] + [(info, 99)]
    assert found == want
    assert rest == b"\x32"
    assert session.subscribed


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (wire.write_connack(5), Ended, "refuses us: not authorised"),
        (wire.write_connack(4), Ended, "wrong user name or password"),
        (_publishes(), wire.BadPacket, "before CONNACK"),
        (
            wire.write_connack(0) + wire.write_suback(1, [0x80] + [1] * len(TOPICS)),
            Ended,
            "subscribe to triax/v1/./frame: see its access list",
        ),
        (wire.write_connack(0) + wire.write_suback(1, [0] * len(TOPICS) + [0]), Ended, "grants only QoS 0"),
        (wire.write_connack(0) + wire.write_suback(1, [1]), wire.BadPacket, "1 codes for 8 filters"),
        (wire.write_connack(0) + wire.pingreq, wire.BadPacket, "type 12 from a broker"),
        (wire.write_connack(0) + b"\x00\x00", wire.BadPacket, "reserved"),
    ],
)
def test_a_broker_that_does_not_want_us_or_speaks_no_mqtt(data, error, text):
    session = Subscription("b", None, None, 30, 0.0)
    with pytest.raises(error, match=text):
        session.feed(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("step", [50_000, 1 << 23])
def test_a_message_too_large_is_skipped_and_its_head_kept(step):
    big = wire.write_publish(names.mqtt_topic(DEVICE, "raw"), b"R" * (PACKET_BYTES + 5_000_000), qos=1, packet_id=500)
    session = Subscription("b", None, None, 30, 0.0)
    rest, items = b"", []
    data = wire.write_connack(0) + big + _publishes()
    for at in range(0, len(data), step):
        rest += data[at : at + step]
        assert len(rest) < 200_000 or step > len(data)
        more, used = session.feed(np.frombuffer(rest, np.uint8))
        items += more
        rest = rest[used:]
    assert isinstance(items[0], Oversized)
    assert (items[0].topic, items[0].packet_id) == (names.mqtt_topic(DEVICE, "raw"), 500)
    assert items[0].payload.startswith(b"RRRR")
    assert sum(len(item.packet_ids) if isinstance(item, Rows) else 1 for item in items[1:]) == 5
    assert not rest


def _up(now_s=0.0):
    session = Subscription("b", None, None, 30, now_s)
    session.feed(np.frombuffer(wire.write_connack(0) + SUBACK, np.uint8))
    session.heard(now_s)
    session.sent(now_s)
    assert session.due(now_s, paused=False)  # SUBSCRIBE
    return session


def test_pings_while_quiet_and_ends_without_an_answer():
    session = _up()
    assert session.due(15.0, paused=False) == b""
    assert session.due(15.1, paused=False) == wire.pingreq
    assert session.due(20.0, paused=False) == b""
    session.heard(21.0)
    assert session.due(40.0, paused=False) == wire.pingreq
    with pytest.raises(Ended, match="silent for 35 s"):
        session.due(56.0, paused=False)


def test_pings_also_while_nothing_is_read():
    session = _up()
    sent = [now for now in range(1, 120) if session.due(float(now), paused=True)]
    assert sent == [16, 32, 48, 64, 80, 96, 112]
    assert session.due(121.0, paused=False) == b""  # silence while paused proves nothing


def test_a_broker_that_does_not_answer_connect():
    session = Subscription("b", None, None, 30, 0.0)
    assert session.due(9.0, paused=False) == b""
    with pytest.raises(Ended, match="does not answer CONNECT"):
        session.due(11.0, paused=False)
