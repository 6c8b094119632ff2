"""The frames sink on a real PostgreSQL and a real Kafka."""

import json
import urllib.request

import numpy as np
import psycopg
import pytest
from triax_backend import deadletter, hops, scan
from triax_backend.servers.ports import free_port
from triax_proto import batch, names
from triax_proto.v1.event_pb2 import Event

from .build import odd_frame, raw_to_kafka, to_kafka, wire
from .sinks import Place, identities

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line.startswith("triax_")]
    out = {}
    for name, value in lines:
        key = name.partition("{")[0]
        out[key] = out.get(key, 0) + float(value)
    return out


def test_every_frame_once_with_its_bytes_and_a_closed_account(place):
    frames = place.frames(20, 30)
    odd = [odd_frame(seed=i, device=place.device + 500, boot=3, sequence=i) for i in range(3)]
    short = place.frames(3, 2, boot=9, values=4)
    to_kafka(place.settings, frames)
    to_kafka(place.settings, wire(frames)[100:300])  # repeats
    to_kafka(place.settings, odd + odd[:1] + wire(short))
    flipped = bytearray(wire(frames)[0][:200])
    raw_to_kafka(place.settings, names.FRAMES, batch.join([bytes(flipped)]), partition=1)
    raw_to_kafka(place.settings, names.FRAMES, b"\x0a\xff" + place.name.encode(), partition=2)
    port = free_port()
    sink = place.run("timescale", "--metrics-port", str(port))
    place.wait(lambda: len(place.postgres()) >= 609, "609 frames", alive=[sink])
    rows = place.postgres()
    assert identities(rows) == identities(place.kafka_once())
    assert len(rows) == 20 * 30 + 3 + 6
    assert rows["proved"].all()
    assert (rows["at_us"] > 1_600_000_000_000_000).all(), "commit times"
    place.wait(lambda: metrics(port)["triax_lag_records"] == 0, "no lag", alive=[sink])
    found = metrics(port)
    terms = ("out_total", "dead_total", "repeated_total", "returned_total", "in_flight")
    closed = sum(found.get(f"triax_frames_{term}", 0) for term in terms)
    assert found["triax_frames_in_total"] == closed
    assert found["triax_frames_repeated_total"] >= 201
    assert found["triax_frames_dead_total"] >= 2
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        assert json.load(answer)["healthy"]
    mine = [
        one
        for one in deadletter.letters(place.settings, stage="timescale")
        if one.data in (bytes(flipped), b"\x0a\xff" + place.name.encode())
    ]
    assert {(one.cause, one.form, one.source.split("/")[1]) for one in mine} == {
        ("unreadable", "frame", "1"),
        ("unreadable", "record", "2"),
    }
    assert place.stop(sink) == 0


def test_identity_conflicts_are_dead_lettered_and_told_never_dropped(place):
    """Against the remembered checksum, against one that only the table still has, and within one flush."""
    first = place.frames(1, 100, boot=5)
    sink = place.run("timescale")
    to_kafka(place.settings, first)
    place.wait(lambda: len(place.postgres()) == 100, "the first", alive=[sink])
    clone = place.frames(1, 100, boot=5, seed=99)
    twin = place.frames(1, 2, boot=6, seed=1), place.frames(1, 2, boot=6, seed=2)
    to_kafka(place.settings, wire(clone)[10:12] + wire(clone)[97:99] + wire(first)[11:13] + wire(twin[0]) + wire(twin[1]))

    def conflicts():
        return [c for c in deadletter.letters(place.settings, cause=deadletter.CONFLICT) if c.data in wire(clone) + wire(twin[1])]

    place.wait(lambda: len(conflicts()) >= 6, "six dead letters", alive=[sink])
    assert sorted(c.data for c in conflicts()) == sorted(wire(clone)[10:12] + wire(clone)[97:99] + wire(twin[1]))
    place.wait(lambda: len(place.postgres()) == 102, "twin's two", alive=[sink])
    assert identities(place.postgres()) == sorted(identities(first) + identities(twin[0]))
    events = [Event.FromString(r.value) for found in scan.records(place.settings, names.EVENTS) for r in found]
    told = {
        (e.boot, e.conflict.sequence, e.conflict.checksum_seen, e.conflict.checksum_new) for e in events if e.device == place.device
    }
    want = [(5, s, first["checksum"][s], clone["checksum"][s]) for s in (10, 11, 97, 98)]
    want += [(6, s, twin[0]["checksum"][s], twin[1]["checksum"][s]) for s in (0, 1)]
    assert told == {tuple(int(v) for v in one) for one in want}
    heap = deadletter.group(conflicts())
    assert [(h.cause, h.stage, h.count) for h in heap] == [("identity conflict", "timescale", 6)]


def test_dead_letters_replay_to_where_they_were_going(place):
    """A frame that a stage gave up by mistake goes back and arrives; what is still unreadable is refused."""
    good = place.frames(1, 3)
    letters = [
        deadletter.DeadLetter(wire(good)[0], "mistake", "x", f"triax/v1/{place.device:016x}/frame", 0, names.FRAMES, "frame"),
        deadletter.DeadLetter(batch.join(wire(good)[1:]), "mistake", "x", f"{names.FRAMES}/0/17", 0, names.FRAMES, "record"),
        deadletter.DeadLetter(wire(good)[0], "mistake", "x", "again", 0, names.FRAMES, "frame"),
        deadletter.DeadLetter(b"junk", "unreadable", "x", f"{names.FRAMES}/0/18", 0, names.FRAMES, "frame"),
        deadletter.DeadLetter(b"?", "unknown topic", "x", "a/b", 0),
    ]
    done = deadletter.replay(place.settings, letters)
    assert done.sent == 2
    assert sum(done.refused.values()) == 2
    sink = place.run("timescale")
    place.wait(lambda: len(place.postgres()) == 3, "three frames", alive=[sink])
    assert identities(place.postgres()) == identities(good)


# The other points once more in the whole path: tests/faults/test_crash_points.py.
@pytest.mark.parametrize(
    "point", ["before_commit", *(pytest.param(p, marks=pytest.mark.slow) for p in ("after_copy", "after_commit"))]
)
def test_killed_at_a_point_in_mid_run_it_loses_and_repeats_nothing(place, point):
    frames = wire(place.frames(25, 40))
    once = place.directory / "crashed"
    killed = place.run("timescale", "--flush-s", "0.3", TRIAX_CRASH=f"{point}:2", TRIAX_CRASH_ONCE=str(once))
    to_kafka(place.settings, frames[:400])
    place.wait(lambda: len(place.postgres()) >= 400 or killed.poll() is not None, "the first flush")
    to_kafka(place.settings, frames[300:700])  # a hundred are repeats, in the flush that is cut off or in the next
    killed.wait(30)
    assert killed.returncode == -9
    assert once.exists()
    committed = len(place.postgres())
    flying = len(np.unique(place.kafka()[["device", "sequence"]])) - committed
    if point != "after_commit":
        assert flying > 0, "nothing was in flight at the kill"
    port = free_port()
    again = place.run("timescale", "--metrics-port", str(port), TRIAX_CRASH=f"{point}:2", TRIAX_CRASH_ONCE=str(once))
    to_kafka(place.settings, frames[600:])
    place.wait(lambda: len(place.postgres()) >= 1000, "all frames", alive=[again])
    place.wait(lambda: metrics(port)["triax_lag_records"] == 0, "no lag", alive=[again])
    rows = place.postgres()
    assert identities(rows) == identities(hops.once(place.kafka()))
    assert len(rows) == 1000
    assert metrics(port)["triax_frames_repeated_total"] >= 100, "repeats came after the kill and were removed"
    assert place.stop(again) == 0


def test_a_second_instance_takes_over_and_the_first_cannot_write_behind_it(place):
    """Two sinks of one group share the partitions; killed, the other has them all."""
    frames = wire(place.frames(30, 40))
    one = place.run("timescale", "--instance", "a", "--flush-s", "0.2")
    two = place.run("timescale", "--instance", "b", "--flush-s", "0.2")
    to_kafka(place.settings, frames[:600])
    place.wait(lambda: len(place.postgres()) == 600, "half", alive=[one, two])
    one.kill()
    to_kafka(place.settings, frames[600:])
    place.wait(lambda: len(place.postgres()) >= 1200, "the rest", alive=[two])
    assert identities(place.postgres()) == identities(hops.once(place.kafka()))


def test_views_give_g_and_each_device_by_time(place):
    frames = place.frames(3, 25, start_us=1_795_000_000_000_000)
    frames["time_us"] = frames["time_us"]
    to_kafka(place.settings, frames, timestamp_ms=1_795_000_003_000)
    sink = place.run("timescale")
    place.wait(lambda: len(place.postgres()) == 75, "frames", alive=[sink])
    with psycopg.connect(place.settings.postgres) as connection:
        query = "SELECT time, x_g, sequence, value FROM values_g WHERE device = %s AND run_time < %s AND run_end > %s ORDER BY time"
        found = connection.execute(query, (place.device + 1, "2026-11-18 12:27:00+00", "2026-11-01 00:00:00+00")).fetchall()
    mine = frames[frames["device"] == place.device + 1]
    mine = mine[np.argsort(mine["sequence"])]
    want = mine["x"].astype(float) * mine["scale_g"][:, None].astype(float) / mine["decimation"][:, None]
    assert np.allclose([row[1] for row in found], want.reshape(-1), rtol=1e-12)
    first = found[0][0].timestamp()
    assert first == pytest.approx(1_795_000_000 + 79.5 / 16000, abs=2e-6), "value 0 is centred 79.5 samples after the first"
    with psycopg.connect(place.settings.postgres) as connection:
        row = connection.execute(
            "SELECT time, rms_z_g, temperature_c, id FROM frames_each WHERE device = %s ORDER BY sequence LIMIT 1",
            (place.device + 1,),
        ).fetchone()
        plan = "\n".join(
            r[0]
            for r in connection.execute(
                "EXPLAIN SELECT * FROM frames WHERE device = 1 AND time < now() AND time > now() - interval '1 minute'"
            )
        )
    assert row[0].timestamp() == 1_795_000_000
    assert row[1] == pytest.approx(float(np.sqrt(mine["sum_squares"][0][2] / 1600) * mine["scale_g"][0]), rel=1e-6)
    assert (row[2], row[3]) == (25.0, f"{place.device + 1:016x}")
    assert "device_time" in plan, plan
