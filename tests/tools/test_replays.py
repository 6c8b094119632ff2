"""Recordings of real sensors through the whole path: their line in the raw capture, their events in the database."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest
from triax_backend import hops
from triax_backend.batch.captures import captures
from triax_backend.batch.source import lake_tables
from triax_backend.batch.spectra import line
from triax_backend.sinks import rows
from triax_backend.stream.columns import of_frames
from triax_backend.stream.events import messages
from triax_backend.stream.process import Stream
from triax_proto.v1.event_pb2 import Event
from triax_sim.bulk import device_ids
from triax_sim.replay import read_csv, read_hsdatalog
from triax_tools.calibrate.response import sine_fit

sys.path.insert(0, str(Path(__file__).parent))
from test_demo import TRIAX, no_loss, started

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]
DATA = Path(__file__).parents[2].parent / "shared" / "data"
BOARDS = DATA / "st-datalog2-iis3dwb"
MOTOR = DATA / "vibrationdaq-adcmxl3021" / "vibration_data_MTC_2020-06-25T07_34_45.609_sensor1.csv"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the recordings of ../shared/data are absent")


def of_stack(stack):
    return [option for name, url in vars(stack.settings).items() for option in (f"--{name}", url)]


def demo_of(recording, seed, seconds):
    options = ["--devices", "41", "--gold", "1", "--seconds", str(seconds), "--seed", str(seed), "--json", "--no-page"]
    return ["demo", *options, "--recording", str(recording)]


def events_of(settings, device, since_us):
    """What the stream wrote of a device into the database; scores depend on models that other tests announced."""
    found = [Event.FromString(message) for message in hops.events(settings, since_us)]
    return [e for e in found if e.device == device and e.HasField("finding") and e.kind != Event.KIND_ANOMALY]


def events_wanted(stored):
    """What our functions find in the frames that the database holds."""
    stream, out = Stream(), []
    for frame in stored:
        out += messages(stream.process(of_frames(np.array([frame]), 0))[1])
    return out


def same(found, wanted):
    assert sorted(e.SerializeToString(deterministic=True) for e in found) == sorted(
        e.SerializeToString(deterministic=True) for e in wanted
    )


def rows_of(url, device, since_us):
    """Frames of a device in the database, by sequence."""
    columns = ", ".join(f'"{name}"' for name in rows.COLUMNS)
    signed = device - (1 << 64 if device >> 63 else 0)
    recent = f"device = {signed} AND received >= to_timestamp({since_us / 1e6})"
    query = f"COPY (SELECT {columns} FROM frames WHERE {recent}) TO STDOUT (FORMAT binary)"
    found = []
    with psycopg.connect(url) as connection, connection.cursor().copy(query) as copy:
        for runs, _, _ in rows.read(bytes(chunk) for chunk in copy):
            found += list(rows.reassemble(runs))
    return sorted(found, key=lambda frame: int(frame["sequence"]))


def check_values(stored, recording):
    """Every value is the sum of 267 consecutive raw counts, from first_sample; in g it is the recording's within one ulp."""
    windows = 0
    scale = np.float32(stored[0]["scale_g"])
    for frame in stored:
        first = int(frame["first_sample"])
        for k in range(len(frame["x"]) if "x" in frame.dtype.names else 0):
            raw = recording.counts[first + 267 * k : first + 267 * (k + 1)].astype(np.int64)
            sums = [int(frame[axis][k]) for axis in "xyz"]
            assert sums == raw.sum(axis=0).tolist(), (int(frame["sequence"]), k)
            g = np.float32(np.array(sums) * float(scale) / 267)
            wanted = np.float32(raw.mean(axis=0) * recording.scale_g)
            assert np.all(np.abs(g - wanted) <= np.spacing(np.abs(wanted)))
            windows += 1
    assert windows == len(recording.counts) // 267
    covered = int(stored[-1]["first_sample"]) + int(stored[-1]["samples"])
    assert covered == len(recording.counts)  # the incomplete last window is in the last frame's samples, extremes and squares
    rates = [float(frame["rate_hz"]) for frame in stored]
    assert rates[-1] == pytest.approx(recording.rate_hz, rel=50e-6)


SPIKE, GLITCH = Event.KIND_SPIKE, Event.KIND_GLITCH
NEVER = {GLITCH, Event.KIND_BEARING, Event.KIND_DEAD_AXIS, Event.KIND_MISSING}


@needs_data
@pytest.mark.parametrize(
    ("folder", "spikes"),
    [
        ("STWIN.box_20240916_15_45_40", 1),
        pytest.param("STWIN.box_DL2_00001", None, marks=pytest.mark.slow),
        pytest.param("STWIN_DL2_00001", None, marks=pytest.mark.slow),
    ],
)
def test_a_board_is_in_the_database_count_for_count_with_its_events(stack, tmp_path, folder, spikes):
    seed, began_us = 31, time.time_ns() // 1000
    with started(tmp_path / "home", *demo_of(BOARDS / folder, seed, 13), *of_stack(stack)) as demo:
        printed, complaint = demo.communicate(timeout=170)
    assert complaint == ""
    no_loss(json.loads(printed))
    device = int(device_ids(seed, np.array([0]))[0])
    stored = rows_of(stack.settings.postgres, device, began_us)
    check_values(stored, read_hsdatalog(BOARDS / folder, "iis3dwb"))
    found = events_of(stack.settings, device, began_us)
    same(found, events_wanted(stored))
    kinds = [event.kind for event in found]
    assert not set(kinds) & NEVER
    if spikes is not None:  # a tap on the table, and nothing else
        assert kinds == [SPIKE] * spikes
        assert found[0].finding.value > 1


@needs_data
@pytest.mark.slow
def test_the_unbalance_line_is_in_the_raw_capture_of_the_lake(stack, tmp_path):
    seed, began_us, settings = 32, time.time_ns() // 1000, stack.settings
    device = int(device_ids(seed, np.array([0]))[0])
    with started(tmp_path / "home", *demo_of(MOTOR, seed, 11), *of_stack(stack)) as demo:
        # Retained: the node finds it when it connects, and sends every sample of the next 9 s.
        push = [*TRIAX, "config", "push", f"{device:016x}", "--raw", "9000", "--mqtt", settings.mqtt]
        until = time.monotonic() + 60
        while subprocess.run(push, capture_output=True, timeout=60).returncode:
            assert time.monotonic() < until
        printed, complaint = demo.communicate(timeout=170)
    assert complaint == ""
    no_loss(json.loads(printed))
    taken = [one for one in captures(lake_tables(settings, "raw")) if one.device == device]
    assert len(taken) == 1, "no sample of the capture is missing"
    one, recording = taken[0], read_csv(MOTOR)
    assert one.seconds == pytest.approx(9, abs=0.1)
    runs = np.flatnonzero(np.abs(one.g[:, 2] - np.median(one.g[:, 2])) > 1)
    g = one.g[runs[0] : runs[-1] + 1]
    assert len(g) / one.rate_hz == pytest.approx(len(recording.counts) / recording.rate_hz, rel=0.01)
    assert line(g[:, 2], one.rate_hz, 100, 150).frequency_hz == pytest.approx(121.69, abs=0.42)  # half a bin of the sensor's FFT
    fit = sine_fit(g, one.rate_hz, harmonics=5)
    assert fit.frequency_hz == pytest.approx(121.596, abs=0.02)
    assert fit.amplitude_g == pytest.approx([0.737, 0.482, 8.76], rel=0.02)
    found = events_of(settings, device, began_us)
    same(found, events_wanted(rows_of(settings.postgres, device, began_us)))
    assert not {event.kind for event in found} & NEVER
