"""The stream as a process over real Kafka and S3: killed at every named point, it sends each row once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from triax_backend.settings import Settings
from triax_backend.stack import Stack
from triax_backend.stream import checkpoint
from triax_backend.stream.columns import of_records
from triax_backend.stream.events import messages
from triax_backend.stream.features import decode
from triax_backend.stream.loop import Runner
from triax_backend.stream.process import Stream
from triax_backend.stream.state import BadSnapshot
from triax_proto.batch import join_array
from triax_proto.frame import empty, encode
from triax_proto.names import EVENTS, FEATURES, FRAMES, partition

sys.path.insert(0, str(Path(__file__).parent))
import planted

PARTITIONS = 4
POINTS = ("stream_after_produce", "stream_before_commit", "stream_after_commit", "stream_after_snapshot")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory):
    with Stack(tmp_path_factory.mktemp("stream"), only=("kafka", "s3"), partitions=PARTITIONS) as stack:
        yield stack


def records_of(frames):
    """(partition, FrameBatch) of frames (devices, count), two frames of each device at a time."""
    count = frames.shape[1]
    of = np.array([partition(int(device), PARTITIONS) for device in frames["device"][:, 0]])
    out = []
    for start in range(0, count, 2):
        for number in range(PARTITIONS):
            part = frames[of == number, start : start + 2].reshape(-1)
            one = empty(len(part))
            for name in one.dtype.names:
                one[name] = part[name]
            out.append((number, join_array(encode(one))))
    return out


def produce(settings, records):
    producer = Producer({**settings.kafka_config(), "linger.ms": 5})
    for number, value in records:
        producer.produce(FRAMES, value, partition=number)
    assert producer.flush(20) == 0


def read(settings, topic):
    """Values of all committed records of a topic."""
    consumer = Consumer(
        {**settings.kafka_config(), "group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    out, ended, until = [], set(), time.monotonic() + 20
    while len(ended) < PARTITIONS:
        assert time.monotonic() < until
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error() is not None:
            ended.add(message.partition())
        else:
            out.append((message.partition(), message.key(), message.value()))
    consumer.close()
    return out


def committed(settings, group):
    consumer = Consumer({**settings.kafka_config(), "group.id": group, "log_level": 0})
    try:
        found = consumer.committed([TopicPartition(FRAMES, number) for number in range(PARTITIONS)], timeout=10)
    except KafkaException:  # the group's coordinator is not up yet
        return []
    finally:
        consumer.close()
    return [max(part.offset, 0) for part in found]


def start(settings, group, log, *, crash=None, **flags):
    environ = {**os.environ, **settings.environ()}
    if crash:
        environ["TRIAX_CRASH"] = crash
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", "triax_backend.stream.runner", "--group", group, *options]
    with log.open("ab") as out:
        return subprocess.Popen(command, env=environ, stderr=out)


def wait_for(settings, group, ends, process, log, timeout_s=40):
    until = time.monotonic() + timeout_s
    while committed(settings, group) != ends:
        assert time.monotonic() < until, "the stream does not come to the end"
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_killed_anywhere_it_sends_every_row_once(kafka, tmp_path):
    log = tmp_path / "stream.log"
    settings = kafka.settings
    records = records_of(planted.fleet(devices=40, frames=300, per_kind=1, seed=9).frames)
    whole = Stream()
    features, events = whole.process(of_records(records)[0])
    assert len(events) >= 5
    parts = np.array_split(np.arange(len(records)), len(POINTS) + 1)
    ends = [0] * PARTITIONS
    for point, part in zip([*POINTS, None], parts, strict=True):
        some = [records[index] for index in part]
        produce(settings, some)
        for number, _ in some:
            ends[number] += 1
        if point:
            process = start(settings, "killed", log, crash=point, commit_s=0.2, snapshot_s=0.1)
            assert process.wait(40) == -signal.SIGKILL, log.read_text()
    process = start(settings, "killed", log, commit_s=0.2)
    wait_for(settings, "killed", ends, process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, log.read_text()
    check(settings, features, events)
    # the snapshots say the same as one run without a break
    store = checkpoint.Objects(settings, "killed")
    for number in range(PARTITIONS):
        offset, state = checkpoint.unpack(store.load(number))
        assert offset == ends[number]
        assert state == whole.state.snapshot(number)


def check(settings, features, events):
    """Every row and event once, on the partition of its device."""
    found = [(number, decode(value)) for number, _, value in read(settings, FEATURES)]
    rows = np.concatenate([rows for _, rows in found])
    assert len(rows) == len(features)
    assert set(map(bytes, rows)) == set(map(bytes, features))
    assert all(partition(int(row["device"]), PARTITIONS) == number for number, some in found for row in some)
    sent = sorted(value for _, _, value in read(settings, EVENTS))
    assert sent == sorted(event.SerializeToString(deterministic=True) for event in messages(events))


def count(records, ends):
    for number, _ in records:
        ends[number] += 1
    return ends


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_two_runners_share_and_one_takes_over_while_kafka_dies(tmp_path):
    log = tmp_path / "stream.log"
    records = records_of(planted.fleet(devices=40, frames=240, per_kind=1, seed=10).frames)
    features, events = Stream().process(of_records(records)[0])
    quarter = [records[index : index + len(records) // 4] for index in range(0, len(records), len(records) // 4)]
    ends = [0] * PARTITIONS
    with Stack(tmp_path / "stack", only=("kafka",), partitions=PARTITIONS) as stack:
        settings = stack.settings
        flags = {"commit_s": 0.2, "state_dir": tmp_path / "state"}
        one = start(settings, "shared", log, instance="one", **flags)
        produce(settings, quarter[0])
        wait_for(settings, "shared", count(quarter[0], ends), one, log)
        two = start(settings, "shared", log, instance="two", **flags)
        produce(settings, quarter[1])
        wait_for(settings, "shared", count(quarter[1], ends), two, log)
        one.send_signal(signal.SIGTERM)
        assert one.wait(30) == 0, log.read_text()
        produce(settings, quarter[2])
        stack["kafka"].kill()
        time.sleep(1)
        stack.restart("kafka")
        for part in quarter[3:]:
            produce(settings, part)
        for part in quarter[2:]:
            count(part, ends)
        wait_for(settings, "shared", ends, two, log, timeout_s=90)
        two.send_signal(signal.SIGTERM)
        assert two.wait(30) == 0, log.read_text()
        check(settings, features, events)


def test_snapshots_in_a_directory(tmp_path):
    place = checkpoint.Directory(tmp_path / "state")
    assert place.load(3) is None
    place.save(3, checkpoint.pack(77, b"state"))
    assert checkpoint.unpack(place.load(3)) == (77, b"state")
    for bad in (b"", b"{}\n", b'{"offset": 1, "bytes": 9}\nstate', b"\xff\xff"):
        with pytest.raises(BadSnapshot):
            checkpoint.unpack(bad)


@pytest.mark.timeout(30)
def test_a_snapshot_that_cannot_be_read_is_no_snapshot(tmp_path):
    """Else a damaged object, or an upgrade, would stop every partition of the instance."""
    place = checkpoint.Directory(tmp_path)
    place.save(0, b"damaged")
    asked = []
    consumer = SimpleNamespace(
        committed=lambda parts, timeout: [SimpleNamespace(partition=0, offset=100)],
        get_watermark_offsets=lambda part, timeout: (0, 500),
        assign=lambda parts: asked.append([(part.partition, part.offset) for part in parts]),
    )
    runner = Runner(Settings(kafka="kafka://127.0.0.1:1"), place)
    runner._consumer, runner._parts = consumer, [0]
    runner._begin()
    assert asked == [[(0, OFFSET_BEGINNING)]]
    assert runner._sent == {0: 100}, "what was sent is not sent again"
