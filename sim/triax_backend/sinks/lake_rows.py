"""Frames as Arrow tables for the lake, and back to the byte: one row per frame, verbatim, with its place in Kafka.

Unsigned 32 bit fields are `long`; `device` and sums of squares are `long` with the same bits. `original` holds the wire bytes of a
frame of another shape, and is null for all others, whose columns give their bytes.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from triax_proto import batch, frame
from triax_proto.errors import FrameError
from triax_proto.frame import CHECKSUM_START
from triax_proto.v1.frame_pb2 import RawFrame

from triax_backend.frames import Bad, Group, Record, Unpacked
from triax_backend.sinks.runs import event_time

__all__ = ["FRAMES", "RAW", "frames_table", "groups_of", "raw_table"]

Array = np.ndarray[Any, Any]

_UTC = pa.timestamp("us", tz="UTC")
_WHOLE = [("boot", "sequence", "first_sample", "samples", "time_us", "time_error_us"), ("lost_samples", "flags", "config")]


def _field(name: str, kind: pa.DataType, null: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=null)


def _list(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)


_PLACE = [
    _field("time", _UTC),  # event time
    _field("own_clock", pa.bool_()),
    _field("received", _UTC),
    _field("kafka_partition", pa.int32()),
    _field("kafka_offset", pa.int64()),
    _field("place", pa.int32()),
]
FRAMES = pa.schema(
    [
        *_PLACE,
        _field("device", pa.int64()),
        *(_field(name, pa.int64()) for name in ("checksum", *_WHOLE[0])),
        _field("rate_hz", pa.float32()),
        _field("decimation", pa.int64()),
        _field("scale_g", pa.float32()),
        *(_list(name, pa.int32()) for name in ("x", "y", "z", "minimum", "maximum")),
        _list("sum_squares", pa.int64()),
        *(_field(name, pa.int64()) for name in _WHOLE[1]),
        _field("temperature_mc", pa.int32()),
        _field("original", pa.binary(), null=True),
    ]
)
RAW = pa.schema(
    [
        *_PLACE,
        _field("device", pa.int64()),
        *(_field(name, pa.int64()) for name in ("checksum", *_WHOLE[0])),
        _field("rate_hz", pa.float32()),
        _field("capture", pa.int64()),
        _field("scale_g", pa.float32()),
        *(_list(name, pa.int32()) for name in ("x", "y", "z")),  # raw counts, differences undone
        *(_field(name, pa.int64()) for name in _WHOLE[1]),
        _field("temperature_mc", pa.int32()),
        _field("original", pa.binary()),  # always: the packing of differences is the sender's choice
    ]
)


def _times(us: Array) -> pa.Array:
    return pa.array(us.astype(np.int64).view("M8[us]"), _UTC)


def _lists(values: Array, kind: pa.DataType) -> pa.Array:
    """A column of equal lists out of a 2-d array."""
    count, each = values.shape
    offsets = pa.array(np.arange(0, count * each + 1, each, dtype=np.int32) if each else np.zeros(count + 1, np.int32))
    flat = np.ascontiguousarray(values).reshape(-1)
    field = pa.field("element", kind, nullable=False)
    return pa.ListArray.from_arrays(offsets, pa.array(flat, kind), type=pa.list_(field))


@dataclass(frozen=True)
class _Where:
    """Receive time, partition and offset of the records, once for all groups: unusual frames come as a group each."""

    received_us: Array
    partition: Array
    offset: Array

    @classmethod
    def of(cls, records: Sequence[Record]) -> "_Where":
        return cls(
            np.array([r.received_us for r in records], np.int64),
            np.array([r.partition for r in records], np.int32),
            np.array([r.offset for r in records], np.int64),
        )


def _of_group(group: Group, where: _Where) -> pa.Table:
    f = group.frames
    order = np.lexsort((f["sequence"], f["boot"], f["device"]))  # a device's frames side by side: found faster, packed smaller
    f, record, place = f[order], group.record[order], group.place[order]
    received = where.received_us[record]
    time_us, own = event_time(f["time_us"], f["time_error_us"], received)
    given = {
        "time": _times(time_us),
        "own_clock": pa.array(own),
        "received": _times(received),
        "kafka_partition": pa.array(where.partition[record]),
        "kafka_offset": pa.array(where.offset[record]),
        "place": pa.array(place.astype(np.int32)),
        "original": pa.nulls(len(f), pa.binary())
        if group.original is None
        else pa.array([group.original[i] for i in order.tolist()], pa.binary()),
    }
    columns = []
    for field in FRAMES:
        if field.name in given:
            columns.append(given[field.name])
        elif pa.types.is_list(field.type):
            kind = field.type.value_type
            values = f[field.name] if field.name in (f.dtype.names or ()) else np.empty((len(f), 0), np.int32)
            columns.append(_lists(values.view(np.int64) if values.dtype == np.uint64 else values, kind))
        else:
            values = np.ascontiguousarray(f[field.name])
            same_bits = values.dtype == np.uint64
            columns.append(pa.array(values.view(np.int64) if same_bits else values.astype(field.type.to_pandas_dtype())))
    return pa.Table.from_arrays(columns, schema=FRAMES)


def frames_table(unpacked: Unpacked, records: Sequence[Record]) -> pa.Table:
    """All frames that `unpack` found in `records`, each with its place."""
    where = _Where.of(records)
    return pa.concat_tables([_of_group(group, where) for group in unpacked.groups] or [FRAMES.empty_table()])


def groups_of(table: pa.Table) -> Iterator[tuple[Array, list[bytes] | None, Array]]:
    """Rows of the lake's frames as frames again: (frames of one layout, wire bytes of each if of another shape, row numbers).

    The checksum is the stored one; nothing is proved here.
    """
    table = table.combine_chunks()
    odd = np.asarray(table["original"].is_valid())
    lists = table["x"].combine_chunks()
    widths = np.diff(lists.offsets.to_numpy())
    for values in np.unique(widths).tolist():
        for shape in (False, True):
            chosen = np.flatnonzero((widths == values) & (odd == shape))
            if not chosen.size:
                continue
            mine = table if chosen.size == len(table) else table.take(pa.array(chosen))
            originals = mine["original"].to_pylist() if shape else None
            yield _frames(mine, int(values)), originals, chosen


def _frames(table: pa.Table, values: int) -> Array:
    out = frame.empty(len(table), values)
    for name in out.dtype.names or ():
        column = table[name].combine_chunks() if table[name].num_chunks != 1 else table[name].chunk(0)
        if pa.types.is_list(column.type):
            column = column.flatten()
            out[name] = column.to_numpy(zero_copy_only=False).reshape(len(table), -1)
        else:
            out[name] = column.to_numpy(zero_copy_only=False)
    return out


def _raw_row(data: bytes) -> dict[str, Any]:
    """A RawFrame as a row without its place. Raises FrameError."""
    message = RawFrame()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise FrameError(f"{len(data)} bytes are no protobuf RawFrame: {error}") from None
    if not message.HasField("device") or not message.HasField("sequence"):
        raise FrameError("a raw frame without device or sequence")
    if message.first_sample >= 2**63:
        raise FrameError(f"the first sample is number {message.first_sample}: no sensor has come that far")
    if data[:1] != b"\x0d" or zlib.crc32(data[CHECKSUM_START:]) != message.checksum:
        raise FrameError("the checksum does not match: the raw frame was changed on its way")
    if not len(message.x) == len(message.y) == len(message.z):
        raise FrameError(f"x, y, z have {len(message.x)}, {len(message.y)}, {len(message.z)} counts")
    row: dict[str, Any] = {name: getattr(message, name) for name in RAW.names if hasattr(message, name)}
    row["device"] = int(np.uint64(message.device).astype(np.int64))
    for name in ("x", "y", "z"):
        counts = np.cumsum(np.array(getattr(message, name), np.int64))
        if counts.size and max(abs(int(counts.min())), abs(int(counts.max()))) >= 2**31:
            raise FrameError(f"{name}: the differences add up to more than 32 bits")
        row[name] = counts.tolist()
    return row | {"original": data}


def raw_table(records: Sequence[Record]) -> tuple[pa.Table, list[Bad]]:
    """All raw frames in `records`, one each or a FrameBatch of them, and what cannot be read."""
    rows: list[dict[str, Any]] = []
    bad: list[Bad] = []
    for number, record in enumerate(records):
        try:
            pieces = batch.split(record.value) if record.value[:1] == b"\n" else [record.value]
        except FrameError as error:
            bad.append(Bad(number, -1, record.value, str(error)))
            continue
        for place, data in enumerate(pieces):
            try:
                row = _raw_row(data)
            except FrameError as error:
                bad.append(Bad(number, place, data, str(error)))
                continue
            time_us, own = event_time(np.array([row["time_us"]]), np.array([row["time_error_us"]]), np.array([record.received_us]))
            row |= {"time": int(time_us[0]), "own_clock": bool(own[0]), "received": record.received_us}
            row |= {"kafka_partition": record.partition, "kafka_offset": record.offset, "place": place}
            rows.append(row)
    return pa.Table.from_pylist(rows, RAW), bad
