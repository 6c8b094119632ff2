"""Servers that are away at the start, die in the middle or run full: nothing is lost, nothing comes twice, and the log says why."""

import contextlib
import shutil
import subprocess

import pytest
from triax_backend import hops
from triax_backend.servers.seaweedfs import SeaweedFS
from triax_backend.sinks import iceberg
from triax_backend.stack import Stack
from triax_proto import names

from .build import to_kafka, wire
from .sinks import Place, identities

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Servers that may be stopped: nobody else uses them."""
    with Stack(tmp_path_factory.mktemp("outages"), only=("kafka", "postgres", "s3", "redis")) as running:
        yield running


@pytest.fixture
def place(servers, tmp_path):
    own = Place(servers.settings, tmp_path)
    yield own
    own.close()


def said(process, text):
    return text in process.log.read_text()


def test_postgres_away_at_start_and_dead_in_the_middle(servers, place):
    frames = wire(place.frames(20, 30))
    servers["postgres"].stop()
    sink = place.run("timescale", "--flush-s", "0.2")
    to_kafka(place.settings, frames[:200])
    place.wait(lambda: said(sink, "PostgreSQL is away"), "the log to say so", alive=[sink])
    servers.restart("postgres")
    place.wait(lambda: len(place.postgres()) >= 200, "the first frames", alive=[sink])
    servers["postgres"].kill()
    to_kafka(place.settings, frames[150:450])
    place.wait(lambda: sink.log.read_text().count("PostgreSQL is away") >= 2, "the log to say so again", alive=[sink])
    servers.restart("postgres")
    to_kafka(place.settings, frames[450:])
    place.wait(lambda: len(place.postgres()) >= 600, "all frames", alive=[sink])
    assert place.stop(sink) == 0
    assert identities(place.postgres()) == identities(place.kafka_once())


def test_kafka_dead_in_the_middle(servers, place):
    frames = wire(place.frames(10, 20))
    sink = place.run("timescale", "--flush-s", "0.2")
    to_kafka(place.settings, frames[:100])
    place.wait(lambda: len(place.postgres()) >= 100, "the first frames", alive=[sink])
    servers["kafka"].kill()
    place.wait(lambda: said(sink, "Kafka is away"), "the log to say so", alive=[sink])
    servers.restart("kafka")
    to_kafka(place.settings, frames[50:])
    place.wait(lambda: len(place.postgres()) >= 200, "all frames", alive=[sink])
    assert place.stop(sink) == 0
    assert identities(place.postgres()) == identities(place.kafka_once())


def test_redis_dead_in_the_middle(servers, place):
    frames = wire(place.frames(10, 10))
    sink = place.run("redis", "--flush-s", "0.2")

    def held():
        return {d: s for d, (_, s) in hops.redis(place.settings).items() if d >> 16 == place.device >> 16}

    to_kafka(place.settings, frames[:50])
    place.wait(lambda: list(held().values()) == [4] * 10, "the first frames", alive=[sink])
    servers["redis"].kill()
    to_kafka(place.settings, frames[50:])
    place.wait(lambda: said(sink, "Redis does not take the write"), "the log to say so", alive=[sink])
    servers.restart("redis")  # with its data or without: Kafka has what is newer
    place.wait(lambda: list(held().values()) == [9] * 10, "all frames", alive=[sink])
    assert place.stop(sink) == 0


def test_s3_dead_in_the_middle(servers, place):
    frames = wire(place.frames(20, 30))
    sink = place.run("lake", "--flush-s", "0.3")
    to_kafka(place.settings, frames[:200])
    place.wait(place.lake_caught_up, "the first commit", alive=[sink])
    servers["s3"].kill()
    to_kafka(place.settings, frames[200:])
    place.wait(lambda: said(sink, "S3 is away"), "the log to say so", alive=[sink])
    servers.restart("s3")
    place.wait(place.lake_caught_up, "all frames", alive=[sink])
    assert place.stop(sink) == 0
    assert identities(place.lake()) == identities(place.kafka())


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 96 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)], check=True, timeout=10)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True, timeout=10)


def test_a_full_disk_in_the_lake_stops_it_with_a_clear_message_and_loses_nothing(place, small_disk):
    s3 = SeaweedFS(small_disk)
    s3.start()
    place.settings = place.settings.__class__(**{**vars(place.settings), "s3": s3.url})
    ballast = small_disk / "ballast"
    try:
        frames = wire(place.frames(20, 30))
        sink = place.run("lake", "--flush-s", "0.3")
        to_kafka(place.settings, frames[:200])
        place.wait(place.lake_caught_up, "the first commit", alive=[sink])
        with contextlib.suppress(OSError), ballast.open("wb") as out:
            while True:
                out.write(bytes(1 << 16))
                out.flush()
        assert shutil.disk_usage(small_disk).free < 1 << 16
        before = iceberg.next_offsets(iceberg.open_table(iceberg.catalog(place.settings), "frames"), names.FRAMES)
        to_kafka(place.settings, frames[200:])
        place.wait(lambda: said(sink, "its disk is full: free space"), "the log to say so", alive=[sink])
        after = iceberg.next_offsets(iceberg.open_table(iceberg.catalog(place.settings), "frames"), names.FRAMES)
        assert after == before, "offsets move only with their rows"
        ballast.unlink()
        s3.stop()  # its own index stays read-only after a write that failed
        s3.start()
        place.wait(place.lake_caught_up, "all frames", alive=[sink])
        assert place.stop(sink) == 0
        assert identities(place.lake()) == identities(place.kafka())
    finally:
        s3.stop()
