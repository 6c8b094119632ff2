"""Frames, records and Kafka contents for the sinks' tests."""

import time

import numpy as np
from confluent_kafka import Producer
from triax_backend.frames import Record
from triax_proto import batch, frame, names

START_US = 1_750_000_000_000_000
DEVICE = 0x0011_2233_4455_0000


def random_frames(count, values=10, seed=0, **fixed):
    """Frames with every field drawn over its whole range, checksums right."""
    rng = np.random.default_rng(seed)
    out = frame.empty(count, values)
    raw = out.view(np.uint8).reshape(count, -1)
    for name in out.dtype.names:
        kind, offset = out.dtype.fields[name][:2]
        raw[:, offset : offset + kind.itemsize] = rng.integers(0, 256, (count, kind.itemsize))
    out["rate_hz"], out["scale_g"] = rng.uniform(1, 30000, count), rng.uniform(1e-6, 1e-2, count)
    for name, value in fixed.items():
        out[name] = value
    frame.encode(out)
    return out


def fleet_frames(devices, sequences, boot=7, start_us=None, values=10, seed=0, first=0):
    """As a fleet sends them: all devices' frame n, then all devices' frame n + 1; 16 kHz, `values` values of 160 samples."""
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(first, first + sequences), devices)
    out = frame.empty(len(numbers), values)
    out["device"] = DEVICE + np.tile(np.arange(devices, dtype=np.uint64), sequences)
    out["boot"], out["sequence"] = boot, numbers
    out["samples"], out["rate_hz"], out["decimation"], out["scale_g"] = 160 * values, 16000.0, 160, 0.0005
    out["first_sample"] = numbers * 160 * values
    start = int(time.time() * 1e6) if start_us is None else start_us
    out["time_us"], out["time_error_us"] = start + numbers * 100_000, 500
    for name in ("x", "y", "z") if values else ():
        out[name] = rng.integers(-100_000, 100_000, (len(out), values))
    out["minimum"], out["maximum"] = -30000, 30000
    out["sum_squares"] = rng.integers(0, 2**40, (len(out), 3))
    out["temperature_mc"] = 25_000
    frame.encode(out)
    return out


def wire(frames):
    """Each frame's bytes."""
    return [row.tobytes() for row in frames]


def record(pieces, partition=0, offset=0, received_us=START_US, topic=names.FRAMES):
    return Record(topic, partition, offset, received_us, batch.join(pieces))


def odd_frame(seed=0, **fixed):
    """Bytes of a frame with a field that this version does not know, behind the others; checksum right."""
    one = random_frames(1, seed=seed, **fixed).tobytes() + b"\xa8\x06\x01"
    import zlib

    return one[:1] + zlib.crc32(one[5:]).to_bytes(4, "little") + one[5:]


def to_kafka(settings, frames, per_record=50, partitions=16, timestamp_ms=None, topic=names.FRAMES):
    """Produce frames in batches, each to its device's partition, in their order; pieces may be bytes for odd frames."""
    producer = Producer({**settings.kafka_config(), "enable.idempotence": True, "linger.ms": 5})
    waiting = {}
    at = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms

    def send(partition):
        producer.produce(topic, batch.join(waiting.pop(partition)), partition=partition, timestamp=at)
        producer.poll(0)

    for one in wire(frames) if isinstance(frames, np.ndarray) else frames:
        device = int(frame.parse(one)["device"][0])
        partition = names.partition(device, partitions)
        waiting.setdefault(partition, []).append(one)
        if len(waiting[partition]) == per_record:
            send(partition)
    for partition in list(waiting):
        send(partition)
    assert producer.flush(20) == 0


def raw_to_kafka(settings, topic, value, partition=0, key=None):
    """One record as it is."""
    producer = Producer(settings.kafka_config())
    producer.produce(topic, value, partition=partition, key=key, timestamp=int(time.time() * 1000))
    assert producer.flush(20) == 0
