"""Errors planted behind the way in: in Kafka, in a database row, in an object of the lake. To test the checker; never real data.

Each function damages `count` frames of the devices it is given and returns what it did: kind, hop, device, boot, sequence.
"""

import contextlib
import random
from collections.abc import Collection
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer
from triax_backend import scan
from triax_backend.settings import Settings
from triax_backend.sinks import iceberg
from triax_proto import batch
from triax_proto.errors import FrameError
from triax_proto.frame import VALUES, decode, encode, parse, wire_size
from triax_proto.names import FRAMES

__all__ = ["kafka", "lake", "postgres"]


def _entry(kind: str, hop: str, device: int, boot: int, sequence: int) -> dict[str, Any]:
    return {"kind": kind, "hop": hop, "device": f"{device & 0xFFFFFFFFFFFFFFFF:016x}", "boot": boot, "sequence": sequence}


def _device(data: bytes) -> int:
    """Device of a frame, -1 for bytes that are none."""
    try:
        return int(parse(data)["device"][0])
    except FrameError:
        return -1


def kafka(settings: Settings, devices: Collection[int], count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Produce `count` frames of the topic once more, and `count` others with another value under a checksum that holds."""
    chooser = random.Random(seed)
    frames: list[tuple[int, bytes]] = []
    for found in scan.records(settings, FRAMES):
        for record in found:
            with contextlib.suppress(FrameError):  # a record of something else
                frames += [(record.partition, data) for data in batch.split(record.value) if len(data) == wire_size(VALUES)]
    mine = [(partition, data) for partition, data in frames if _device(data) in devices]
    producer = Producer({**settings.kafka_config(), "log_level": 0})
    planted = []
    for n, (partition, data) in enumerate(chooser.sample(mine, 2 * count)):
        frame = decode(bytearray(data))
        if frame is None:
            continue  # not of the ordinary layout, although of its size
        identity = (int(frame["device"][0]), int(frame["boot"][0]), int(frame["sequence"][0]))
        if n >= count:
            frame["x"][0, 0] += 1
            data = encode(frame).tobytes()
        producer.produce(FRAMES, batch.join([data]), partition=partition)
        planted.append(_entry("repeat" if n < count else "alter", "kafka", *identity))
    producer.flush(10)
    return planted


def postgres(settings: Settings, devices: Collection[int], count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Change one value in each of `count` rows, and delete `count` other rows with all their frames."""
    signed = [device - (1 << 64) if device >> 63 else device for device in devices]
    planted = []
    with psycopg.connect(settings.postgres, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT device, boot, first_sequence, frames FROM frames WHERE device = ANY(%s) AND per_axis = %s AND original IS NULL "
            "ORDER BY device, boot, first_sequence",
            (signed, VALUES),
        ).fetchall()
        chooser = random.Random(seed)
        for n, (device, boot, first, frames) in enumerate(chooser.sample(rows, 2 * count)):
            key = (device, boot, first)
            if n < count:
                place = chooser.randrange(frames)
                connection.execute(
                    "UPDATE frames SET x[%s] = x[%s] + 1 WHERE device = %s AND boot = %s AND first_sequence = %s",
                    (place * VALUES + 1, place * VALUES + 1, *key),
                )
                planted.append(_entry("alter", "postgres", device, boot, first + place))
            else:
                connection.execute("DELETE FROM frames WHERE device = %s AND boot = %s AND first_sequence = %s", key)
                planted += [_entry("delete", "postgres", device, boot, first + k) for k in range(frames)]
    return planted


def lake(settings: Settings, devices: Collection[int], count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rewrite one data file of the lake with one value changed in each of `count` rows."""
    signed = [device - (1 << 64) if device >> 63 else device for device in devices]
    table = iceberg.open_table(iceberg.catalog(settings), "frames")
    tasks = sorted(table.scan().plan_files(), key=lambda task: str(task.file.file_path))
    path = random.Random(seed).choice(tasks).file.file_path
    with table.io.new_input(path).open() as file:
        rows = pq.read_table(pa.BufferReader(file.read()))
    mine = [n for n, device in enumerate(rows["device"].to_pylist()) if device in signed]
    chosen = sorted(random.Random(seed).sample(mine, min(count, len(mine))))
    values = rows["x"].to_pylist()
    for n in chosen:
        values[n][0] += 1
    where = rows.schema.get_field_index("x")
    changed = rows.set_column(where, rows.schema.field("x"), pa.array(values, rows.schema.field("x").type))
    sink = pa.BufferOutputStream()
    pq.write_table(changed, sink)
    with table.io.new_output(path).create(overwrite=True) as out:
        out.write(sink.getvalue().to_pybytes())
    columns = [rows[name].to_pylist() for name in ("device", "boot", "sequence")]
    return [_entry("alter", "lake", *(column[n] for column in columns)) for n in chosen]
