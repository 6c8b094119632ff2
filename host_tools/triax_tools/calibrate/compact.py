"""The form of a calibration that lives on the node: at most 4 KiB, float32 for a reader without JSON, the whole file behind it.

    0   "TXCB"                                     magic
    4   u8 version = 1, u8 offset order, u8 gain order, u8 flags (1: case rotation)
    8   u64 device                                 EUI-64
    16  i64 expires                                UTC seconds
    24  16 bytes part, 16 bytes sensor serial      zero-padded
    56  f32 range_g, scale_g, reference_c, low_c, high_c
    76  f32 b[3], E[9], R[9]                       counts; U = scale_g (1 + E), by rows; sensor to case
    160 f32 offset[order][3], gain[order][3]       counts / C^n, relative / C^n
    ..  u16 length, document                       the file's canonical JSON, as it is: a compressor's bytes, and with them
                                                   the hash, would depend on its version
    end u32 CRC-32 of everything before

All little-endian. The document gives back the file bit for bit; the float32 block is what a microcontroller or a DSP applies:
c = (m - b - b(T)), c = c - c k(T) / (1 + k(T)), a = scale_g (c + E c). Written so, the large terms are rounded three times in
all and every small factor multiplies something small: under 3 ug at 16 g, where U (m - b) / (1 + k) loses 5.
"""

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from triax_tools.calibrate.document import Document, canonical, parse
from triax_tools.calibrate.errors import BadDocument
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.recording import Identity

__all__ = ["LIMIT", "Reader", "decode", "digest", "encode", "read_float32"]

LIMIT = 4096  # bytes: the node's store and its topic (design.md 3.2)
_MAGIC, _VERSION = b"TXCB", 1
_HEAD = struct.Struct("<4sBBBBQq16s16s5f")
_NINE = struct.Struct("<3f9f9f")
_ROTATED = 1


def digest(blob: bytes) -> bytes:
    """SHA-256: what the node echoes in DeviceInfo.calibration_hash, and what results are marked with."""
    return hashlib.sha256(blob).digest()


def encode(document: Document) -> bytes:
    """Bytes for the node. Raises BadDocument if they do not fit."""
    sensor, model, terms = document.identity, document.model, document.temperature
    rotation = document.rotation
    low, high = (max(-1e9, terms.low_c), min(1e9, terms.high_c))
    serial = bytes.fromhex(sensor.sensor_serial)
    part = sensor.part.encode()
    if len(serial) > 16 or len(part) > 16:
        raise BadDocument("The part's name and its serial number have at most 16 bytes each on the node.")
    head = _HEAD.pack(
        _MAGIC,
        _VERSION,
        len(terms.offset),
        len(terms.gain),
        _ROTATED if rotation is not None else 0,
        int(sensor.device or "0", 16),
        int(document.expires.timestamp()),
        part,
        serial,
        sensor.range_g,
        sensor.scale_g,
        terms.reference_c,
        low,
        high,
    )
    turn = np.eye(3) if rotation is None else rotation
    # Against the scale as the reader will have it, so that its rounding is in E.
    small = model.matrix / float(np.float32(sensor.scale_g)) - np.eye(3)
    nine = _NINE.pack(*model.offset, *small.ravel(), *turn.ravel())
    polynomial = np.concatenate([terms.offset.ravel(), terms.gain.ravel()]).astype("<f4").tobytes()
    packed = canonical(document.content)
    body = head + nine + polynomial + struct.pack("<H", len(packed)) + packed
    blob = body + struct.pack("<I", zlib.crc32(body))
    if len(blob) > LIMIT:
        raise BadDocument(f"The calibration has {len(blob)} bytes, the node stores {LIMIT}: shorten the notes of its gates.")
    return blob


@dataclass(frozen=True)
class Reader:
    """The float32 block, as a reader without JSON sees it. Arithmetic in `apply` is float32 throughout."""

    identity: Identity
    expires_s: int
    reference_c: np.float32
    low_c: np.float32
    high_c: np.float32
    offset: Array
    small: Array  # E
    rotation: Array
    offset_terms: Array
    gain_terms: Array

    def apply(self, counts: Array, temperature_c: float | None = None) -> Array:
        """g (float32) of counts (n, 3)."""
        one = np.float32(1)
        shift, gain = np.zeros(3, np.float32), np.zeros(3, np.float32)
        if temperature_c is not None:
            warm = np.clip(np.float32(temperature_c), self.low_c, self.high_c) - self.reference_c
            for row in self.offset_terms[::-1]:
                shift = (shift + row) * warm
            for row in self.gain_terms[::-1]:
                gain = (gain + row) * warm
        centred = counts.astype(np.float32) - (self.offset + shift)
        centred = centred - centred * (gain / (one + gain))
        e = self.small
        cross = [centred[..., 0] * e[k, 0] + centred[..., 1] * e[k, 1] + centred[..., 2] * e[k, 2] for k in range(3)]
        return np.asarray(np.float32(self.identity.scale_g) * (centred + np.stack(cross, axis=-1)))


def _body(blob: bytes) -> bytes:
    if len(blob) < _HEAD.size + _NINE.size + 6:
        raise BadDocument(f"{len(blob)} bytes are no calibration: the node's copy is empty or cut off. Push it again.")
    if blob[:4] != _MAGIC:
        raise BadDocument("The node's copy does not begin as a calibration does. Push it again.")
    if blob[4] != _VERSION:
        raise BadDocument(f"The node's copy has version {blob[4]}, this tool reads {_VERSION}: update the tool.")
    if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        raise BadDocument("The node's copy fails its checksum: a byte was changed. Push it again.")
    return blob[:-4]


def read_float32(blob: bytes) -> Reader:
    """The block for readers without JSON. Raises BadDocument."""
    body = _body(blob)
    head = _HEAD.unpack_from(body)
    nine = np.array(_NINE.unpack_from(body, _HEAD.size), np.float32)
    at = _HEAD.size + _NINE.size
    orders = (head[2], head[3])
    terms = np.frombuffer(body, "<f4", 3 * sum(orders), at).reshape(-1, 3)
    device = f"{head[5]:016x}" if head[5] else ""
    identity = Identity(
        device=device,
        part=head[7].rstrip(b"\0").decode(),
        sensor_serial=head[8].rstrip(b"\0").hex(),
        range_g=head[9],
        scale_g=head[10],
    )
    return Reader(
        identity,
        head[6],
        np.float32(head[11]),
        np.float32(head[12]),
        np.float32(head[13]),
        offset=nine[:3],
        small=nine[3:12].reshape(3, 3),
        rotation=nine[12:].reshape(3, 3),
        offset_terms=terms[: orders[0]],
        gain_terms=terms[orders[0] :],
    )


def decode(blob: bytes) -> Document:
    """The whole document, bit for bit as it was encoded. Raises BadDocument."""
    body = _body(blob)
    at = _HEAD.size + _NINE.size + 12 * (body[5] + body[6])
    (length,) = struct.unpack_from("<H", body, at)
    if at + 2 + length != len(body):
        raise BadDocument("The node's copy holds a document of the wrong length. Push it again.")
    try:
        content = json.loads(body[at + 2 :])
    except ValueError as error:
        raise BadDocument(f"The node's copy holds no readable document ({error}). Push it again.") from None
    return parse(json.dumps({**content, "crc32": zlib.crc32(canonical(content))}), "the node's copy")
