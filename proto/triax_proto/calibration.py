"""The container of a calibration on the topic `calibration` and in the node's store: at most 4 KiB, all little-endian.

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

The float32 block is for readers without JSON; the document is the calibration itself, bit for bit.
"""

import hashlib
import struct
import zlib

from triax_proto.errors import CalibrationError, UnknownVersion

__all__ = ["HEAD", "LIMIT", "MAGIC", "NINE", "VERSION", "digest", "document", "seal", "unseal"]

LIMIT = 4096  # bytes: the node's store and its topic
MAGIC, VERSION = b"TXCB", 1
HEAD = struct.Struct("<4sBBBBQq16s16s5f")
NINE = struct.Struct("<3f9f9f")
_LENGTH = struct.Struct("<H")
_CRC = 4


def digest(blob: bytes) -> bytes:
    """SHA-256: what the node echoes in DeviceInfo.calibration_hash, and what results are marked with."""
    return hashlib.sha256(blob).digest()


def seal(block: bytes, document: bytes) -> bytes:
    """Head, nine numbers and terms, then the document and the CRC."""
    body = block + _LENGTH.pack(len(document)) + document
    return body + zlib.crc32(body).to_bytes(_CRC, "little")


def unseal(blob: bytes) -> tuple[bytes, bytes]:
    """(block, document) of a container that is whole and unchanged. Raises CalibrationError, UnknownVersion."""
    if len(blob) < HEAD.size + NINE.size + _LENGTH.size + _CRC:
        raise CalibrationError(f"{len(blob)} bytes are no calibration: empty or cut off")
    if blob[:4] != MAGIC:
        raise CalibrationError("it does not begin as a calibration does")
    if blob[4] != VERSION:
        raise UnknownVersion(f"it has version {blob[4]}, this program reads {VERSION}")
    if zlib.crc32(blob[:-_CRC]) != int.from_bytes(blob[-_CRC:], "little"):
        raise CalibrationError("it fails its checksum: a byte was changed")
    at = HEAD.size + NINE.size + 12 * (blob[5] + blob[6])
    text = at + _LENGTH.size
    if text > len(blob) - _CRC or text + _LENGTH.unpack_from(blob, at)[0] + _CRC != len(blob):
        raise CalibrationError("its document has the wrong length")
    return blob[:at], blob[text:-_CRC]


def document(blob: bytes) -> bytes:
    """The calibration's JSON. Raises CalibrationError, UnknownVersion."""
    return unseal(blob)[1]
