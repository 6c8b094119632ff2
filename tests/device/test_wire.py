"""Messages against Google's protobuf: the same bytes out, the same meaning in, and nothing worse than WireError on garbage."""

import math

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from triax import messages, wire
from triax.errors import WireError
from triax_proto.v1 import device_pb2, event_pb2

MESSAGES = {
    "info": (messages.DEVICE_INFO, device_pb2.DeviceInfo),
    "status": (messages.STATUS, device_pb2.Status),
    "config": (messages.CONFIG, device_pb2.Config),
    "ack": (messages.CONFIG_ACK, device_pb2.ConfigAck),
    "event": (messages.EVENT, event_pb2.Event),
}
ALL = pytest.mark.parametrize("name", MESSAGES)
VALUES = {
    wire.UINT32: st.integers(0, 2**32 - 1),
    wire.UINT64: st.integers(0, 2**64 - 1),
    wire.SINT32: st.integers(-(2**31), 2**31 - 1),
    wire.BOOL: st.booleans(),
    wire.FIXED32: st.integers(0, 2**32 - 1),
    wire.FIXED64: st.integers(0, 2**64 - 1),
    wire.SFIXED64: st.integers(-(2**63), 2**63 - 1),
    wire.FLOAT: st.floats(width=32, allow_nan=False),
    wire.STRING: st.text(max_size=200),
    wire.BYTES: st.binary(max_size=200),
    wire.FLOATS: st.lists(st.floats(width=32, allow_nan=False), max_size=4),
}
ENUMS = {"reason", "result", "cause", "kind", "loss_detection", "temperature_class"}
DETAILS = ["gap", "clock_fix", "self_test"]


def entries(schema):
    """(number, name, kind) of each field."""
    return list(zip(schema[::3], schema[1::3], schema[2::3], strict=True))


def is_message(entry):
    return isinstance(entry[2], tuple)


def one_detail(drawn):
    message, detail = drawn
    return {key: value for key, value in message.items() if key not in DETAILS or key == detail}


def of_schema(schema):
    def value(entry):
        if is_message(entry):
            return of_schema(entry[2])
        if entry[1] in ENUMS and entry[2] == wire.UINT32:
            return st.integers(0, 3)
        return VALUES[entry[2] & 15]

    strategy = st.fixed_dictionaries({}, optional={entry[1]: value(entry) for entry in entries(schema)})
    if schema is messages.EVENT:  # a oneof holds one
        strategy = st.tuples(strategy, st.sampled_from(DETAILS)).map(one_detail)
    return strategy


def to_google(schema, cls, message):
    fields = {}
    for entry in entries(schema):
        if entry[1] in message:
            inner = cls.DESCRIPTOR.fields_by_name[entry[1]].message_type
            fields[entry[1]] = to_google(entry[2], inner._concrete_class, message[entry[1]]) if inner else message[entry[1]]
    return cls(**fields)


def from_google(schema, google):
    message = {}
    for entry in entries(schema):
        value = getattr(google, entry[1])
        if is_message(entry):
            if google.HasField(entry[1]):
                message[entry[1]] = from_google(entry[2], value)
        elif entry[2] == wire.FLOATS:
            message[entry[1]] = list(value)
        elif not entry[2] & wire.OPTIONAL or google.HasField(entry[1]):
            message[entry[1]] = value & 0xFFFFFFFF if entry[2] & 15 == wire.UINT32 else value
    return message


@ALL
def test_the_tables_say_what_the_proto_files_say(name):
    def check(schema, descriptor):
        ours = {entry[0]: entry for entry in entries(schema)}
        theirs = {field.number: field for field in descriptor.fields}
        assert set(ours) <= set(theirs)
        missing = {theirs[number].name for number in set(theirs) - set(ours)}
        assert missing <= {"finding", "conflict"}, "only the stream writes these"
        for number, entry in ours.items():
            assert entry[1] == theirs[number].name
            if is_message(entry):
                check(entry[2], theirs[number].message_type)
            else:
                assert bool(entry[2] & wire.OPTIONAL) == theirs[number].has_presence

    schema, cls = MESSAGES[name]
    check(schema, cls.DESCRIPTOR)


@ALL
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_same_bytes_as_google(name, data):
    schema, cls = MESSAGES[name]
    message = data.draw(of_schema(schema))
    google = to_google(schema, cls, message)
    encoded = wire.encode(schema, message)
    assert encoded == google.SerializeToString(deterministic=True)
    assert wire.decode(schema, encoded) == from_google(schema, google)


def same(ours, theirs):
    """Equal, not-a-number included."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs))


def agrees_with_google(schema, cls, data):
    try:
        ours = wire.decode(schema, data)
    except WireError:
        return
    try:
        google = cls.FromString(data)
    except DecodeError:
        # Details that only the stream writes are unknown to the node, which looks no further into them.
        assert schema is messages.EVENT, f"Google refuses what we took: {data!r}"
        return
    if schema is not messages.EVENT:  # a oneof that came twice keeps the last for Google, each for us
        assert same(ours, from_google(schema, google)), data


@ALL
@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=60))
def test_fuzz_garbage(name, data):
    agrees_with_google(*MESSAGES[name], data)


@ALL
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_fuzz_messages_that_were_damaged(name, data):
    schema, cls = MESSAGES[name]
    encoded = bytearray(wire.encode(schema, data.draw(of_schema(schema))))
    if encoded and data.draw(st.booleans()):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        encoded += wire.encode(schema, data.draw(of_schema(schema)))  # merged
    agrees_with_google(schema, cls, bytes(encoded[: data.draw(st.integers(0, len(encoded)))]))


def test_truncation_at_every_byte_is_refused_or_a_shorter_message():
    message = {
        "version": 300,
        "link": {"host": "broker", "port": 8883, "tls": True},
        "odr_hz": 16000.0,
        "command": {"id": 7, "kind": 1},
    }
    encoded = wire.encode(messages.CONFIG, message)
    for cut in range(len(encoded)):
        agrees_with_google(messages.CONFIG, device_pb2.Config, encoded[:cut])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x08", "cut short at byte 1"),
        (b"\x08\x80", "cut short at byte 2"),
        (b"\x12\x05ab", "5 bytes wanted at byte 2, 2 are there"),
        (b"\x00\x00", "field number 0 at byte 0"),
        (b"\x0b\x0c", "wire type 3 at byte 0"),
        (b"\x0e", "wire type 6 at byte 0"),
        (b"\x08" + b"\xff" * 11, "more than 64 bits"),
        (b"\x12\x03\x0a\x01\xff", "no UTF-8"),
        (bytes(4097), "at most 4096"),
    ],
)
def test_what_is_wrong_and_where(data, what):
    with pytest.raises(WireError, match=what):
        wire.decode(messages.CONFIG, data)


def test_unknown_fields_and_wrong_wire_types_are_skipped():
    later = b"\xf8\x07\x05" + b"\xf2\x07\x02ab" + b"\x0d\x01\x02\x03\x04"  # 127 twice, then version as fixed32
    assert wire.decode(messages.CONFIG, later + b"\x08\x09") == {"version": 9}


def test_a_message_inside_itself_is_bounded_by_the_schema():
    data = b"\x12\x00"
    for _ in range(10):
        data = b"\x12" + bytes([len(data)]) + data
    wire.decode(messages.CONFIG, data)


def test_a_field_that_does_not_exist_is_the_callers_fault():
    with pytest.raises(ValueError, match="no such field: versoin"):
        wire.encode(messages.CONFIG, {"versoin": 1})


def test_a_message_that_comes_twice_is_merged_as_google_merges_it():
    first = {"version": 3, "link": {"host": "a", "port": 1}, "odr_hz": 5.0, "command": {"id": 1, "manifest": b"x"}}
    second = {"link": {"host": "b", "tls": False}, "qos": 0, "command": {"kind": 2}}
    data = wire.encode(messages.CONFIG, first) + wire.encode(messages.CONFIG, second)
    want = from_google(messages.CONFIG, device_pb2.Config.FromString(data))
    assert wire.decode(messages.CONFIG, data) == want
    assert want["link"] == {"host": "b", "port": 1, "tls": False}
    test = {"result": 1, "response_g": [1.0], "reason": "x"}
    data = wire.encode(messages.EVENT, {"self_test": test}) + wire.encode(messages.EVENT, {"self_test": {"response_g": [2.0]}})
    assert wire.decode(messages.EVENT, data) == from_google(messages.EVENT, event_pb2.Event.FromString(data))
