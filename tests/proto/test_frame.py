"""numpy codec == Google protobuf, byte for byte; every damaged frame is an error, never a wrong frame."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from triax_proto import frame as codec
from triax_proto.errors import FrameError, Malformed, Truncated
from triax_proto.v1.frame_pb2 import Frame

VALUES = st.sampled_from([0, 1, 9, 10, 11, 31, 32, 100])


def filled(seed, values=10, count=1):
    """Frames with random bits in every field, checksum set."""
    rng = np.random.default_rng(seed)
    frames = codec.empty(count, values)
    for name in frames.dtype.names:
        kind = frames.dtype[name].base
        shape = frames[name].shape
        if kind.kind == "f":
            frames[name] = rng.normal(size=shape)
        else:
            limits = np.iinfo(kind)
            frames[name] = rng.integers(limits.min, limits.max, shape, kind, endpoint=True)
    codec.encode(frames)
    return frames


def by_google(frame):
    """The same frame, field by field through Google's message."""
    message = Frame()
    for name in frame.dtype.names:
        value = frame[name]
        if value.shape:
            getattr(message, name).extend(value.tolist())
        else:
            setattr(message, name, value.item())
    return message.SerializeToString(deterministic=True)


@given(st.integers(0, 2**32 - 1), VALUES)
def test_same_bytes_as_google(seed, values):
    frames = filled(seed, values, 3)
    wire = frames.view(np.uint8).reshape(3, -1)
    assert wire.shape[1] == codec.wire_size(values)
    for frame, row in zip(frames, wire, strict=True):
        assert by_google(frame) == row.tobytes()


def test_ten_values_are_273_bytes():
    assert codec.wire_size(10) == 273


@given(st.integers(0, 2**32 - 1), VALUES)
def test_decode_is_the_inverse(seed, values):
    frames = filled(seed, values, 4)
    again = codec.decode(frames.tobytes(), values)
    assert again is not None
    assert again.tobytes() == frames.tobytes()
    assert codec.checksums_ok(again).all()


def test_wire_size_names_the_number_of_values():
    for values in range(300):
        assert codec.values_of(codec.wire_size(values)) == values
    assert codec.values_of(codec.wire_size(10) + 1) is None
    assert codec.values_of(0) is None


def test_every_truncation_is_an_error():
    wire = filled(1).tobytes()
    for cut in range(len(wire)):
        with pytest.raises(FrameError):
            codec.parse(wire[:cut])


def test_every_flipped_bit_is_an_error():
    wire = bytearray(filled(2).tobytes())
    for bit in range(len(wire) * 8):
        wire[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            codec.parse(bytes(wire))
        wire[bit // 8] ^= 1 << bit % 8


def sealed(body):
    return b"\x0d" + zlib.crc32(body).to_bytes(4, "little") + body


@given(st.integers(0, 2**32 - 1), VALUES)
def test_unknown_fields_and_other_orders_parse(seed, values):
    frame = filled(seed, values)
    body = frame.tobytes()[codec.CHECKSUM_START :]
    unknown = b"\xa2\x06\x03new"  # field 100, length-delimited
    for wire in (sealed(body + unknown), sealed(unknown + body)):
        parsed = codec.parse(wire)
        for name in set(frame.dtype.names) - {"checksum"}:
            assert parsed[name].tobytes() == frame[name].tobytes()


def test_wrong_wire_type_is_not_a_value():
    body = filled(3).tobytes()[codec.CHECKSUM_START :]
    assert body[0] == 2 << 3 | 1
    varint_device = b"\x10\x05" + body[9:]
    with pytest.raises(Malformed, match="without device"):
        codec.parse(sealed(varint_device))


def test_unpacked_lists_are_read_too():
    message = Frame(device=5, sequence=1, boot=2)
    body = message.SerializeToString() + b"".join(b"%c\1\0\0\0" % (n << 3 | 5) for n in (12, 13, 14))
    parsed = codec.parse(sealed(body))
    assert parsed["x"].tolist() == [[1]]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Frame(sequence=1), "without device"),
        (Frame(device=1, sequence=1, x=[1], y=[1, 2], z=[1]), "x, y, z have 1, 2, 1"),
        (Frame(device=1, sequence=1, minimum=[1, 2]), "minimum has 2"),
    ],
)
def test_message_says_what_is_wrong(message, says):
    with pytest.raises(Malformed, match=says):
        codec.parse(sealed(message.SerializeToString()))


def test_partial_last_frame_is_truncated():
    with pytest.raises(Truncated, match="no whole number"):
        codec.decode(filled(4).tobytes()[:-1])


def test_groups_keep_the_good_and_name_the_bad():
    ordinary = [row.tobytes() for row in filled(5, 10, 3).view(np.uint8).reshape(3, -1)]
    short = filled(6, 4).tobytes()
    flipped = bytearray(ordinary[1])
    flipped[100] ^= 1
    frames = [ordinary[0], short, bytes(flipped), ordinary[2], b"", b"\xff" * 273]
    good, bad = set(), set()
    for indices, result in codec.groups(frames):
        (bad if isinstance(result, FrameError) else good).update(indices)
    assert good == {0, 1, 3}
    assert bad == {2, 4, 5}


@given(hnp.arrays(np.uint8, st.integers(0, 600)))
def test_garbage_is_an_error_or_a_proved_frame(data):
    try:
        frame = codec.parse(data.tobytes())
    except FrameError:
        return
    assert zlib.crc32(data.tobytes()[codec.CHECKSUM_START :]) == frame["checksum"][0]
