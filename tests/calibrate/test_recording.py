"""Recordings: frames as they arrive, capture files, tables, and what is wrong with each."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from triax_proto import frame as codec
from triax_proto.v1 import frame_pb2
from triax_tools.calibrate import capfile, clock, fit, gravity, procedure, recording, rest
from triax_tools.calibrate.errors import BadInput, Refused
from triax_tools.calibrate.readers import Hints, read
from triax_tools.calibrate.recording import Identity

IDENTITY = Identity("00112233445566ff", "iis3dwb", "", "1.0", 2.0, 1 / 16384)


def frames_of(counts, boot=7, first=0, decimation=10, sequence=0, rate=1000.0):
    """Wire frames (bytes) of raw counts (n * 100, 3), ten values of ten samples each."""
    count = len(counts) // (10 * decimation)
    raw = np.asarray(counts[: count * 10 * decimation], np.int64).reshape(count, 10 * decimation, 3)
    frames = codec.empty(count)
    sums = raw.reshape(count, 10, decimation, 3).sum(axis=2)
    for k, axis in enumerate("xyz"):
        frames[axis] = sums[:, :, k]
    frames["device"], frames["boot"], frames["rate_hz"] = 0x00112233445566FF, boot, rate
    frames["sequence"] = sequence + np.arange(count)
    frames["first_sample"] = first + np.arange(count) * 10 * decimation
    frames["samples"], frames["decimation"], frames["scale_g"] = 10 * decimation, decimation, 1 / 16384
    frames["minimum"], frames["maximum"] = raw.min(axis=1), raw.max(axis=1)
    frames["sum_squares"] = (raw**2).sum(axis=1)
    frames["temperature_mc"] = 24_500
    return [row.tobytes() for row in codec.encode(frames)]


@pytest.fixture
def counts():
    return np.rint(np.random.default_rng(1).normal([100, -50, 16000], 27, (3000, 3)))


def test_frames_become_means_with_the_noise_of_raw_samples(counts):
    frames = frames_of(counts)
    found = recording.from_frames(frames, np.arange(30) / 10, IDENTITY)
    assert found.counts == pytest.approx(counts.reshape(300, 10, 3).mean(axis=1))
    assert found.rate_hz == 100
    assert found.raw_rate_hz == 1000
    assert found.starts == (0,)
    assert found.raw_sigma.mean() == pytest.approx(27, rel=0.03)
    assert found.temperature_c == pytest.approx(np.full(300, 24.5))
    assert found.block_count[-1] == 3000
    assert found.sample[[0, 1, 10]].tolist() == [0, 10, 100]


def test_order_repeats_and_gaps(counts):
    frames = frames_of(counts)
    kept = [frames[k] for k in (2, 0, 1, 1, 3, 4, 7, 8, 6)]  # 5 is lost, 1 came twice, 6 came late
    found = recording.from_frames(kept, np.arange(9) / 10, IDENTITY)
    assert found.counts == pytest.approx(counts.reshape(300, 10, 3).mean(axis=1)[[*range(50), *range(60, 90)]])
    assert found.starts == (0, 50)
    assert clock.holes(found.sequence) == 1


def test_a_restart_is_a_gap(counts):
    frames = frames_of(counts[:500], boot=7) + frames_of(counts[500:1000], boot=8)
    found = recording.from_frames(frames, np.arange(10) / 10, IDENTITY)
    assert found.starts == (0, 50)
    assert found.sequence.tolist() == [0, 1, 2, 3, 4]  # of the last boot: a clock has no meaning across a restart


def test_frames_of_two_configurations_are_refused(counts):
    with pytest.raises(BadInput, match="range or decimation changed"):
        recording.from_frames(frames_of(counts) + frames_of(counts, boot=8, decimation=5), np.arange(90.0), IDENTITY)


def test_a_damaged_frame_is_named(counts):
    frames = frames_of(counts)
    frames[3] = frames[3][:-1] + b"\x7f"
    with pytest.raises(BadInput, match="frame 3 of the recording"):
        recording.from_frames(frames, np.arange(30.0), IDENTITY)


def test_a_test_pattern_is_no_sensor(counts):
    frames = codec.decode(bytearray(b"".join(frames_of(counts[:300]))))
    frames["flags"] = frame_pb2.FRAME_FLAG_TEST_PATTERN
    with pytest.raises(BadInput, match="its test pattern, not its sensor"):
        recording.from_frames([row.tobytes() for row in codec.encode(frames)], np.arange(3.0), IDENTITY)


def write_capture(path, frames, marks=()):
    writer = capfile.CaptureWriter(path, IDENTITY, gravity_m_s2=9.81)
    for k, frame in enumerate(frames):
        writer.write(capfile.FRAME, 1_000_000 + k * 100_000, frame)
    for mark in marks:
        writer.mark(5_000_000, **mark)
    writer.close()
    return path


def test_a_capture_comes_back_with_marks_and_gravity(tmp_path, counts):
    marks = [
        {"accepted": "+X", "boot": 7, "start": 100, "stop": 600},
        {"accepted": "+Z", "boot": 7, "start": 1000, "stop": 2000},
        {"open": "+X"},
        {"accepted": "+X", "boot": 7, "start": 2100, "stop": 2900},
    ]
    found = read(write_capture(tmp_path / "run.cap", frames_of(counts), marks))
    assert [(m.name, m.start, m.stop) for m in found.marks] == [("+Z", 100, 200), ("+X", 210, 290)]
    assert found.identity == IDENTITY
    assert found.gravity_m_s2 == 9.81
    assert found.block_arrival_s[1] == pytest.approx(1.1)
    rests = procedure.find_rests(found)
    assert [r.stop - r.start for r in rests.kept] == [100, 80]


@pytest.mark.parametrize("other", [{"device": "00112233445566fe"}, {"part": "adxl382"}, {"scale_g": 1 / 8192}])
def test_a_capture_of_another_sensor_is_not_gone_on_with(tmp_path, counts, other):
    path = write_capture(tmp_path / "run.cap", frames_of(counts))
    before = path.read_bytes()
    with pytest.raises(BadInput, match="give another file"):
        capfile.CaptureWriter(path, replace(IDENTITY, **other))
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 12, 100, 285])
def test_a_capture_that_was_cut_off_is_a_shorter_capture(tmp_path, counts, cut):
    path = write_capture(tmp_path / "run.cap", frames_of(counts))
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(read(path).counts) == 290


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "the file is empty"),
        (b'{"format": "triax-capture/9"}\n', "no capture of format"),
        (b'{"format": "triax-capture/1", broken\n', "no JSON"),
        (b'{"format": "triax-capture/1"}\n', "holds no frames"),
        (b'{"format": "triax-capture/1"}\n\x09\x00\x00\x00\x00' + bytes(8), "is no record: the file was damaged there"),
        (b"\x80\x81\x82", "neither a capture, a CSV nor a table"),
        (b"time,x,y,z\n1,2,3\n2,3,4,5\n", "3: 4 columns where the rows before have 3"),
        (b"time,x,y,z\n1,2,3,oops\n", r"2: '1,2,3,oops' is no row of numbers"),
        (b"time,x,y,z\n", "holds no samples"),
        (b"0,1,2,3\n1,nan,2,3\n2,1,2,3\n", "row 2 holds a value that is not a number"),
        (b"0,1,2,3\n2,1,2,3\n1,1,2,3\n", "does not rise"),
        (b"1,1,2,3\n1,1,2,3\n1,1,2,3\n", "does not rise"),
        (b"time [h],x [g],y [g],z [g]\n0,1,2,3\n", r"file: the first column's title 'time \[h\]' names no unit of time"),
        (b"0,1,2,3\n1,1,2,3\n", "how many g a count is, is not known: give --scale"),
        (b"1,2\n3,4\n", "2 columns; wanted are time, x, y, z"),
    ],
)
def test_bad_files_each_have_their_own_message(tmp_path, content, match):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=match):
        read(path)


def test_no_such_file(tmp_path):
    with pytest.raises(BadInput, match="there is no such file"):
        read(tmp_path / "nothing")


def test_raw_frames_are_lossless_and_show_their_gaps(tmp_path, counts):
    path = tmp_path / "raw.cap"
    writer = capfile.CaptureWriter(path, Identity("00112233445566ff", "iis3dwb"))
    for k, first in enumerate((0, 1000, 2100)):  # 100 samples are missing before the third
        values = counts[k * 1000 : (k + 1) * 1000].astype(int)
        delta = np.diff(values, axis=0, prepend=0)
        message = frame_pb2.RawFrame(device=0x00112233445566FF, boot=1, sequence=k, first_sample=first, samples=1000)
        message.rate_hz, message.scale_g = 26_667.0, 0.061e-3
        message.x.extend(delta[:, 0].tolist())
        message.y.extend(delta[:, 1].tolist())
        message.z.extend(delta[:, 2].tolist())
        writer.write(capfile.RAW, k * 37_500, message.SerializeToString())
    writer.close()
    found = read(path)
    assert (found.counts == counts).all()
    assert found.starts == (0, 2000)
    assert found.identity.scale_g == pytest.approx(0.061e-3)
    assert found.rate_hz == pytest.approx(26_667)
    path.write_bytes(path.read_bytes()[:-30])
    assert len(read(path).counts) == 2000


def test_tables_in_each_unit_give_the_same_g(tmp_path, counts):
    time = np.arange(len(counts)) / 1000
    g = counts / 16384
    cases = {
        "t [s],x [g],y [g],z [g]": (g, Hints(scale_g=1 / 16384)),
        "t [s],x [mg],y [mg],z [mg]": (g * 1e3, Hints(scale_g=1 / 16384)),
        "time,ax (m/s2),ay (m/s2),az (m/s2)": (g * 9.80665, Hints(scale_g=1 / 16384)),
        "time_us,x,y,z": (counts, Hints(scale_g=1 / 16384)),
        "Zeit [ms],x,y,z": (counts, Hints(scale_g=1 / 16384)),
        "\ufefftime [ms],x,y,z": (counts, Hints(scale_g=1 / 16384)),  # as Excel writes UTF-8
        "sample time (\N{MICRO SIGN}s),x,y,z": (counts, Hints(scale_g=1 / 16384)),
    }
    for title, (values, hints) in cases.items():
        scale = 1e3 if "ms" in title else 1e6 if "us" in title or "\N{MICRO SIGN}s" in title else 1.0
        path = tmp_path / "table.csv"
        table = np.c_[time * scale, values]
        np.savetxt(path, table, delimiter=",", header=title, comments="", fmt="%.9f", encoding="utf-8")
        found = read(path, hints)
        assert found.values_g == pytest.approx(g, abs=2e-8)
        assert found.rate_hz == pytest.approx(1000, rel=1e-6)


def test_resolution_is_seen_in_the_values_and_temperature_is_a_fifth_column(tmp_path):
    rng = np.random.default_rng(2)
    counts = np.rint(rng.normal([0, 0, 4096], 12, (500, 3)))
    path = tmp_path / "table.csv"
    table = np.c_[np.arange(500) / 100, counts / 4096, np.linspace(20, 30, 500)]
    np.savetxt(path, table, delimiter=",", header="t [s],x [g],y [g],z [g],temp", comments="", fmt="%.12f")
    found = read(path)
    assert found.identity.scale_g == pytest.approx(1 / 4096, rel=1e-6)
    assert found.counts == pytest.approx(counts, abs=1e-3)
    assert found.temperature_c[-1] == 30


def test_three_columns_with_a_rate(tmp_path):
    path = tmp_path / "table.txt"
    np.savetxt(path, np.ones((50, 3)))
    assert read(path, Hints(scale_g=1.0, rate_hz=200)).rate_hz == 200


# Recordings of real sensors, beside the repository


@pytest.mark.parametrize(
    ("folder", "rate_hz", "drifts"),
    [
        ("STWIN.box_DL2_00001", 26_732, False),
        ("STWIN.box_20240916_15_45_40", 26_753, True),
        ("STWIN_DL2_00001", 26_936, True),
    ],
)
def test_true_rate_of_the_iis3dwb_logs(data, folder, rate_hz, drifts):
    found = read(data / "st-datalog2-iis3dwb" / folder, Hints(sensor="iis3dwb"))
    measured = clock.measure_clock(found.block_count, found.block_arrival_s)
    # The reference is 1000 samples over the median block; two of the sensors warm up, and 50 ppm of drift are in it.
    assert measured.rate_hz == pytest.approx(rate_hz, rel=50e-6)
    assert measured.error_ppm < 2
    assert measured.drifts == drifts
    if drifts:
        assert measured.drift_ppm < -20
    assert abs(measured.rate_hz / 26_667 - 1) > 2e-3  # the nominal rate is off by up to one percent


def test_lost_samples_of_the_iis2dh_log(data):
    found = read(data / "st-datalog2-iis3dwb" / "STWIN_DL2_00001", Hints(sensor="iis2dh"))
    lost = clock.lost_against(found.known_rate_hz, found.block_count, found.block_arrival_s, 2000)
    assert len(found.counts) == 11_000
    assert found.known_rate_hz == pytest.approx(1600.24, abs=0.01)
    # 10,000 samples in 7.82 s at a sensor of 1600 Hz: 1278.5 Hz arrived.
    assert lost.samples == pytest.approx(2516, abs=5)
    assert lost.bound < 50
    with pytest.raises(Refused, match="11 blocks are too few"):
        clock.measure_clock(found.block_count, found.block_arrival_s)


def test_the_hand_turned_mpu6050_is_refused_with_the_reason(data):
    """Quiet quarter-seconds of a board turned about x only: x hardly left the horizontal."""
    found = read(data / "sunsided-mpu6050" / "full-sphere" / "mpu6050_accelerometer.mat")
    with pytest.raises(Refused, match=r"No second of this recording is still|No rest could be used|1 pose for 9 parameters"):
        procedure.calibrate(found, gravity.local(52.5))
    pieces = found.counts[: len(found.counts) // 25 * 25].reshape(-1, 25, 3)
    quiet = np.sqrt(pieces.var(axis=1).sum(axis=1)) * found.identity.scale_g < 0.030
    means = pieces[quiet].mean(axis=1)
    assert len(means) >= fit.MIN_POSES
    with pytest.raises(Refused) as refusal:
        fit.fit(means, gravity.local(52.5))
    assert "+X never pointed up" in str(refusal.value)
    assert "-X never pointed up" in str(refusal.value)
    assert "Y never pointed up" not in str(refusal.value)


def test_the_four_static_mpu6050_logs_are_too_few_poses(data):
    folders = ["x-pointing-forward", "x-pointing-forward-10min", "z-pointing-front-and-x-up", "z-pointing-front-and-y-down"]
    means = []
    for name in folders:
        found = read(data / "sunsided-mpu6050" / f"unmoved-with-{name}" / "mpu6050_accelerometer.mat")
        assert found.identity.scale_g == pytest.approx(1 / 4096, rel=1e-3)
        spans = rest.find(found.values_g, found.rate_hz, lsb_g=found.identity.scale_g)
        rests = [rest.measure(found.counts, span, found.rate_hz, found.identity.scale_g) for span in spans]
        means.append(next(r.mean for r in rests if isinstance(r, rest.Rest)))
    with pytest.raises(Refused, match=r"3 poses \(4 rests\) for 9 parameters"):
        fit.fit(np.array(means), gravity.local(52.5))


def test_identity_round_trips_through_json():
    assert Identity(**json.loads(json.dumps(asdict(IDENTITY)))) == IDENTITY
