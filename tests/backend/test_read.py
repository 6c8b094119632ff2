"""A device in g from the database, and what the hop readers say of rows that were changed."""

import datetime
import time

import numpy as np
import psycopg
import pytest
from triax_backend import hops
from triax_backend.consume import Batch
from triax_backend.read import SCHEMA, NoSuchDevice, read, read_calibrations
from triax_backend.sinks.timescale import Timescale
from triax_proto import frame

from .build import odd_frame, record, wire
from .sinks import Place, identities

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]
START_US = 1_790_000_000_000_000
START = datetime.datetime.fromtimestamp(START_US / 1e6, datetime.UTC)


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


def store(place, pieces, received_us=START_US, offset=0):
    sink = Timescale(place.settings)
    sink.start([])
    sink.write(
        Batch([record(pieces, 0, offset, received_us)], {("triax.frames.v1", 0): offset}, {("triax.frames.v1", 0): offset + 1})
    )
    sink.close()


def seconds(value):
    return START + datetime.timedelta(seconds=value)


def test_values_in_g_with_their_times_whatever_the_runs_were(place):
    frames = place.frames(2, 35, start_us=START_US)
    frames["temperature_mc"][::3] = frame.NO_TEMPERATURE
    frame.encode(frames)
    store(place, wire(frames), START_US + 4_000_000)
    mine = frames[frames["device"] == place.device]
    table = read(place.settings, f"{place.device:016x}", seconds(0.5), seconds(2.25))
    want = mine[5:23]
    assert table.num_rows == 175
    for axis in "xyz":
        g = want[axis].astype(float) * want["scale_g"][:, None].astype(float) / 160
        assert np.array_equal(table[f"{axis}_g"].to_numpy(), g.reshape(-1)[:175])
    times = table["time"].to_numpy().astype(np.int64)
    exact = START_US * 1000 + 500_000_000 + np.arange(175) * 10_000_000 + round(79.5 / 16000 * 1e9)
    assert np.array_equal(times, exact)
    assert table["sequence"].to_pylist() == np.repeat(np.arange(5, 23), 10)[:175].tolist()
    warm = table["temperature_c"].to_pylist()
    assert {type(t) for t in warm} == {float, type(None)}
    assert table["own_clock"].to_pylist() == [True] * 175


def test_without_a_calibration_none_is_named(place):
    store(place, wire(place.frames(1, 10, start_us=START_US)))
    table = read(place.settings, place.device, seconds(0), seconds(2))
    assert table.schema == SCHEMA
    assert table["scale_g"].unique().to_pylist() == [float(np.float32(0.0005))]
    assert (table["calibration"].null_count, table["calibration_flags"].unique().to_pylist()) == (100, [0])
    assert read_calibrations(place.settings, place.device).blobs == {}


def test_without_utc_the_receive_time_counts_and_says_so(place):
    frames = place.frames(1, 10, start_us=5_000_000)  # microseconds since boot
    frames["time_error_us"] = frame.NO_UTC
    frame.encode(frames)
    store(place, wire(frames))
    table = read(place.settings, place.device, seconds(0), seconds(60))
    assert table.num_rows == 100
    assert not any(table["own_clock"].to_pylist())
    steps = np.unique(np.diff(table["time"].to_numpy().astype(np.int64)))
    assert steps.tolist() == [10_000_000], "the node's own spacing"


def test_who_asks_wrongly_is_told(place):
    store(place, wire(place.frames(1, 1, start_us=START_US)))
    assert read(place.settings, place.device, seconds(100), seconds(200)).num_rows == 0, "silent then"
    with pytest.raises(NoSuchDevice, match="00000000000000aa"):
        read(place.settings, 0xAA, seconds(0), seconds(1))
    with pytest.raises(ValueError, match="time zone"):
        read(place.settings, place.device, datetime.datetime(2026, 1, 1), seconds(1))
    with pytest.raises(ValueError, match="16 lower-case hex digits"):
        read(place.settings, "zz", seconds(0), seconds(1))


def test_a_row_that_was_changed_no_longer_proves_its_checksum(place):
    frames = place.frames(3, 10, start_us=START_US)
    odd = odd_frame(device=place.device + 9, boot=1, sequence=1)
    store(place, [*wire(frames), odd])
    assert all(rows["proved"].all() for rows in hops.postgres(place.settings))
    with psycopg.connect(place.settings.postgres) as connection:
        connection.execute("UPDATE frames SET y[35] = y[35] + 1 WHERE device = %s", (place.device + 1,))
        connection.execute("UPDATE frames SET original = substr(original, 1, 100) WHERE original IS NOT NULL")
    rows = place.postgres()
    broken = rows[~rows["proved"]]
    assert sorted(zip(broken["device"].tolist(), broken["sequence"].tolist(), strict=True)) == [
        (place.device + 1, 3),
        (place.device + 9, 1),
    ]
    assert len(rows) == 31


def test_once_keeps_the_first_of_each_and_every_conflict(place):
    frames = place.frames(2, 5)
    twice = np.concatenate(list(hops.kafka_records([record(wire(frames) + wire(frames)[:3], offset=7)])))
    assert twice["order"].tolist() == [(7 << 20) + i for i in range(13)]
    assert identities(hops.once(twice)) == identities(frames)
    assert hops.once(twice)["order"].tolist() == twice["order"].tolist()[:10]
    other = place.frames(2, 5, seed=1)
    both = np.concatenate(list(hops.kafka_records([record(wire(frames)), record(wire(other), offset=1)])))
    assert len(hops.once(both)) == 20


def test_a_hundred_thousand_frames_are_read_and_proved_in_a_second(place):
    """From records at hand and from the database; the bound is loose, the machine is shared."""
    frames = place.frames(1000, 100, start_us=START_US)
    store(place, wire(frames), START_US + 10_000_000)
    began = time.process_time()
    assert sum(map(len, hops.postgres(place.settings))) == 100_000
    assert time.process_time() - began < 1.5
