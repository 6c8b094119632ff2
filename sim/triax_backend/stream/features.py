"""Feature rows as arrays, and a FeatureBatch written and read without a parser.

`FEATURE` is the row in memory; axes in the order x, y, z; unit g unless a name says otherwise. On the wire every field of a row is
present and every varint is padded to a fixed width, which protobuf allows, so that rows with one length of `model` have one layout:
encoding is filling columns, decoding is a view. Batches of any other producer go through Google's parser into the same rows.
"""

from functools import cache
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from triax_proto.errors import Malformed
from triax_proto.v1.event_pb2 import FeatureBatch

__all__ = ["FEATURE", "LATE", "MODEL_LENGTH", "WARMING", "decode", "encode"]

MODEL_LENGTH = 48  # bytes of "name/version"; a longer one does not fit the row and is refused where the manifest is read
LATE = 1 << 16  # FeatureFlag
WARMING = 1 << 17

FEATURE = np.dtype(
    [
        ("device", "<u8"),
        ("boot", "<u4"),
        ("window", "<u4"),  # sequence // 10 of the last window of the row
        ("windows", "<u4"),  # 1, 10 or 60
        ("frames", "<u4"),
        ("samples", "<u8"),
        ("time_us", "<i8"),
        ("time_error_us", "<u4"),
        ("rate_hz", "<f4"),
        ("mean", "<f4", 3),
        ("rms", "<f4", 3),
        ("peak", "<f4", 3),
        ("crest", "<f4", 3),
        ("minimum", "<f4", 3),
        ("maximum", "<f4", 3),
        ("glitches", "<u4"),
        ("lost_samples", "<u4"),
        ("flags", "<u4"),
        ("temperature_c", "<f4"),
        ("spike_score", "<f4"),
        ("score", "<f4"),
        ("model", f"S{MODEL_LENGTH}"),
    ]
)

_PADDED = 5  # bytes of a padded varint: 35 bits
# number, name, numpy type on the wire; "v": padded varint. `model` (16) closes the row.
_FIELDS = (
    (1, "device", "<u8"),
    (2, "boot", "<u4"),
    (3, "window", "<u4"),
    (4, "frames", "v"),
    (5, "samples", "v"),
    (6, "time_us", "<i8"),
    (7, "windows", "v"),
    (8, "mean", "3<f4"),
    (9, "rms", "3<f4"),
    (10, "peak", "3<f4"),
    (11, "crest", "3<f4"),
    (12, "minimum", "3<f4"),
    (13, "maximum", "3<f4"),
    (14, "glitches", "v"),
    (15, "score", "<f4"),
    (17, "flags", "v"),
    (18, "temperature_c", "<f4"),
    (19, "time_error_us", "<u4"),
    (20, "rate_hz", "<f4"),
    (21, "lost_samples", "<u4"),
    (22, "spike_score", "<f4"),
)
_MODEL = 16


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@cache
def _layout(model: int) -> tuple[np.dtype[Any], bytes, np.ndarray[Any, Any]]:
    """dtype over the wire bytes of a row with `model` bytes of model, a row of zeros, and a mask of the bytes that never change."""
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    wire, fixed = bytearray(), bytearray()
    for number, name, kind in _FIELDS:
        form: Any
        if kind == "v":
            head, size, form = _varint(number << 3), _PADDED, ("u1", (_PADDED,))
        elif kind[0] == "3":
            head, size, form = _varint(number << 3 | 2) + b"\x0c", 12, (kind[1:], (3,))
        else:
            size = np.dtype(kind).itemsize
            head, form = _varint(number << 3 | (1 if size == 8 else 5)), kind
        names.append(name)
        formats.append(form)
        offsets.append(len(wire) + len(head))
        wire += head + bytes(size)
        fixed += b"\1" * len(head) + bytes(size)
    head = _varint(_MODEL << 3 | 2) + _varint(model)
    if model:
        names.append("model")
        formats.append(f"S{model}")
        offsets.append(len(wire) + len(head))
    wire += head + bytes(model)
    fixed += b"\1" * len(head) + bytes(model)
    outer = b"\x0a" + _varint(len(wire))  # FeatureBatch.features
    wire[:0] = outer
    fixed[:0] = b"\1" * len(outer)
    offsets = [offset + len(outer) for offset in offsets]
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": len(wire)})
    return dtype, bytes(wire), np.frombuffer(bytes(fixed), dtype=bool)


def _pad(values: np.ndarray[Any, Any], out: np.ndarray[Any, Any]) -> None:
    """Varints of exactly _PADDED bytes into `out` (rows, _PADDED)."""
    rest = values.astype(np.uint64)
    for index in range(_PADDED):
        out[:, index] = (rest & np.uint64(0x7F)).astype(np.uint8) | (0x80 if index < _PADDED - 1 else 0)
        rest >>= np.uint64(7)


def _unpad(bytes_: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Values of padded varints; None if one has another width."""
    if (bytes_[:, :-1] < 0x80).any() or (bytes_[:, -1] > 0x7F).any():
        return None
    out = np.zeros(len(bytes_), np.uint64)
    for index in range(_PADDED):
        out |= (bytes_[:, index].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * index)
    return out


def _encode_one_model(rows: np.ndarray[Any, Any]) -> bytes:
    dtype, wire, _ = _layout(len(rows["model"][0]))
    out = np.frombuffer(bytearray(wire) * len(rows), dtype=dtype)
    for _, name, kind in _FIELDS:
        if kind == "v":
            _pad(rows[name], out[name])
        else:
            out[name] = rows[name]
    if "model" in (dtype.names or ()):
        out["model"] = rows["model"]
    return out.tobytes()


def encode(rows: np.ndarray[Any, Any]) -> bytes:
    """FEATURE rows as the bytes of a FeatureBatch, in the order of rows, rows of one model at a time."""
    if not len(rows):
        return b""
    first = rows["model"][0]
    same = rows["model"] == first
    if same.all():
        return _encode_one_model(rows)
    return _encode_one_model(rows[same]) + encode(rows[~same])


def _decode_uniform(data: bytes) -> np.ndarray[Any, Any] | None:
    """Rows of one layout; None if the bytes are laid out otherwise."""
    bare = len(_layout(0)[1])
    if len(data) < bare:
        return None
    for model in range(MODEL_LENGTH + 1):
        dtype, wire, fixed = _layout(model)
        if len(data) % len(wire) == 0 and data[: len(wire)][:3] == wire[:3]:
            break
    else:
        return None
    raw = np.frombuffer(data, np.uint8).reshape(-1, len(wire))
    if not (raw[:, fixed] == np.frombuffer(wire, np.uint8)[fixed]).all():
        return None
    seen = raw.view(dtype).reshape(-1)
    rows = np.zeros(len(seen), FEATURE)
    for _, name, kind in _FIELDS:
        values = _unpad(seen[name]) if kind == "v" else seen[name]
        if values is None:
            return None
        rows[name] = values
    if model:
        rows["model"] = seen["model"]
    return rows


def decode(data: bytes) -> np.ndarray[Any, Any]:
    """FEATURE rows of a FeatureBatch. Raises Malformed."""
    if not data:
        return np.zeros(0, FEATURE)
    rows = _decode_uniform(data)
    if rows is not None:
        return rows
    batch = FeatureBatch()
    try:
        batch.ParseFromString(data)
    except DecodeError as error:
        raise Malformed(f"{len(data)} bytes are no FeatureBatch: {error}") from None
    rows = np.zeros(len(batch.features), FEATURE)
    for row, message in zip(rows, batch.features, strict=True):
        for _, name, kind in _FIELDS:
            value = getattr(message, name)
            if kind[0] == "3" and len(value) != 3:
                raise Malformed(f"{name} of a Feature has {len(value)} values, not 3")
            row[name] = value
        row["model"] = message.model.encode()
    return rows
