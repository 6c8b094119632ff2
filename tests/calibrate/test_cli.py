"""The commands from end to end: exit codes 0, 1, 2, 3, files, reports, JSON."""

import json
import re
import threading
import time
import urllib.request

import numpy as np
import pytest
from triax_tools.calibrate import capfile, compact, document, pose, simulate
from triax_tools.calibrate.capfile import CaptureWriter
from triax_tools.calibrate.cli import app
from triax_tools.calibrate.guide import Prompt
from triax_tools.calibrate.page import CapturePage
from triax_tools.calibrate.readers import read
from triax_tools.calibrate.session import Session
from triax_tools.calibrate.virtual import draw_imperfections, truth_of
from typer.testing import CliRunner

from .node import DEVICE, PahoNode, RealNode, mosquitto
from .test_document import make
from .test_drift import fleet_of
from .test_recording import frames_of, write_capture
from .test_response import shaker_run


def run(*args, code=0):
    """Run a command with --json; returns its object."""
    result = CliRunner().invoke(app, [*map(str, args), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout.splitlines()[-1]) if result.stdout.strip() else {}


def says(*args, code):
    """Run a command for a person; returns standard error and output."""
    result = CliRunner().invoke(app, [*map(str, args)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def capture(folder):
    """The simulated procedure: virtual part, the node's own driver, a scripted human with mistakes."""
    found = run("capture", folder / "run.cap", "--simulate", "--seed", "3", "--page", "-1")
    assert found["passed"]
    assert sorted(found["poses"]) == sorted(pose.NAMES)
    return folder / "run.cap"


@pytest.fixture(scope="module")
def calibration(folder, capture):
    found = run("fit", capture, "-o", folder / "run.cal.json", "--faces", "+Z,+X")
    return folder / "run.cal.json", found


@pytest.mark.timeout(180)
def test_a1_from_nothing_to_a_report_in_two_minutes(folder, calibration):
    path, found = calibration
    assert found["passed"]
    made = document.parse(path.read_bytes())
    scale = made.identity.scale_g
    error = made.intrinsic - truth_of(draw_imperfections(3), scale)
    assert np.abs(error[3:6]).max() * scale <= 30e-6
    assert np.abs(error[:3]).max() * scale <= 40e-6
    assert np.abs(error[6:]).max() <= 70e-6
    errors = [made.content["intrinsic"][name]["standard_error"] for name in document.INTRINSIC_NAMES]
    assert (np.abs(error) <= 4 * np.array(errors)).all()
    assert made.identity.part == "iis3dwb"
    page = (folder / "run.cal.html").read_text()
    assert page.count("<svg") == 3
    assert "PASS" in page
    assert "Rotation to the case" in page
    assert not re.search(r"""(src|href)=["']?http|url\(["']?http|@import""", page)  # nothing is loaded from anywhere
    assert len(compact.encode(made)) <= compact.LIMIT


@pytest.mark.timeout(180)
def test_check_diff_clock_and_noise_of_the_same_unit(folder, calibration, capture):
    path, _ = calibration
    found = run("check", path, capture)
    assert found["probability"] > 0.001
    assert (folder / "run.cal.check.html").exists()
    assert run("diff", path, path)["statistic"] == 0
    clock = run("clock", capture)
    assert clock["rate_hz"] == pytest.approx(26_667 * 1.0008, rel=2e-6)
    assert clock["lost_frames"] == 0
    assert run("noise", capture)["rate_hz"] == pytest.approx(99.95, rel=1e-3)
    page = (folder / "run.noise.html").read_text()
    for text in ("density, one-sided, ug/rtHz", "the same two-sided (/ sqrt 2)", "N of Allan, two-sided"):
        assert text in page


def test_a_changed_offset_fails_check_and_diff(folder, calibration):
    path, _ = calibration
    content = json.loads(path.read_text())
    content.pop("crc32")
    content["model"]["offset_count"][0] += 60  # 3.7 mg
    content["intrinsic"]["offset_x"]["value"] += 60
    other = folder / "other.cal.json"
    other.write_text(document.dump(document.Document(content)))
    found = run("diff", path, other, code=1)
    assert found["worst"] == "offset_x"
    assert (folder / "other.cal.diff.html").exists()
    assert not run("check", other, folder / "run.cap", code=1)["passed"]


def test_a_capture_that_was_stopped_goes_on(folder, capture):
    data = capture.read_bytes()
    part = folder / "part.cap"
    part.write_bytes(data[: len(data) // 2])  # in the middle of a record
    writer = CaptureWriter(part, read(part).identity)
    session = Session(writer)
    taken = sorted(pose.NAMES[cell] for cell in session.guide.taken)
    assert taken == sorted(mark.name for mark in read(part).marks)
    assert 5 < len(taken) < 13
    assert session.redo(0)[0].kind == "redone"
    writer.close()
    assert len(read(part).marks) == len(taken) - 1
    writer = CaptureWriter(part, read(part).identity)
    assert len(Session(writer).guide.taken) == len(taken) - 1
    writer.close()


@pytest.fixture
def small(tmp_path):
    """A capture of six faces at 1 kHz, no marks."""
    rng = np.random.default_rng(1)
    unit = simulate.draw_unit(rng)
    poses = simulate.hand_poses(pose.CELLS[:6], rng)
    parts = []
    for before, after in zip([poses[-1], *poses], poses, strict=False):
        parts += [simulate.move(before, after, 1500, 1000, rng), simulate.hold(after, 5000)]
    return write_capture(tmp_path / "six.cap", frames_of(unit.read(np.concatenate(parts), rng)))


def test_exit_1_six_faces_are_refused_and_the_report_is_written(tmp_path, small):
    text = says("fit", small, "-o", tmp_path / "six.json", code=1)
    assert "6 poses for 9 parameters" in text
    assert "Still missing: +X+Y" in text
    assert not (tmp_path / "six.json").exists()
    page = (tmp_path / "six.html").read_text()
    assert "FAIL" in page
    assert "6 poses for 9 parameters" in page
    assert run("fit", small, "-o", tmp_path / "six.json", code=1)["reasons"]


def test_i2_a_capture_of_another_full_scale_is_refused(tmp_path, small):
    file = tmp_path / "other.json"
    file.write_text(document.dump(make(scale=1 / 8)[0]))
    text = says("check", file, small, "--expired", "--report", tmp_path / "other.html", code=2)
    assert "is of full scale +-16 g (0.4883 mg a count); the sensor runs at 0.06104 mg a count" in text


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["fit", "nothing.cap", "-o", "x.json", "--gravity", "9.81"], "there is no such file"),
        (["check", "nothing.json", "nothing.cap"], "nothing.json: cannot be read"),
        (["capture", "x.cap"], "Give --device of a live node, or --simulate"),
        (["fit", "live:123", "-o", "x.json"], "is no device: want its EUI-64"),
        (["fleet", "nothing.csv"], "cannot be read"),
        (["response", "nothing.csv", "--tones"], "cannot be read"),
        (["push", "nothing.json"], "cannot be read"),
        (["noise", "live:0011223344556677", "--mqtt", "ftp://x"], "want mqtt://host:1883"),
        (["noise", "lake:0011223344556677@yesterday"], "want lake:<device>@<start>/<end>"),
    ],
)
def test_exit_2_usage(tmp_path, monkeypatch, args, text):
    monkeypatch.chdir(tmp_path)
    assert text in says(*args, code=2)


def test_a_line_in_ordinary_frames_is_refused(tmp_path):
    """The averaging of a node's frames lowers a line and delays it: neither belongs to the sensor."""
    time_s = np.arange(16000) / 16000
    counts = np.rint(np.c_[8000 * np.cos(2 * np.pi * 30 * time_s), np.zeros((16000, 2))])
    path = write_capture(tmp_path / "tone.cap", frames_of(counts, decimation=160, rate=16000.0))
    assert "means of 160 samples" in says("response", path, code=2)
    (tmp_path / "tones.csv").write_text("file,frequency_hz,amplitude_g,phase_deg\ntone.cap,30,0.5,0\n")
    assert "capture --raw" in says("response", tmp_path / "tones.csv", "--tones", code=2)


def test_exit_2_gravity_is_asked_for_and_never_guessed(tmp_path, data):
    args = ["fit", data / "imu-tk-xsens" / "xsens_acc.mat", "-o", tmp_path / "x.json", "--scale", "0.2463"]
    assert "give --lat and --height" in says(*args, code=2)


def test_exit_3_no_broker(tmp_path):
    assert "No broker at" in says("pull", "0011223344556677", "-o", tmp_path / "x.json", "--mqtt", "mqtt://127.0.0.1:1", code=3)


def test_b2_by_command(tmp_path, data):
    path = data / "imu-tk-xsens" / "xsens_acc.mat"
    found = run("fit", path, "-o", tmp_path / "x", "--scale", "0.2463", "--gravity", "9.81744", "--rule", "imu_tk")
    assert (found["multiplier"], found["rests"]) == (6, 38)
    assert list(tmp_path.iterdir()) == []


def ramp_table(path, seconds=900):
    rng = np.random.default_rng(2)
    unit = simulate.draw_unit(rng)
    warm_unit = simulate.Unit(unit.model, offset_per_c=np.array([8.0, -5.0, 3.0]))
    time = np.arange(seconds * 10) / 10
    warm = 20 + 25 * time / seconds
    up = np.repeat([[0.0, 0.0, 1.0]], len(time), axis=0)
    counts = warm_unit.exact(up, warm) + rng.normal(0, 3, up.shape)
    np.savetxt(path, np.c_[time, counts, warm], delimiter=",", header="t [s],x,y,z,temperature", comments="")


def test_g1_by_command_and_refusal_of_a_flat_ramp(folder, calibration, tmp_path):
    path, _ = calibration
    content = json.loads(path.read_text())
    content.pop("crc32")
    base = tmp_path / "base.json"
    base.write_text(document.dump(document.Document(content)))
    table = tmp_path / "ramp.csv"
    ramp_table(table)
    found = run("temp", table, "--base", base, "-o", tmp_path / "warm.json")
    terms = found["temperature"]
    assert np.array(terms["offset_count"])[0] == pytest.approx([8, -5, 3], abs=0.05)
    made = document.parse((tmp_path / "warm.json").read_bytes())
    old = document.parse(base.read_bytes())
    # The base was captured at 25 C, the terms' zero is at 32.5 C.
    assert made.model.offset - old.model.offset == pytest.approx(
        np.array([8, -5, 3]) * (made.temperature.reference_c - 25), rel=0.02
    )
    assert "offset or gain" in (tmp_path / "warm.html").read_text()
    content["fit"]["mean_temperature_c"] = 12.0
    base.write_text(document.dump(document.Document(content)))
    assert "captured at 12.0 C, outside the ramp's" in says("temp", table, "--base", base, "-o", tmp_path / "x.json", code=2)
    assert not (tmp_path / "x.json").exists()
    content["fit"]["mean_temperature_c"] = 25.0
    base.write_text(document.dump(document.Document(content)))
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:2000]))
    assert "at least 10 C are needed" in says("temp", table, "--base", base, "-o", tmp_path / "x.json", code=1)
    assert "at least 10 C are needed" in (tmp_path / "x.html").read_text()


def set_table(path, celsius, cells=pose.CELLS):
    """A capture of poses at one temperature, 100 Hz."""
    rng = np.random.default_rng(int(celsius))
    unit = simulate.draw_unit(np.random.default_rng(2))
    warm_unit = simulate.Unit(unit.model, offset_per_c=np.array([8.0, -5.0, 3.0]))
    poses, parts = simulate.hand_poses(cells, rng), []
    for before, after in zip([poses[-1], *poses], poses, strict=False):
        parts += [simulate.move(before, after, 150, 100, rng), simulate.hold(after, 800)]
    up = np.concatenate(parts)
    warm = np.full(len(up), celsius)
    counts = warm_unit.exact(up, warm) + rng.normal(0, 3, up.shape)
    table = np.c_[np.arange(len(up)) / 100, counts, warm]
    np.savetxt(path, table, delimiter=",", header="t [s],x,y,z,temperature", comments="")
    return path


def test_g2_by_command_each_set_stands_alone_and_gates_decide(calibration, tmp_path):
    base, out = calibration[0], tmp_path / "warm.json"
    cold, hot = set_table(tmp_path / "cold.csv", 20.0), set_table(tmp_path / "hot.csv", 45.0)
    found = run("temp", cold, hot, "--base", base, "-o", out, "--gravity", "9.80665")
    assert found["temperature"]["offset_count"][0] == pytest.approx([8, -5, 3], abs=0.3)
    assert all(gate["passed"] for gate in json.loads(out.read_text())["gates"])
    out.unlink()
    few = set_table(tmp_path / "few.csv", 45.0, pose.CELLS[:3])
    assert "few.csv is no full set of poses" in says("temp", cold, few, "--base", base, "-o", out, "--gravity", "9.80665", code=1)
    assert not out.exists()


def test_j2_by_command(tmp_path):
    devices, truth = fleet_of(60, 9)
    with (tmp_path / "rests.csv").open("w") as file:
        file.write("device,time_s,temperature_c,x_g,y_g,z_g\n")
        for name, (time_s, warm, g) in devices.items():
            for t, c, row in zip(time_s, warm, g, strict=True):
                file.write(f"{name},{t},{c},{row[0]},{row[1]},{row[2]}\n")
        file.write("broken,1,x,y,,\n")
    found = run("fleet", tmp_path / "rests.csv", "--report", tmp_path / "fleet.html", code=1)
    assert found["drifted"] == [name for name, kind in truth.items() if kind == "drift"]
    assert found["verdicts"]["unusable"] == 1
    assert "<svg" in (tmp_path / "fleet.html").read_text()


def test_h2_by_command(tmp_path):
    records, tones = shaker_run(26_667 * 1.01, 5)
    rows = ["file,frequency_hz,amplitude_g,phase_deg"]
    for k, (values, tone) in enumerate(zip(records[::4], tones[::4], strict=True)):
        np.savetxt(tmp_path / f"{k}.txt", values[:8000] / 0.488e-3, fmt="%.4f")
        rows.append(f"{k}.txt,{tone.frequency_hz!r},{tone.amplitude_g},{tone.phase_deg!r}")
    (tmp_path / "tones.csv").write_text("\n".join(rows))
    found = run("response", tmp_path / "tones.csv", "--tones", "--rate", "26667", "--scale", "0.488")
    assert found["off_ppm"] == pytest.approx(1e4, abs=10)
    assert len(found["tones"]) == 4
    assert (tmp_path / "tones.response.html").exists()


def test_the_page_shows_what_the_guide_says_and_takes_a_redo():
    with CapturePage() as page:

        def get(path):
            with urllib.request.urlopen(page.url + path, timeout=5) as answer:
                return answer.read()

        assert b"<canvas" in get("")
        page.show({"cells": [], "taken": 3, "of": 18}, [Prompt("turn", "turn +X up", 0)])
        state = json.loads(get("state"))
        assert (state["taken"], state["say"], state["log"][0]["kind"]) == (3, "turn +X up", "turn")
        assert not page.wants_redo()
        urllib.request.urlopen(urllib.request.Request(page.url + "redo", method="POST"), timeout=5).close()
        assert page.wants_redo()
        assert not page.wants_redo()
        foreign = urllib.request.Request(page.url + "redo", method="POST", headers={"Origin": "http://elsewhere"})
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(foreign, timeout=5)
        refused.value.close()
        assert not page.wants_redo()


@pytest.mark.servers
def test_raw_samples_of_the_real_node_and_its_clock_and_noise(tmp_path):
    """The device package on a virtual part, asked for half a second of raw samples over a real broker."""
    with mosquitto(tmp_path) as url, RealNode(url, noise_ug=75.0) as there:
        live = ["--device", f"{DEVICE:016x}", "--mqtt", url]
        found = run("capture", tmp_path / "raw.cap", *live, "--raw", "0.5")
        clock = run("clock", f"live:{DEVICE:016x}", "--mqtt", url, "--seconds", "4", "--report", tmp_path / "clock.html")
        assert there.node.channels[0].configuration.version == 1
    assert found["samples"] == pytest.approx(13_333, abs=300)
    assert clock["lost_frames"] == 0
    recording = read(tmp_path / "raw.cap")
    assert len(recording.counts) == found["samples"]
    assert recording.counts[:, 2].mean() == pytest.approx(1 / 0.061e-3, rel=1e-3)
    density = run("noise", tmp_path / "raw.cap", "--bin", "50")["density_one_sided_g_rthz"]
    assert density == pytest.approx([75e-6] * 3, rel=0.05)


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_a_live_node_over_mqtt(folder, capture, tmp_path):
    """The recorded frames, published by a paho node as fast as the broker takes them."""
    _, records = capfile.read_records(capture)
    frames = [payload for kind, _, payload in records if kind == capfile.FRAME]
    with mosquitto(tmp_path) as url:
        node = PahoNode(url, serial=b"")
        node.info.scale_g = 6.1e-5
        node.say()

        def play():
            time.sleep(1.0)  # until the capture has subscribed; frames that it misses it does without
            for frame in frames:
                node.publish("frame", frame)

        thread = threading.Thread(target=play)
        thread.start()
        live = ["--device", f"{DEVICE:016x}", "--mqtt", url, "--gravity", "9.80665"]
        found = run("capture", tmp_path / "live.cap", *live, "--page", "-1")
        thread.join(60)
        node.close()
    assert len(found["poses"]) == 18
    made = run("fit", tmp_path / "live.cap", "-o", tmp_path / "live.json")
    assert made["poses"] == 18
