"""Frames as they come over MQTT, thousands at a time: cut from socket bytes, proved, put into FrameBatch records.

An ordinary frame (ten values, 273 bytes) on `triax/v1/<device>/frame` is a PUBLISH of 311 bytes at QoS 1 and 309 at QoS 0, the
same bytes everywhere but in device, packet id and frame. So a stretch of them is a table: reshape, compare the fixed columns,
done. What does not fit is left to the caller, packet by packet.
"""

import zlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from triax_proto import frame
from triax_proto.errors import FrameError
from triax_proto.names import partition

__all__ = ["HEAD", "RECORD_ROW", "Rows", "cut_rows", "device_texts", "prove", "row_size", "to_records", "uniform"]

Array = np.ndarray[Any, Any]

SIZE = frame.wire_size()  # 273
_TOPIC = b"triax/v1/" + bytes(16) + b"/frame"
_DEVICE_AT = 9
_REPEATED_RETAINED = 0x09  # flags of PUBLISH that do not matter: DUP, RETAIN
HEAD = b"\x0a\x91\x02"  # tag and length of one frame in a FrameBatch
RECORD_ROW = len(HEAD) + SIZE
# 2,000 frames are 552 kB: well below Kafka's 1 MB for a record.
RECORD_FRAMES = 2_000
_FIRST_WINDOW = 32


class Rows(NamedTuple):
    """Frames in receive order. `texts`: (n, 16) device of the topic; `packet_ids`: zeros at QoS 0; `frames`: (n, 273)."""

    texts: Array
    packet_ids: Array
    frames: Array
    qos: int


@cache
def _template(qos: int) -> tuple[Array, Array, int]:
    """Bytes of the head of a PUBLISH, which of them are the same in all, size of the packet."""
    length = 2 + len(_TOPIC) + (2 if qos else 0) + SIZE
    head = bytes([0x30 | qos << 1, length & 0x7F | 0x80, length >> 7]) + len(_TOPIC).to_bytes(2, "big") + _TOPIC
    fixed = np.ones(len(head), bool)
    fixed[0] = False
    fixed[5 + _DEVICE_AT : 5 + _DEVICE_AT + 16] = False
    return np.frombuffer(head, np.uint8), np.flatnonzero(fixed), 3 + length


def row_size(qos: int) -> int:
    """Bytes of the PUBLISH of an ordinary frame."""
    return _template(qos)[2]


def uniform(rows: Array, qos: int) -> Array:
    """True for each row of `rows` (n, row_size) that is a PUBLISH of an ordinary frame with this QoS."""
    head, fixed, _ = _template(qos)
    same: Array = (rows[:, fixed] == head[fixed]).all(axis=1)
    same &= (rows[:, 0] & ~np.uint8(_REPEATED_RETAINED)) == head[0]
    return same


def cut_rows(data: Array, at: int) -> tuple[Array, int]:
    """Rows of equal ordinary frames that begin at `at`, as a view (n, row_size), and their QoS; none of them: (0, ..)."""
    qos = int(data[at]) >> 1 & 3
    if data[at] >> 4 != 3 or qos > 1:
        return data[:0].reshape(0, row_size(0)), 0
    size = row_size(qos)
    most = (len(data) - at) // size
    # Growing windows: a stream that changes shape at every packet must not cost a look at the whole buffer each time.
    found, window = 0, _FIRST_WINDOW
    while found < most:
        stop = min(most, found + window)
        same = uniform(data[at + found * size : at + stop * size].reshape(-1, size), qos)
        if not same.all():
            found += int(same.argmin())
            break
        found, window = stop, window * 4
    return data[at : at + found * size].reshape(found, size), qos


def to_rows(packets: Array, qos: int) -> Rows:
    """The columns of uniform PUBLISH packets (views)."""
    head = 5 + len(_TOPIC)
    texts = packets[:, 5 + _DEVICE_AT : 5 + _DEVICE_AT + 16]
    if qos:
        packet_ids = packets[:, head].astype(np.uint16) << 8 | packets[:, head + 1]
        return Rows(texts, packet_ids, packets[:, head + 2 :], 1)
    return Rows(texts, np.zeros(len(packets), np.uint16), packets[:, head:], 0)


_HEX = np.frombuffer("".join(f"{value:02x}" for value in range(256)).encode(), np.uint16)
_DEVICE = frame.frame_dtype().fields["device"][1]  # type: ignore[index]
_CHECKSUM = frame.frame_dtype().fields["checksum"][1]  # type: ignore[index]


def device_texts(frames: Array) -> Array:
    """Device of each frame (n, 273) as 16 hex digits, (n, 16)."""
    return np.ascontiguousarray(_HEX[frames[:, _DEVICE : _DEVICE + 8][:, ::-1]]).view(np.uint8)


@cache
def _fold(size: int) -> Array:
    """CRC-32 of X and `size` zero bytes from that of X, as four tables of 256: the effect is linear over GF(2)."""
    tables = np.zeros((4, 256), np.uint32)
    bits = np.array([_append_zeros(1 << bit, size) for bit in range(32)], np.uint32)
    for byte in range(4):
        for value in range(256):
            for bit in range(8):
                if value >> bit & 1:
                    tables[byte, value] ^= bits[8 * byte + bit]
    return tables


def _append_zeros(crc: int, size: int) -> int:
    # zlib inverts the register before and after; the difference of two runs from registers that differ in `crc` is free of that.
    return zlib.crc32(bytes(size), crc) ^ zlib.crc32(bytes(size), 0)


def _apply(tables: Array, crcs: Array) -> Array:
    parts = crcs.view(np.uint8).reshape(-1, 4)
    out: Array = tables[0][parts[:, 0]]
    for byte in (1, 2, 3):
        out ^= tables[byte][parts[:, byte]]
    return out


@cache
def _constant() -> int:
    """CRC-32 of what stands before the body of a record row, with the checksum field zero, and then `body` zero bytes."""
    return zlib.crc32(HEAD + b"\x0d" + bytes(4))


def _expected_crc(stored: Array) -> int:
    """CRC-32 that record rows have, one after the other, if every frame's stored checksum is right.

    A row is A + B: A is head, tag and stored checksum, B what the checksum is of. So crc(A + B) = fold(crc(A)) ^ stored, crc(A) is
    linear in the stored bytes, and rows combine pairwise like zlib's crc32_combine. A leading 0 stands for "nothing before".
    """
    body = SIZE - frame.CHECKSUM_START
    heads = _apply(_fold_register(), stored) ^ np.uint32(_constant())
    crcs = _apply(_fold(body), heads) ^ stored
    size = RECORD_ROW
    while len(crcs) > 1:
        if len(crcs) % 2:
            crcs = np.concatenate([np.zeros(1, np.uint32), crcs])
        pairs = crcs.reshape(-1, 2)
        crcs = _apply(_fold(size), np.ascontiguousarray(pairs[:, 0])) ^ pairs[:, 1]
        size *= 2
    return int(crcs[0])


@cache
def _fold_register() -> Array:
    """What four bytes add to the CRC-32 of the A in `_expected_crc` when they are not zero."""
    zero = zlib.crc32(bytes(4))
    tables = np.empty((4, 256), np.uint32)
    for byte in range(4):
        for value in range(256):
            tables[byte, value] = zlib.crc32(bytes(byte) + bytes([value]) + bytes(3 - byte)) ^ zero
    return tables


def prove(records: Array, texts: Array) -> tuple[Array, dict[int, str]]:
    """Which record rows (n, 276; C-contiguous) are frames of ours, and why the others are not.

    Layout, checksum, and that the topic's device is the frame's. Checksums are proved together: one CRC over all rows against the
    one that follows from the stored checksums; only if that fails, each by itself.
    """
    frames = records[:, len(HEAD) :]
    good = np.ones(len(records), bool)
    causes: dict[int, str] = {}

    def reject(bad: Array, cause: str) -> None:
        for index in np.flatnonzero(bad & good):
            causes[int(index)] = cause
        good[bad] = False

    reject(~_laid_out(frames), "not a frame")
    stored = np.ascontiguousarray(frames[:, _CHECKSUM : _CHECKSUM + 4]).view("<u4").ravel()
    if len(records) and _expected_crc(stored) != zlib.crc32(records.reshape(-1).data):
        start = frame.CHECKSUM_START
        seen = np.array([zlib.crc32(row[start:].data) for row in frames], np.uint32)
        reject(seen != stored, "checksum")
    reject((device_texts(frames) != texts).any(axis=1), "topic of another device")
    return good, causes


@cache
def _layout() -> tuple[Array, Array]:
    blank = frame.empty(1).view(np.uint8)
    names: Any = frame.frame_dtype().fields
    fixed = np.ones(SIZE, bool)
    for kind, offset, *_ in names.values():
        fixed[offset : offset + kind.itemsize] = False
    where = np.flatnonzero(fixed)
    return where, blank[where]


def _laid_out(frames: Array) -> Array:
    where, want = _layout()
    same: Array = (frames[:, where] == want).all(axis=1)
    return same


class Partitioner:
    """Partition of each frame's device; the CRC of a device is computed once."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._tables = np.array(
            [[zlib.crc32(bytes(at) + bytes([v]) + bytes(7 - at)) for v in range(256)] for at in range(8)], np.uint32
        )
        self._zero = np.uint32(zlib.crc32(bytes(8)))

    def __call__(self, frames: Array) -> Array:
        """Partition of each row of frames (n, 273)."""
        crcs = np.full(len(frames), self._zero, np.uint32)
        for at in range(8):
            crcs ^= self._tables[at][frames[:, _DEVICE + 7 - at]] ^ self._zero
        return crcs % np.uint32(self.partitions)

    def one(self, device: int) -> int:
        """Partition of one device."""
        return partition(device, self.partitions)


def to_records(frames: Array) -> Array:
    """Rows of a FrameBatch (n, 276) from frames (n, 273), in the same order."""
    records = np.empty((len(frames), RECORD_ROW), np.uint8)
    records[:, : len(HEAD)] = np.frombuffer(HEAD, np.uint8)
    records[:, len(HEAD) :] = frames
    return records


def by_partition(records: Array, partitions: Array) -> list[tuple[int, bytes, int]]:
    """(partition, value of a Kafka record, its frames) in which each device's frames keep their order."""
    order = np.argsort(partitions, kind="stable")
    counts = np.bincount(partitions)
    sorted_rows = records[order]
    out, start = [], 0
    for number in np.flatnonzero(counts):
        stop = start + int(counts[number])
        for first in range(start, stop, RECORD_FRAMES):
            last = min(stop, first + RECORD_FRAMES)
            out.append((int(number), sorted_rows[first:last].tobytes(), last - first))
        start = stop
    return out


def odd_frame_cause(payload: bytes, device: int) -> str | None:
    """Why a single message of any shape is no frame of `device`; None if it is one."""
    try:
        found = frame.parse(payload)
    except FrameError as error:
        return "checksum" if "checksum" in str(error) else "not a frame"
    return None if int(found["device"][0]) == device else "topic of another device"
