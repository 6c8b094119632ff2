"""The lake on a real S3 server, with its catalog in a real PostgreSQL."""

import itertools
import time
import zlib

import numpy as np
import pyarrow.compute as pc
import pytest
from triax_backend import deadletter, hops, upkeep
from triax_backend.frames import unpack
from triax_backend.sinks import iceberg, lake_rows, lake_upkeep
from triax_proto import names
from triax_proto.v1.frame_pb2 import RawFrame

from .build import odd_frame, raw_to_kafka, record, to_kafka, wire
from .sinks import Place, identities

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


def table(place, name="frames"):
    return iceberg.open_table(iceberg.catalog(place.settings), name)


def whole(place):
    """Coverage without holes and nothing twice, up to the end of Kafka as the sink saw it."""
    found = iceberg.coverage(table(place), names.FRAMES)
    assert found
    for partition, one in found.items():
        assert (one.first, one.holes, one.twice) == (0, (), ()), f"partition {partition}: {one}"
        assert one.next > 0
    return found


def test_it_archives_every_frame_verbatim_repeats_too(place):
    frames = place.frames(20, 20)
    odd = [odd_frame(seed=i, device=place.device + 500, boot=3, sequence=i) for i in range(3)]
    short = wire(place.frames(2, 2, boot=8, values=3)) + wire(place.frames(2, 1, boot=9, values=0))
    sink = place.run("lake", "--flush-s", "0.5")
    to_kafka(place.settings, wire(frames) + odd + short)
    to_kafka(place.settings, wire(frames)[:50])
    place.wait(place.lake_caught_up, "all rows", alive=[sink])
    rows = place.lake()
    assert identities(rows) == identities(place.kafka()), "verbatim: what Kafka holds, repeats and all"
    assert rows["proved"].all()
    assert len(hops.once(rows)) == 409
    assert set(zip(rows["order"].tolist(), rows["checksum"].tolist(), strict=True)) == set(
        zip((kafka := place.kafka())["order"].tolist(), kafka["checksum"].tolist(), strict=True)
    ), "each row knows its place in Kafka"
    assert (rows["at_us"] > 1_600_000_000_000_000).all()
    stored = table(place).scan(row_filter="original is not null").to_arrow()["original"].to_pylist()
    assert sorted(s for s in stored if s in odd) == sorted(odd)
    assert place.stop(sink) == 0
    whole(place)


# The other points once more in the whole path: tests/faults/test_crash_points.py.
@pytest.mark.parametrize(
    "point", ["before_table_commit", *(pytest.param(p, marks=pytest.mark.slow) for p in ("after_put", "after_table_commit"))]
)
def test_killed_at_a_point_in_mid_run_each_offset_is_in_the_table_once(place, point):
    frames = wire(place.frames(20, 30))
    once = place.directory / "crashed"
    killed = place.run("lake", "--flush-s", "0.4", TRIAX_CRASH=f"{point}:2", TRIAX_CRASH_ONCE=str(once))
    to_kafka(place.settings, frames[:200])
    place.wait(lambda: place.lake_caught_up() or killed.poll() is not None, "the first commit")
    to_kafka(place.settings, frames[150:400])
    assert killed.wait(30) == -9
    committed, in_kafka = len(place.lake()), len(place.kafka())
    if point != "after_table_commit":
        assert committed < in_kafka, "nothing was in flight at the kill"
    again = place.run("lake", "--flush-s", "0.4", TRIAX_CRASH=f"{point}:2", TRIAX_CRASH_ONCE=str(once))
    to_kafka(place.settings, frames[350:])
    place.wait(place.lake_caught_up, "all rows", alive=[again])
    assert place.stop(again) == 0
    rows = place.lake()
    assert identities(rows) == identities(place.kafka()), "each of Kafka's records once"
    read = hops.once(rows)
    assert len(rows) - len(read) == 100, "repeats were archived"
    assert identities(read) == identities(hops.once(place.kafka()))
    assert len(read) == 600, "and removed on reading"
    whole(place)


def test_two_writers_share_the_partitions_of_one_table(place):
    frames = wire(place.frames(40, 20))
    sinks = [place.run("lake", "--flush-s", "0.3", "--instance", name) for name in "ab"]
    for at in range(0, 800, 200):
        to_kafka(place.settings, frames[at : at + 200])
        place.wait(place.lake_caught_up, "a piece", alive=sinks)
    assert [place.stop(sink) for sink in sinks] == [0, 0]
    assert identities(place.lake()) == identities(place.kafka())
    whole(place)
    read = {}
    for rows, _ in iceberg.files(table(place)):
        for number in set(rows["kafka_partition"].to_pylist()):
            offsets = rows.filter(pc.equal(rows["kafka_partition"], number))["kafka_offset"].to_numpy()
            read.setdefault(number, []).append((offsets.min(), offsets.max()))
    assert max(map(len, read.values())) > 2, "several files have rows of a partition"
    for ranges in read.values():
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges)), "files come in Kafka's order"


def test_a_stored_offset_that_moved_is_not_written_over(place):
    mine = table(place)
    empty = iceberg.TABLES["frames"].empty_table()
    iceberg.append(mine, names.FRAMES, empty, {3: 10}, {3: 20}, lambda _: None)
    with pytest.raises(iceberg.Moved, match="is at 20, not 10"):
        iceberg.append(mine, names.FRAMES, empty, {3: 10}, {3: 30}, lambda _: None)
    iceberg.append(mine, names.FRAMES, empty, {3: 20}, {3: 25}, lambda _: None)
    found = iceberg.coverage(table(place), names.FRAMES)
    assert found == {3: iceberg.Coverage(10, 25, 2, (), ())}


def raw_frame(device, sequence, counts, first=None):
    first = 1000 * sequence if first is None else first
    message = RawFrame(checksum=0, device=device, boot=4, sequence=sequence, first_sample=first, samples=len(counts))
    message.time_us, message.time_error_us, message.rate_hz, message.capture, message.scale_g = 1, 0xFFFFFFFF, 26667.0, 77, 0.001
    for axis, values in zip("xyz", np.asarray(counts).T, strict=True):
        getattr(message, axis).extend(np.diff(values, prepend=0).tolist())
    message.lost_samples = message.flags = message.config = message.temperature_mc = 0
    data = message.SerializeToString(deterministic=True)
    return data[:1] + zlib.crc32(data[5:]).to_bytes(4, "little") + data[5:]


def test_raw_captures_have_a_table_of_their_own(place):
    counts = np.random.default_rng(4).integers(-(2**19), 2**19, (1000, 3))
    frames = [raw_frame(place.device, i, counts + i) for i in range(3)]
    flipped = frames[0][:-2] + bytes([frames[0][-2] ^ 1]) + frames[0][-1:]
    beyond = raw_frame(place.device, 9, counts, first=2**63)  # no signed 64-bit number
    for data in [*frames, flipped, beyond, b"\x0d" + place.name.encode()]:
        raw_to_kafka(place.settings, names.RAW, data, partition=0)
    sink = place.run("lake", "--flush-s", "0.4")

    def rows():
        return table(place, "raw").scan(row_filter=f"device = {place.device}").to_arrow().sort_by("sequence")

    place.wait(lambda: len(rows()) == 3, "three captures", alive=[sink])
    found = rows()
    assert found["original"].to_pylist() == frames
    assert found["capture"].to_pylist() == [77] * 3
    for axis, name in enumerate("xyz"):
        assert [x for row in found[name].to_pylist() for x in row] == np.concatenate(
            [counts[:, axis] + i for i in range(3)]
        ).tolist()
    letters = [c for c in deadletter.letters(place.settings, stage="lake") if c.data in (flipped, b"\x0d" + place.name.encode())]
    assert {(c.cause, c.target, c.form) for c in letters} == {("unreadable", names.RAW, "record")}
    assert len(letters) == 2
    assert place.stop(sink) == 0


def day_rows(place, day, count):
    frames = place.frames(count, 1, boot=day, start_us=1_780_000_000_000_000 + day * 86_400_000_000)
    one = record(wire(frames), received_us=1_780_000_001_000_000 + day * 86_400_000_000)
    return lake_rows.frames_table(unpack([one]), [one])


def test_old_days_go_first_by_age_then_by_budget_and_coverage_stays(place):
    mine = table(place)
    for day in range(6):
        iceberg.append(mine, names.FRAMES, day_rows(place, day, 10), {0: day}, {0: day + 1}, lambda _: None)
    held = lake_upkeep.sizes(mine)
    assert list(held) == [f"2026-05-{28 + day}" if day < 4 else f"2026-06-0{day - 3}" for day in range(6)]
    now_s = 1_780_000_000 + 5 * 86_400
    assert lake_upkeep.drop_days(mine, keep_days=4, now_s=now_s) == ["2026-05-28"]
    assert lake_upkeep.drop_days(mine, budget_bytes=3 * max(held.values()), now_s=now_s) == ["2026-05-29", "2026-05-30"]
    assert lake_upkeep.drop_days(mine, budget_bytes=0, now_s=now_s) == ["2026-05-31", "2026-06-01"], "today stays"
    mine.refresh()
    assert set(mine.scan().to_arrow()["boot"].to_pylist()) == {5}
    assert iceberg.coverage(mine, names.FRAMES) == {0: iceberg.Coverage(0, 6, 6, (), ())}, "what was archived, not what is kept"


def test_snapshots_are_forgotten_and_their_files_swept(place):
    mine = table(place)
    for at in range(4):
        iceberg.append(mine, names.FRAMES, day_rows(place, at, 2), {0: at}, {0: at + 1}, lambda _: None)
    (orphan,) = iceberg.put(mine, day_rows(place, 9, 2))  # a writer died before its commit
    assert lake_upkeep.sweep(place.settings, mine) == [], "too young: somebody may be about to commit it"
    later_s = time.time() + 2 * 86_400
    assert lake_upkeep.sweep(place.settings, mine, now_s=later_s) == [orphan.removeprefix("s3://")]
    lake_upkeep._SLACK, slack = 0, lake_upkeep._SLACK
    try:
        assert lake_upkeep.forget(mine, keep=2) == 2
    finally:
        lake_upkeep._SLACK = slack
    removed = lake_upkeep.sweep(place.settings, mine, now_s=later_s)
    assert removed
    assert not [path for path in removed if path.endswith(".parquet")], "the rows are in the current snapshot too"
    assert len(mine.scan().to_arrow()) == 8
    assert iceberg.coverage(mine, names.FRAMES) == {0: iceberg.Coverage(0, 4, 2, (), ())}
    rows = hops.once(place.lake())
    assert rows["proved"].all()
    assert len(rows) == 8


def test_the_daily_job_says_what_it_did(place, monkeypatch, capsys):
    for name, value in place.settings.environ().items():
        monkeypatch.setenv(name, value)
    iceberg.append(table(place), names.FRAMES, day_rows(place, 0, 10), {0: 0}, {0: 1}, lambda _: None)
    upkeep.main(["--keep-days", "30"])
    said = capsys.readouterr().out
    assert "database: 0 partitions dropped" in said
    assert "days dropped: ['2026-05-28']" in said
