"""Protobuf for the small messages of a node: DeviceInfo, Status, Config, ConfigAck, Event. Frames have their own encoder.

A message is a dict, its schema a `table` of (number, name, kind) as in triax.messages; the kind of an inner message is its schema.
`encode` gives the same bytes as Google's protobuf; `decode` takes what Google's takes except for groups, which nobody sends. Both
allocate: these messages are few. A decoded dict has each plain field (zero where it was absent) and those `optional` and inner
ones that were there.
"""

import struct

from triax.errors import WireError

try:
    from micropython import const
except ImportError:

    def const(value):
        return value


UINT32 = const(0)
UINT64 = const(1)
SINT32 = const(2)
BOOL = const(3)
FIXED32 = const(4)
FIXED64 = const(5)
SFIXED64 = const(6)
FLOAT = const(7)
STRING = const(8)
BYTES = const(9)
FLOATS = const(10)  # repeated, packed
OPTIONAL = const(16)  # added to a kind: zero is written too, absence is told

_KIND = const(15)
_VARINT = const(0)
_I64 = const(1)
_LEN = const(2)
_I32 = const(5)
_WIRE_TYPES = const((_VARINT, _VARINT, _VARINT, _VARINT, _I32, _I64, _I64, _I32, _LEN, _LEN, _LEN))
_FORMATS = {FIXED32: "<I", FIXED64: "<Q", SFIXED64: "<q", FLOAT: "<f"}
_ZEROS = const((0, 0, 0, False, 0, 0, 0, 0.0, "", b""))
_U32 = const(0xFFFFFFFF)


def table(*fields) -> tuple:
    """A schema of fields (number, name, kind), in one row: a tuple for each would take three times the memory of a small heap."""
    row = []
    for field in fields:
        row.extend(field)
    return tuple(row)


def _is_message(kind) -> bool:
    return isinstance(kind, tuple)


def _wire_type(kind) -> int:
    return _LEN if _is_message(kind) else _WIRE_TYPES[kind & _KIND]


def encode(schema, message: dict) -> bytes:
    """The bytes of a message. Raises ValueError if it has a field that the schema does not know."""
    out = bytearray()
    left = len(message)
    for at in range(0, len(schema), 3):
        name = schema[at + 1]
        if name in message:
            left -= 1
            kind = schema[at + 2]
            if _is_message(kind) or kind & OPTIONAL or _is_set(kind, message[name]):
                _put_varint(out, schema[at] << 3 | _wire_type(kind))
                _put(out, kind, message[name])
    if left:
        raise ValueError("no such field: %s" % ", ".join([name for name in message if name not in schema[1::3]]))
    return bytes(out)


def _is_set(kind: int, value) -> bool:
    if kind == FLOAT:
        return struct.pack("<f", value) != b"\0\0\0\0"  # minus zero is set
    return bool(value)


def _put(out: bytearray, kind, value) -> None:
    if _is_message(kind):
        _put_chunk(out, encode(kind, value))
        return
    kind &= _KIND
    if kind in _FORMATS:
        out.extend(struct.pack(_FORMATS[kind], value))
    elif kind <= BOOL:
        value = int(value)
        _put_varint(out, (value << 1 ^ value >> 31) & _U32 if kind == SINT32 else value)
    elif kind == STRING:
        _put_chunk(out, value.encode())
    elif kind == BYTES:
        _put_chunk(out, value)
    else:
        _put_chunk(out, struct.pack("<%df" % len(value), *value))


def _put_chunk(out: bytearray, data) -> None:
    _put_varint(out, len(data))
    out.extend(data)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def decode(schema, data, limit: int = 4096) -> dict:
    """The message of these bytes. Raises WireError: too long, cut short, or no protobuf; says what and at which byte."""
    if len(data) > limit:
        raise WireError("a message of %d bytes, at most %d are read" % (len(data), limit))
    return _decode(schema, data, 0, len(data))


def _decode(schema, data, at: int, end: int) -> dict:
    message = {}
    for i in range(0, len(schema), 3):
        kind = schema[i + 2]
        if kind == FLOATS:
            message[schema[i + 1]] = []
        elif not _is_message(kind) and kind < OPTIONAL:
            message[schema[i + 1]] = _ZEROS[kind]
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number = tag >> 3
        if not number or tag > _U32:
            raise WireError("field number %d at byte %d" % (number, start))
        value, at = _raw(data, at, end, tag & 7, start)
        for i in range(0, len(schema), 3):
            if schema[i] == number:
                _set(message, schema[i + 1], schema[i + 2], tag & 7, data, value)
                break
    return message


def _raw(data, at: int, end: int, wire_type: int, start: int):
    """What stands behind a tag: an int for a varint, else (first byte, byte after). Then the byte after all of it."""
    if wire_type == _VARINT:
        return _varint(data, at, end)
    if wire_type == _LEN:
        length, at = _varint(data, at, end)
    elif wire_type == _I64:
        length = 8
    elif wire_type == _I32:
        length = 4
    else:
        raise WireError("wire type %d at byte %d" % (wire_type, start))
    if length > end - at:
        raise WireError("%d bytes wanted at byte %d, %d are there" % (length, at, end - at))
    return (at, at + length), at + length


def _varint(data, at: int, end: int):
    value = 0
    shift = 0
    while True:
        if at >= end:
            raise WireError("cut short at byte %d" % at)
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
        shift += 7
        if shift > 63:
            break
    raise WireError("a number of more than 64 bits at byte %d" % at)


def _set(message: dict, name: str, kind, wire_type: int, data, value) -> None:
    """Put a value into the message. Another wire type than the schema's is an unknown field, as Google's parser has it."""
    if kind == FLOATS and wire_type == _I32:
        message[name].append(struct.unpack("<f", bytes(data[value[0] : value[1]]))[0])
    elif wire_type != _wire_type(kind):
        return
    elif _is_message(kind):
        inner = _decode(kind, data, value[0], value[1])
        message[name] = _merged(kind, message[name], inner) if name in message else inner
    elif kind & _KIND <= BOOL:
        message[name] = _number(kind & _KIND, value)
    else:
        message[name] = _chunk(kind & _KIND, bytes(data[value[0] : value[1]]), value[0], message.get(name))


def _number(kind: int, value: int):
    if kind == UINT64:
        return value
    if kind == BOOL:
        return value != 0
    value &= _U32
    return value >> 1 ^ -(value & 1) if kind == SINT32 else value


def _chunk(kind: int, data: bytes, at: int, before):
    if kind in _FORMATS:
        return struct.unpack(_FORMATS[kind], data)[0]
    if kind == STRING:
        try:
            return str(data, "utf-8")
        except UnicodeError:
            raise WireError("text at byte %d is no UTF-8" % at)
    if kind == FLOATS:
        if len(data) % 4:
            raise WireError("%d bytes of floats at byte %d" % (len(data), at))
        return before + list(struct.unpack("<%df" % (len(data) // 4), data))
    return data


def _merged(schema, old: dict, new: dict) -> dict:
    """A message that comes twice is merged, field by field."""
    for at in range(0, len(schema), 3):
        name = schema[at + 1]
        kind = schema[at + 2]
        if name not in new:
            continue
        if _is_message(kind) and name in old:
            _merged(kind, old[name], new[name])
        elif kind == FLOATS:
            old[name] = old[name] + new[name]
        elif _is_message(kind) or kind & OPTIONAL or _is_set(kind, new[name]):  # a plain zero was absent
            old[name] = new[name]
    return old
