"""Batch jobs and training on the real lake: Kafka, the lake's sink, Iceberg on S3, DuckDB, Spark, PostgreSQL."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from confluent_kafka import Producer
from triax_backend.batch import job
from triax_backend.batch.source import duckdb_frames, lake_tables
from triax_backend.models import train
from triax_backend.stack import Stack
from triax_backend.stream.columns import of_records
from triax_backend.stream.process import Stream
from triax_proto.names import RAW, partition
from triax_proto.v1.frame_pb2 import RawFrame

sys.path.insert(0, str(Path(__file__).parent))
import planted
from test_stream_runner import PARTITIONS, produce, records_of

ROOT = Path(__file__).parents[2]
SPARK = ROOT / ".venv-spark"
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
RATE = 26_700.0


def raw_frame(device, sequence, first, counts, capture=4):
    """Wire bytes of a RawFrame of counts (n, 3), differences to the one before."""
    import zlib

    message = RawFrame(
        device=device, boot=7, sequence=sequence, first_sample=first, samples=len(counts), rate_hz=RATE, capture=capture
    )
    message.time_us, message.scale_g = planted.START_US + int(first / RATE * 1e6), planted.SCALE_G
    for axis, name in enumerate("xyz"):
        getattr(message, name).extend(np.diff(counts[:, axis], prepend=0).tolist())
    message.checksum = 0
    data = bytearray(message.SerializeToString())
    data[1:5] = zlib.crc32(bytes(data[5:])).to_bytes(4, "little")
    return bytes(data)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A stack whose lake holds ten minutes' worth of a small fleet and one raw capture of one machine."""
    directory = tmp_path_factory.mktemp("lake")
    records = records_of(planted.fleet(devices=48, frames=200, per_kind=0, seed=41).frames)
    with Stack(directory, only=("kafka", "postgres", "s3"), partitions=PARTITIONS) as stack:
        settings = stack.settings
        produce(settings, records)
        time_s = np.arange(20_000) / RATE
        counts = np.rint(500 * np.sin(2 * np.pi * np.array([50.0, 120.0, 300.0]) * time_s[:, None])).astype(int)
        device = 0x0200_0000_0000_0005
        producer = Producer({**settings.kafka_config(), "log_level": 0})
        for number in range(10):
            part = counts[number * 2000 : (number + 1) * 2000]
            producer.produce(RAW, raw_frame(device, number, number * 2000, part), partition=partition(device, PARTITIONS))
        assert producer.flush(10) == 0
        log = directory / "lake.log"
        with log.open("ab") as out:
            command = [sys.executable, "-m", "triax_backend.sinks.lake", "--flush-s", "1"]
            sink = subprocess.Popen(command, env={**os.environ, **settings.environ()}, stderr=out)
        until = time.monotonic() + 90
        try:
            while rows_of(settings, "frames") < 48 * 200 or rows_of(settings, "raw") < 10:
                assert sink.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(1)
        finally:
            sink.send_signal(signal.SIGTERM)
            sink.wait(40)
        yield settings, records


def rows_of(settings, name):
    try:
        return sum(len(table) for table in lake_tables(settings, name))
    except Exception as error:  # the sink has not made the table yet
        print(error)
        return 0


@pytest.mark.servers
@pytest.mark.timeout(240)
def test_jobs_and_training_on_the_lake(lake, tmp_path):
    settings, records = lake
    for _ in range(2):  # again: the same rows
        counts = job.run(settings, database=tmp_path / "work.duckdb")
        with psycopg.connect(settings.postgres) as connection:
            stored = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in counts}
            lines = connection.execute(
                "SELECT axis, lines_hz[1] FROM batch_spectra WHERE kind = 'amplitude' ORDER BY axis"
            ).fetchall()
            missing = connection.execute("SELECT sum(missing), sum(frames) FROM batch_quality").fetchone()
        assert stored == counts
    assert [axis for axis, _ in lines] == ["x", "y", "z"]
    assert [hertz for _, hertz in lines] == pytest.approx([50, 120, 300], abs=1.4)
    assert tuple(map(int, missing)) == (0, 48 * 200)
    rows = train.features_of(lake_tables(settings))
    streamed, _ = Stream().process(of_records(records)[0])
    assert set(map(bytes, rows)) == set(map(bytes, streamed))  # trained on what will be scored
    trained, data = train.train_window(lake_tables(settings))
    assert data["devices"] == 48
    assert trained.report["test"]["windows"] > 0
    assert train.store_unusual(settings, trained, "window/1", planted.START_US) == 48


@pytest.mark.servers
@pytest.mark.engines
@pytest.mark.timeout(400)
@pytest.mark.skipif(not (SPARK / "jars").is_dir(), reason="no Spark here: sim/deploy/engines/install spark")
def test_spark_reads_and_compacts_the_same_lake(lake):
    settings, _ = lake
    before = duckdb_frames(lake_tables(settings)).count().to_pyarrow().as_py()
    environ = {**os.environ, **settings.environ(), "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("proto", "sim"))}
    command = [str(SPARK / "bin/python"), "-m", "triax_backend.batch.spark_job"]
    job.run(settings, with_captures=False)
    with psycopg.connect(settings.postgres) as connection:
        want = connection.execute("SELECT device, hour, frames, rms_x_g FROM batch_hourly ORDER BY 1, 2").fetchall()
        connection.execute("TRUNCATE batch_hourly")
    for options in ([], ["--compact"]):
        done = subprocess.run([*command, *options], env=environ, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr[-3000:]
    with psycopg.connect(settings.postgres) as connection:
        got = connection.execute("SELECT device, hour, frames, rms_x_g FROM batch_hourly ORDER BY 1, 2").fetchall()
    assert [row[:3] for row in got] == [row[:3] for row in want]
    assert [row[3] for row in got] == pytest.approx([row[3] for row in want], rel=1e-9)
    assert duckdb_frames(lake_tables(settings)).count().to_pyarrow().as_py() == before
