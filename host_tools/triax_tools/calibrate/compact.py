"""The form of a calibration that lives on the node: at most 4 KiB, float32 for a reader without JSON, the whole file behind it.

The layout is in triax_proto/calibration.py. The document gives back the file bit for bit; the float32 block is what a
microcontroller or a DSP applies: c = (m - b - b(T)), c = c - c k(T) / (1 + k(T)), a = scale_g (c + E c). Written so, the large
terms are rounded three times in all and every small factor multiplies something small: under 3 ug at 16 g, where
U (m - b) / (1 + k) loses 5.
"""

import json
import zlib
from dataclasses import dataclass

import numpy as np
from triax_proto import calibration as container
from triax_proto.calibration import LIMIT, digest
from triax_proto.errors import CalibrationError, UnknownVersion

from triax_tools.calibrate.document import Document, canonical, parse
from triax_tools.calibrate.errors import BadDocument
from triax_tools.calibrate.model import Array
from triax_tools.calibrate.recording import Identity

__all__ = ["LIMIT", "Reader", "decode", "digest", "encode", "read_float32"]

_ROTATED = 1


def encode(document: Document) -> bytes:
    """Bytes for the node. Raises BadDocument if they do not fit."""
    sensor, model, terms = document.identity, document.model, document.temperature
    rotation = document.rotation
    low, high = (max(-1e9, terms.low_c), min(1e9, terms.high_c))
    serial = bytes.fromhex(sensor.sensor_serial)
    part = sensor.part.encode()
    if len(serial) > 16 or len(part) > 16:
        raise BadDocument("The part's name and its serial number have at most 16 bytes each on the node.")
    head = container.HEAD.pack(
        container.MAGIC,
        container.VERSION,
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
    nine = container.NINE.pack(*model.offset, *small.ravel(), *turn.ravel())
    polynomial = np.concatenate([terms.offset.ravel(), terms.gain.ravel()]).astype("<f4").tobytes()
    blob = container.seal(head + nine + polynomial, canonical(document.content))
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


def _unsealed(blob: bytes) -> tuple[bytes, bytes]:
    try:
        return container.unseal(blob)
    except UnknownVersion as error:
        raise BadDocument(f"The node's copy: {error}. Update the tool.") from None
    except CalibrationError as error:
        raise BadDocument(f"The node's copy: {error}. Push it again.") from None


def read_float32(blob: bytes) -> Reader:
    """The block for readers without JSON. Raises BadDocument."""
    block, _ = _unsealed(blob)
    head = container.HEAD.unpack_from(block)
    nine = np.array(container.NINE.unpack_from(block, container.HEAD.size), np.float32)
    at = container.HEAD.size + container.NINE.size
    orders = (head[2], head[3])
    terms = np.frombuffer(block, "<f4", 3 * sum(orders), at).reshape(-1, 3)
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
    _, text = _unsealed(blob)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BadDocument(f"The node's copy holds no readable document ({error}). Push it again.") from None
    return parse(json.dumps({**content, "crc32": zlib.crc32(canonical(content))}), "the node's copy")
