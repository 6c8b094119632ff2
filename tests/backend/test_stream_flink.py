"""The PyFlink job sends what the runner would, through a SIGKILL and a restore from its checkpoint."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from triax_backend.models import store, windows
from triax_backend.models.serving import Scores
from triax_backend.models.vectors import WINDOW_FEATURES
from triax_backend.settings import Settings
from triax_backend.stack import Stack
from triax_backend.stream.columns import of_records
from triax_backend.stream.events import messages
from triax_backend.stream.features import decode
from triax_backend.stream.partition_keys import murmur2, partition_keys
from triax_backend.stream.process import Stream
from triax_proto.names import EVENTS, FEATURES
from triax_proto.v1.event_pb2 import Event

sys.path.insert(0, str(Path(__file__).parent))
import planted
from test_stream_runner import PARTITIONS, produce, read, records_of

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-flink"


def test_keys_find_their_partition():
    # vectors of Kafka's own UtilsTest
    assert [murmur2(key) - 2**32 for key in (b"foobar", b"a-little-bit-long-string")] == [-790332482, -985981536]
    assert murmur2(b"21") - 2**32 == -973932308
    for partitions in (1, 4, 16, 64):
        keys = partition_keys(partitions)
        assert [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys] == list(range(partitions))


def start(settings, checkpoints, log, *options):
    path = os.pathsep.join(str(ROOT / part) for part in ("proto", "sim"))
    environ = {**os.environ, **settings.environ(), "PYTHONPATH": path, "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    command = [str(VENV / "bin/python"), "-m", "triax_backend.stream.flink_job", "--checkpoints", str(checkpoints)]
    command += ["--partitions", str(PARTITIONS), "--interval-ms", "1000", "--group", "flink-test", *options]
    with log.open("ab") as out:
        return subprocess.Popen(command, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def features_sent(settings):
    consumer = Consumer({**settings.kafka_config(), "group.id": "counter", "isolation.level": "read_committed"})
    count = sum(consumer.get_watermark_offsets(TopicPartition(FEATURES, p), timeout=10)[1] for p in range(PARTITIONS))
    consumer.close()
    return count


def wait_for(condition, process, log, timeout_s=240):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, log.read_text()[-3000:]
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.5)


def without_scores(events):
    """Events as bytes, the scores of models rounded."""
    out = []
    for event in events:
        if event.kind == Event.KIND_ANOMALY:
            event.finding.value = event.finding.score = round(event.finding.score, 3)
        out.append(event.SerializeToString(deterministic=True))
    return sorted(out)


def kill(process):
    """The whole group: the JVM outlives Python otherwise."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def a_model(directory):
    """A model of windows for a Stream here, and what announces the same one to the job."""
    rows, _ = Stream().process(of_records(records_of(planted.fleet(devices=40, frames=300, per_kind=0, seed=8).frames))[0])
    trained = windows.train(rows)
    data = store.dump(trained.pipeline)
    address = store.put(Settings(), "window", "1", {"model.skops": data}, directory)
    manifest = store.manifest("window", "1", data, address, WINDOW_FEATURES, trained.threshold, "window", 0)
    scores = Scores()
    scores.offer(manifest, data)
    return scores, lambda settings: store.announce(settings, manifest)


@pytest.mark.engines
@pytest.mark.servers
@pytest.mark.timeout(600)
@pytest.mark.skipif(not (VENV / "jars").is_dir(), reason="no Flink here: sim/deploy/engines/install flink")
def test_flink_sends_what_the_runner_sends(tmp_path):
    records = records_of(planted.fleet(devices=40, frames=300, per_kind=1, seed=9).frames)
    scores, publish = a_model(tmp_path)
    whole = Stream(score=scores)
    features, events = whole.process(of_records(records)[0])
    checkpoints, log = tmp_path / "checkpoints", tmp_path / "flink.log"
    half = len(records) // 2
    with Stack(tmp_path / "stack", only=("kafka",), partitions=PARTITIONS) as stack:
        settings = stack.settings
        publish(settings)
        produce(settings, records[:half])
        process = start(settings, checkpoints, log)
        try:
            wait_for(lambda: features_sent(settings) > 0, process, log)
            produce(settings, records[half : half + 100])
            time.sleep(1.5)  # in the middle of work, after one more checkpoint or before it
        finally:
            kill(process)
        produce(settings, records[half + 100 :])
        process = start(settings, checkpoints, log, "--restore", "newest")
        try:

            def rows():
                found = [decode(value) for _, _, value in read(settings, FEATURES)]
                return np.concatenate(found) if found else features[:0]

            wait_for(lambda: len(rows()) >= len(features), process, log)
            time.sleep(3)  # two more checkpoints: nothing may follow
            found = rows()
            assert len(found) == len(features)
            assert set(found["model"][found["windows"] == 1]) == {b"window/1"}
            # two versions of numpy multiply matrices in another order: scores agree to single precision, all else to the bit
            keys = ["device", "boot", "windows", "window"]
            found, want = np.sort(found, order=keys), np.sort(features, order=keys)
            assert found["score"] == pytest.approx(want["score"], rel=1e-5, abs=1e-5)
            found["score"] = want["score"]
            assert (list(map(bytes, found))) == list(map(bytes, want))
            sent = read(settings, EVENTS)
            assert sorted(value for _, _, value in sent) == sorted(
                e.SerializeToString(deterministic=True) for e in messages(events)
            )
        finally:
            kill(process)
