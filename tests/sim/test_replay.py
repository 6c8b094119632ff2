"""Recordings: read as their makers describe them, and through the virtual part and the node's driver bit for bit."""

import json
import struct
from array import array
from pathlib import Path

import numpy as np
import pytest
from triax.chips.iis3dwb import Iis3dwb
from triax_sim import chips
from triax_sim.replay import BadRecording, Recording, Replay, read_csv, read_hsdatalog
from triax_sim.sensor import Sensor
from triax_sim.wiring import connect
from triax_sim.world import World

DATA = Path(__file__).parents[2].parent / "shared" / "data"
LOGS = DATA / "st-datalog2-iis3dwb"
MTC = DATA / "vibrationdaq-adcmxl3021" / "vibration_data_MTC_2020-06-25T07_34_45.609_sensor1.csv"
needs_logs = pytest.mark.skipif(not LOGS.exists(), reason=f"{LOGS.name} is not there")
needs_csv = pytest.mark.skipif(not MTC.exists(), reason=f"{MTC.name} is not there")

# Folder, sensor, samples, rate in Hz, mean in g: as verified independently and written down beside the data.
FACTS = [
    ("STWIN.box_DL2_00001", "iis3dwb", 274_000, 26_732, (0.191, 0.223, 0.673)),
    ("STWIN.box_DL2_00001", "ism330dhcx", 73_000, 7134.9, None),
    ("STWIN.box_DL2_00001", "iis2dlpc", 16_000, 1601.6, None),
    ("STWIN.box_DL2_00001", "iis2iclx", 8000, 838.1, None),
    ("STWIN.box_20240916_15_45_40", "iis3dwb", 281_000, 26_753, (-0.045, -0.112, 1.090)),
    ("STWIN_DL2_00001", "iis3dwb", 248_000, 26_936, None),
    ("STWIN_DL2_00001", "iis2dh", 11_000, 1278.5, None),
]


@needs_logs
@pytest.mark.parametrize(("folder", "sensor", "samples", "rate_hz", "mean_g"), FACTS)
def test_logs_read_as_described(folder, sensor, samples, rate_hz, mean_g):
    recording = read_hsdatalog(LOGS / folder, sensor)
    assert len(recording.counts) == samples
    assert recording.rate_hz == pytest.approx(rate_hz, rel=2e-4)
    if mean_g:
        assert recording.g().mean(axis=0) == pytest.approx(mean_g, abs=0.0006)


@needs_logs
def test_rate_is_the_least_squares_line_of_the_stamps():
    recording = read_hsdatalog(LOGS / "STWIN.box_DL2_00001", "iis3dwb")
    period = np.polyfit(recording.stamp_index, recording.stamp_s, 1)[0]
    assert recording.rate_hz == pytest.approx(1 / period, rel=1e-9)


@needs_logs
def test_a_recording_goes_through_the_virtual_part_and_the_driver_bit_for_bit():
    recording = read_hsdatalog(LOGS / "STWIN.box_DL2_00001", "iis3dwb")
    world = World()
    twin = chips.load("iis3dwb")(world, Replay(recording), ppm=recording.ppm(26_667.0))
    _, device = connect(world, twin)
    part = Iis3dwb(device)
    part.check()
    part.reset()
    part.configure(16, 26_667)
    assert np.float32(part.scale_g) == np.float32(recording.scale_g)
    part.start(256)
    out = array("i", bytes(4 * 3 * part.FIFO_SETS))
    got = []
    count = 0
    while count < len(recording.counts):
        world.advance_to(twin.watermark_us())
        part.level()
        while sets := part.read_fifo(out):
            assert part.gap == 0
            got.append(np.array(out[: 3 * sets]).reshape(-1, 3))
            count += sets
    assert np.array_equal(np.concatenate(got), recording.counts)  # and not one more
    duration_s = (twin.epoch.time_of(twin.truth.made) - twin.epoch.start_us) / 1e6
    assert twin.truth.made / duration_s == pytest.approx(recording.rate_hz, rel=1e-5)


def test_replay_needs_the_recordings_scale_and_ends():
    recording = Recording(
        "x", np.arange(12, dtype=np.int16).reshape(4, 3), 0.000488, 100.0, 0.0, np.array([3], dtype=np.int64), np.array([0.04])
    )
    replay = Replay(recording)
    with pytest.raises(BadRecording, match=r"0\.488 mg"):
        replay.begin(0, 0, 26_667.0, 1000 / 0.061, -32768, 32767)
    replay.begin(0, 0, 26_667.0, 1000 / 0.488, -32768, 32767)
    assert replay(2, 4).tolist() == [[6, 7, 8], [9, 10, 11], [9, 10, 11], [9, 10, 11]]
    assert Replay(recording, repeat=True)(2, 4)[2:].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert recording.rate_hz == 100.0, "one stamp makes no line"


def test_a_recording_is_motion_for_any_sensor():
    recording = Recording(
        "x", np.array([[0, 100], [100, 0]], dtype=np.int16), 0.01, 10.0, 0.0, np.array([1], dtype=np.int64), np.array([0.1])
    )
    sensor = Sensor(recording.motion())
    sensor.begin(0, 0.0, 40.0, 100.0, -200, 200)
    assert sensor(0, 6).tolist() == [[0, 100, 0], [25, 75, 0], [50, 50, 0], [75, 25, 0], [100, 0, 0], [100, 0, 0]]


@needs_csv
def test_the_unbalanced_motor():
    recording = read_csv(MTC)
    g = recording.g()
    assert len(g) == 4096
    assert recording.rate_hz == pytest.approx(3437.5, rel=1e-5)
    assert g.std(axis=0) == pytest.approx([0.592, 1.150, 6.371], abs=0.001)
    spectrum = np.abs(np.fft.rfft(g[:, 2] * np.hanning(len(g))))
    assert np.argmax(spectrum) * recording.rate_hz / len(g) == pytest.approx(121.7, abs=0.9)
    text = np.loadtxt(MTC, delimiter=",", skiprows=1)[:, 1:]
    assert np.abs(text - g).max() < 6e-5


# Files made by hand: what the reader must refuse.


def log(folder, packets=None, **changes):
    setup = {
        "dim": 3,
        "samples_per_ts": 4,
        "sd_dps": 36,
        "usb_dps": 20,
        "sensitivity": 0.000488,
        "measodr": 100.0,
        "ioffset": 0.01,
        "data_type": "int16",
        **changes,
    }
    (folder / "device_config.json").write_text(json.dumps({"devices": [{"components": [{"acc": setup}, {"log": {"enable": 1}}]}]}))
    (folder / "acquisition_info.json").write_text(json.dumps({"interface": 0}))
    if packets is None:
        block = np.arange(12, dtype="<i2").tobytes() + struct.pack("<d", 0.04)
        packets = [struct.pack("<I", 32 * n) + block[:24] + struct.pack("<d", 0.04 * (n + 1)) for n in range(3)]
    (folder / "acc.dat").write_bytes(b"".join(packets))
    return folder


def test_a_log_made_by_hand(tmp_path):
    recording = read_hsdatalog(log(tmp_path), "acc")
    assert recording.counts.tolist() == np.arange(12).reshape(4, 3).tolist() * 3
    assert recording.stamp_index.tolist() == [3, 7, 11]
    assert recording.rate_hz == pytest.approx(100.0)
    assert recording.scale_g == 0.000488


def test_a_cut_block_is_told(tmp_path):
    log(tmp_path)
    data = (tmp_path / "acc.dat").read_bytes()
    (tmp_path / "acc.dat").write_bytes(data[:-10])
    recording = read_hsdatalog(tmp_path, "acc")
    assert len(recording.counts) == 8
    assert recording.trailing_bytes == 22


def test_logs_that_cannot_be(tmp_path):
    with pytest.raises(BadRecording, match=r"device_config\.json"):
        read_hsdatalog(tmp_path, "acc")
    with pytest.raises(BadRecording, match="there are acc"):
        read_hsdatalog(log(tmp_path), "gyro")
    with pytest.raises(BadRecording, match="not int16"):
        read_hsdatalog(log(tmp_path, data_type="float"), "acc")
    with pytest.raises(BadRecording, match="do not rise"):
        read_hsdatalog(log(tmp_path, samples_per_ts=2), "acc")
    log(tmp_path)
    data = bytearray((tmp_path / "acc.dat").read_bytes())
    data[36] ^= 1
    (tmp_path / "acc.dat").write_bytes(data)
    with pytest.raises(BadRecording, match="byte 36 counts 33, expected 32"):
        read_hsdatalog(tmp_path, "acc")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("t,x,y,z\n0,1,2\n", "3 columns"),
        ("t,x,y,z\n0,a,2,3\n", ":2:"),
        ("t,x,y,z\n", "no samples"),
        ("t,x,y,z\n0,0.001,0,0\n1,0,0,0\n", "multiples"),
    ],
)
def test_csv_files_that_cannot_be(tmp_path, lines, message):
    path = tmp_path / "x.csv"
    path.write_text(lines)
    with pytest.raises(BadRecording, match=message):
        read_csv(path)
