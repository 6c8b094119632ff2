"""Batch: expressions against numpy, the same on DuckDB and Spark, spectra against sines, results that replace themselves."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from triax_backend.batch import expressions, job, results
from triax_backend.batch.captures import captures
from triax_backend.batch.compute import compute
from triax_backend.batch.source import duckdb_frames
from triax_backend.batch.spectra import amplitude_spectrum, density, envelope_spectrum, line, peaks
from triax_backend.frames import Record, unpack
from triax_backend.sinks.lake_rows import RAW, frames_table
from triax_proto.batch import join_array
from triax_proto.frame import empty, encode
from triax_proto.names import FRAMES
from triax_sim.replay import read_csv

sys.path.insert(0, str(Path(__file__).parent))
import planted

# ibis 12 calls a method that duckdb 2 has renamed and keeps
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

ROOT = Path(__file__).parents[2]
SPARK = ROOT / ".venv-spark"
HOUR_US = 3_600_000_000


def lake(devices=5, hours=4, each=30, seed=3):
    """Frames of a few devices over hours, `each` an hour, as the lake holds them: some twice, some missing, one in conflict."""
    rng = np.random.default_rng(seed)
    fleet = planted.fleet(devices=devices, frames=hours * each, per_kind=0, seed=seed)
    frames = empty(devices * hours * each).reshape(devices, hours * each)
    for name in frames.dtype.names:
        frames[name] = fleet.frames[name]
    number = np.arange(hours * each)
    frames["time_us"] = 1_760_000_400_000_000 + (number // each) * HOUR_US + (number % each) * 100_000
    frames["sum_squares"] += ((number // each) * 200_000 * (np.arange(devices)[:, None] == 1))[..., None].astype(
        np.uint64
    )  # gets worse
    frames["flags"][0, :7] = 8
    frames["flags"][0, 7:9] = 64
    frames["lost_samples"][2, 50:] = 123
    frames["temperature_mc"][3] = -(2**31)
    keep = rng.random(frames.shape) > 0.02
    rows = frames[keep]
    some = empty(len(rows) + 11)
    for name in rows.dtype.names:
        some[name][:-11] = rows[name]
        some[name][-11:] = rows[name][:11]  # repeats
    some["maximum"][-1] += 5  # and one is another frame
    wire = encode(some)
    records = []
    for at in range(0, len(wire), 97):
        received = int(some["time_us"][at : at + 97].max()) + 250_000
        records.append(Record(FRAMES, 0, len(records), received, join_array(wire[at : at + 97])))
    return frames_table(unpack(records), records), some[:-11]


@pytest.fixture(scope="module")
def table():
    return lake()


@pytest.fixture(scope="module")
def found(table):
    return compute(duckdb_frames([table[0].slice(0, 200), table[0].slice(200)]))


def test_hours_against_numpy(table, found):
    frames = table[1]
    rows = found["batch_hourly"].to_pylist()
    real = (frames["flags"] & 64) == 0
    assert sum(row["frames"] for row in rows) == real.sum()
    for row in rows:
        mine = frames[real & (frames["device"] == row["device"]) & (frames["time_us"] // HOUR_US == row["hour_us"] // HOUR_US)]
        assert row["frames"] == len(mine)
        for axis, name in enumerate("xyz"):
            scale = float(mine["scale_g"][0])
            mean = mine[name].sum() / (len(mine) * 1600) * scale
            square = mine["sum_squares"][:, axis].sum() / (len(mine) * 1600) * scale**2
            assert row[f"mean_{name}_g"] == pytest.approx(mean, rel=1e-9)
            assert row[f"rms_{name}_g"] == pytest.approx(np.sqrt(square - mean**2), rel=1e-8)
            low, high = mine["minimum"][:, axis].min() * scale, mine["maximum"][:, axis].max() * scale
            assert row[f"peak_{name}_g"] == pytest.approx(max(high - mean, mean - low), rel=1e-9)
        assert row["temperature_c"] == (None if row["device"] == planted_device(3) else 25)


def planted_device(row):
    return 0x0200_0000_0000_0000 + row


def test_trend_is_the_least_squares_line(found):
    hours = found["batch_hourly"].to_pylist()
    rows = {row["device"]: row for row in found["batch_trend"].to_pylist()}
    assert len(rows) == 5
    for device, row in rows.items():
        mine = sorted((r["hour_us"], r["rms_y_g"]) for r in hours if r["device"] == device)
        days = (np.array([t for t, _ in mine]) - mine[0][0]) / (24 * HOUR_US)
        assert row["rms_y_g_per_day"] == pytest.approx(np.polyfit(days, [y for _, y in mine], 1)[0], rel=1e-6, abs=1e-12)
        assert 0 <= row["explained_y"] <= 1 + 1e-9


def test_the_device_that_gets_worse_is_first(found):
    rows = sorted(found["batch_ranking"].to_pylist(), key=lambda row: row["place"])
    assert [row["place"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0]["device"] == planted_device(1)
    assert rows[0]["rise"] > 1.2 > rows[1]["rise"]


def test_quality_counts_what_was_done_to_the_frames(table, found):
    frames = table[1]
    rows = {row["device"]: row for row in found["batch_quality"].to_pylist()}
    assert len(rows) == 5
    first = rows[planted_device(0)]
    assert (first["repeats"], first["conflicts"]) == (11, 1)
    kept = frames[frames["device"] == planted_device(0)]
    assert first["saturated"] == (kept["flags"] == 8).sum()
    assert first["test_pattern"] == (kept["flags"] == 64).sum()
    assert rows[planted_device(2)]["lost_samples"] == 123
    for device, row in rows.items():
        mine = frames[frames["device"] == device]["sequence"]
        assert row["frames"] == len(mine)
        assert row["missing"] == int(mine.max()) - int(mine.min()) + 1 - len(mine)
        assert row["rows"] == row["frames"] + row["repeats"]
        assert row["boots"] == 1
        assert row["latency_s"] > 0


def test_an_empty_lake_has_empty_results():
    assert all(len(rows) == 0 for rows in compute(duckdb_frames([])).values())


def same(a, b, tolerance=1e-9):
    """Same rows of two results, whatever their order."""
    assert set(a.column_names) == set(b.column_names)
    keys = [name for name in ("device", "hour_us", "day_us") if name in a.column_names]
    a, b = (t.select(sorted(t.column_names)).sort_by([(key, "ascending") for key in keys]) for t in (a, b))
    assert len(a) == len(b)
    for name in a.column_names:
        left, right = a[name].to_pylist(), b[name].to_pylist()
        for one, other in zip(left, right, strict=True):
            if one is None or other is None:
                assert one is other, name
            else:
                assert one == pytest.approx(other, rel=tolerance, abs=1e-15), name


@pytest.mark.engines
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (SPARK / "jars").is_dir(), reason="no Spark here: sim/deploy/engines/install spark")
def test_spark_gives_the_same_tables(table, found, tmp_path):
    pq.write_table(table[0], tmp_path / "frames.parquet")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("proto", "sim"))}
    command = [str(SPARK / "bin/python"), "-m", "triax_backend.batch.spark_job", "--frames", str(tmp_path / "frames.parquet")]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], env=environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, rows in found.items():
        same(rows, pq.read_table(tmp_path / "out" / f"{name}.parquet"))


RATE = 26_700.0


def test_a_line_stands_at_its_amplitude():
    time_s = np.arange(26_700) / RATE
    for hertz in (121.0, 121.5, 1234.37):
        values = 0.25 * np.sin(2 * np.pi * hertz * time_s + 0.4) + 1
        frequency, amplitude = amplitude_spectrum(values[:, None], RATE)
        assert amplitude.max() == pytest.approx(0.25, rel=0.003)
        assert abs(frequency[amplitude[:, 0].argmax()] - hertz) <= 0.5
        assert line(values, RATE, 50, 2000).frequency_hz == pytest.approx(hertz, abs=0.005)
        assert line(values, RATE, 50, 2000).amplitude_g == pytest.approx(0.25, rel=1e-3)
        assert peaks(frequency, amplitude[:, 0], 1)[0].amplitude_g == pytest.approx(0.25, rel=0.003)
    with pytest.raises(ValueError, match="no line"):
        line(values, RATE, 20_000, 30_000)


def test_density_sums_to_the_mean_square():
    values = np.random.default_rng(1).normal(0.3, 0.02, 20_001)
    for part in (values, values[:-1]):
        frequency, power = density(part, RATE)
        assert power.sum() * frequency[1] == pytest.approx(0.02**2, rel=0.05)
        assert np.median(power) == pytest.approx(2 * 0.02**2 / RATE * np.log(2), rel=0.05)


def test_the_envelope_shows_the_rate_of_the_blows():
    time_s = np.arange(int(RATE)) / RATE
    since = time_s % (1 / 87.0)
    blows = np.exp(-since * 900) * np.sin(2 * np.pi * 5_200 * since)
    values = 0.2 * blows + np.sin(2 * np.pi * 29 * time_s) + np.random.default_rng(2).normal(0, 0.02, len(time_s))
    frequency, amplitude = envelope_spectrum(values, RATE, 4_000, 9_000)
    found = peaks(frequency, amplitude, 3)
    assert found[0].frequency_hz == pytest.approx(87, abs=1)
    assert {round(item.frequency_hz / 87) for item in found} == {1, 2, 3}


def raw_rows(pieces):
    """Rows of the lake's raw table: (device, first sample, counts (n, 3))."""
    out = []
    for number, (device, first, counts) in enumerate(pieces):
        row = dict.fromkeys(RAW.names, 0) | {"device": device, "boot": 5, "capture": 9, "first_sample": first, "scale_g": 0.0005}
        row |= {"rate_hz": RATE, "x": counts[:, 0].tolist(), "y": counts[:, 1].tolist(), "z": counts[:, 2].tolist()}
        row |= {"time_us": 1_760_000_000_000_000 + int(first / RATE * 1e6), "own_clock": True, "original": b"", "place": number}
        out.append(row)
    return pa.Table.from_pylist(out, RAW)


def test_captures_are_put_together_and_cut_at_holes():
    counts = np.arange(3000).reshape(-1, 3)
    pieces = [(7, 200, counts[200:500]), (7, 0, counts[:200]), (7, 0, counts[:200]), (7, 700, counts[700:]), (-1, 0, counts)]
    found = list(captures([raw_rows(pieces[:2]), raw_rows(pieces[2:])]))
    assert [(one.device, one.start, one.first_sample, len(one.g)) for one in found] == [
        (7, 0, 0, 500),
        (7, 1, 700, 300),
        (2**64 - 1, 0, 0, 1000),
    ]
    assert found[0].g == pytest.approx(counts[:500] * 0.0005, rel=1e-6)


@pytest.mark.servers
def test_results_replace_what_they_said_before(stack, found):
    settings = stack.settings
    first = results.store(settings, found)
    assert first == {name: len(rows) for name, rows in found.items()}
    assert results.store(settings, found) == first
    time_s = np.arange(13_350) / RATE
    counts = np.rint(2000 * np.sin(2 * np.pi * np.array([50, 100, 200]) * time_s[:, None])).astype(int)
    spectra = list(job.spectra_rows(captures([raw_rows([(7, 0, counts)])])))
    with psycopg.connect(settings.postgres) as connection:
        for _ in range(2):
            assert results.store_rows(connection, "batch_spectra", spectra) == 6
        got = connection.execute(
            "SELECT lines_hz[1], lines_g[1] FROM batch_spectra WHERE kind = 'amplitude' ORDER BY axis"
        ).fetchall()
        for (hertz, g), want in zip(got, (50, 100, 200), strict=True):
            assert hertz == pytest.approx(want, abs=2)
            assert g == pytest.approx(1, rel=0.01)
        hours = connection.execute("SELECT count(*), min(hour) FROM batch_hourly").fetchone()
        assert hours[0] == len(found["batch_hourly"])
        assert hours[1].timestamp() * 1e6 == min(found["batch_hourly"]["hour_us"].to_pylist())


def test_columns_are_those_of_the_lake(table):
    names = set(table[0].column_names) | {"at_us", "received_us"}
    assert set(expressions.COLUMNS) <= names


def test_the_recorded_unbalance_has_its_line():
    data = ROOT.parent / "shared" / "data" / "vibrationdaq-adcmxl3021"
    if not data.is_dir():
        pytest.skip(f"no recordings: {data}")
    recording = read_csv(next(data.glob("*MTC*.csv")))
    g = recording.g()
    frequency, amplitude = amplitude_spectrum(g, recording.rate_hz)
    for axis, peak in enumerate((0.737, 0.482, 8.76)):
        found = line(g[:, axis], recording.rate_hz, 100, 150)
        assert found.frequency_hz == pytest.approx(121.69, abs=0.42)  # half a line of the sensor's own spectrum
        assert found.amplitude_g == pytest.approx(peak, rel=0.02)
    assert frequency[amplitude[:, 2].argmax()] == pytest.approx(121.69, abs=0.01)
