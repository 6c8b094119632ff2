"""MQTT packets: written as the standard says, cut out of streams however they come."""

import pytest
from triax_sim import packet


def pieces(data, sizes):
    """What `cut` finds if the stream comes in pieces of these sizes, what is incomplete kept."""
    out, rest, at = [], b"", 0
    while at < len(data):
        size = sizes[len(out) % len(sizes)]
        rest += data[at : at + size]
        at += size
        used = 0
        for kind, body, after in packet.cut(rest):
            out.append((kind, body))
            used = after
        rest = rest[used:]
    assert not rest
    return out


STREAM = b"\x20\x02\x00\x00" + b"\x40\x02\x01\x05" + b"\xd0\x00" + packet.publish("a/b", b"x" * 300)


@pytest.mark.parametrize("sizes", [(1000,), (1,), (3,), (2, 5, 7)])
def test_a_stream_however_it_is_cut(sizes):
    assert pieces(STREAM, sizes) == [
        (0x20, b"\x00\x00"),
        (0x40, b"\x01\x05"),
        (0xD0, b""),
        (0x30, b"\x00\x03a/b" + b"x" * 300),
    ]


def test_a_length_that_never_ends():
    with pytest.raises(packet.BadReply, match="more than four bytes"):
        list(packet.cut(b"\x30\xff\xff\xff\xff\x01"))


def test_connect_with_everything_and_with_nothing():
    plain = packet.connect("node", 60)
    assert plain == b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04node"
    full = packet.connect("n", 5, ("t/s", b"gone"), "user", "word")
    assert full[9] == 0x02 | 0x04 | 0x08 | 0x20 | 0x80 | 0x40  # clean, will, its QoS 1, retained, user name, password
    assert full[12:] == b"\x00\x01n\x00\x03t/s\x00\x04gone\x00\x04user\x00\x04word"


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384])
def test_lengths_of_publish(size):
    ((kind, body, after),) = packet.cut(packet.publish("t", bytes(size), retain=True))
    assert (kind, len(body), after) == (0x31, 3 + size, len(packet.publish("t", bytes(size))))
    head = packet.publish_head("t", 1, size)
    assert head[0] == 0x32
    ((_, body, _),) = packet.cut(head + b"\x00\x07" + bytes(size))
    assert body[:5] == b"\x00\x01t\x00\x07"
