"""Calibrations in the database: what is pushed, what is in force, and rows of the views equal to the calibration tool's own."""

import json
import re
import urllib.request

import numpy as np
import psycopg
import pytest
from triax_backend.read import read
from triax_backend.servers.ports import free_port
from triax_backend.supervise import Supervisor
from triax_proto import calibration as container
from triax_proto import frame, names
from triax_tools.calibrate import apply, compact, table
from triax_tools.calibrate.broker import Broker

from .calibrated import START_US, TERMS, Database, digest, made, seconds
from .front_thread import running_front
from .sinks import Place
from .wire_client import topic_records

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture
def place(stack, tmp_path):
    own = Place(stack.settings, tmp_path)
    yield own
    own.close()


@pytest.fixture
def database(place):
    found = Database(place)
    yield found
    found.close()


def agree(given, found):
    """Python and SQL give the same values, hashes and flags."""
    assert given.num_rows == len(found)
    hashes, flags, *values = zip(*found, strict=True)
    assert given["calibration"].to_pylist() == list(hashes)
    assert given["calibration_flags"].to_pylist() == list(flags)
    for axis, column in zip("xyz", values, strict=True):
        assert given[f"{axis}_g"].to_numpy() == pytest.approx(np.array(column), abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("terms", [TERMS, None])
def test_views_equal_the_tools_own_arithmetic(database, terms):
    """Inside, below and above the calibrated range, without a temperature, and a frame with samples in no whole window."""
    frames = database.place.frames(1, 20, start_us=START_US, seed=3)
    frames["temperature_mc"] = np.tile([30_123, 20_000, -5_000, 80_000, frame.NO_TEMPERATURE], 4)
    frames["samples"][7] = 1631
    frames["sum_squares"] += 10**8
    database.store(frames)
    calibration = made(database.device, terms=terms, created=seconds(-9))
    database.push(compact.encode(calibration))
    want = apply.calibrate_frames(calibration, frames)
    names_of = [f"{what}_{axis}_g" for what in ("minimum", "maximum", "rms") for axis in "xyz"]
    found = database.rows(f"SELECT hash, calibration_flags, {', '.join(names_of)} FROM frames_calibrated ORDER BY sequence")
    assert {row[0] for row in found} == {want.hash}
    assert [row[1] for row in found] == want.flags.tolist()
    assert want.flags[7] & apply.PARTIAL
    assert want.flags[3] & apply.CLAMPED == (apply.CLAMPED if terms else 0)
    exact = np.concatenate([want.minimum_g, want.maximum_g, want.rms_g], axis=1)
    assert np.array([row[2:] for row in found]) == pytest.approx(exact, abs=1e-9, rel=1e-9)
    given, rows = database.values()
    agree(given, rows)
    assert np.array([row[2:] for row in rows]) == pytest.approx(want.values_g.reshape(-1, 3), abs=1e-9, rel=1e-9)
    assert given.schema.metadata[table.HASH].decode() == digest(calibration)


def test_each_is_in_force_from_its_date_for_its_full_scale_until_it_expires(database):
    frames = database.place.frames(1, 50, start_us=START_US)
    frames["scale_g"][40:45] = 0.004  # another range, which nobody calibrated
    database.store(frames)
    first, second = made(database.device, created=seconds(1)), made(database.device, seed=2, created=seconds(3))
    other = made(database.device, seed=3, created=seconds(3.5), scale_g=0.001)
    for calibration in (first, second, second, other):  # the second comes twice: the bridge connected again
        database.push(compact.encode(calibration), seconds(20))
    given, rows = database.values()
    agree(given, rows)
    held = np.array(given["calibration"].to_pylist()).reshape(50, 10)
    assert (held == held[:, :1]).all(), "a frame has one calibration"
    assert held[:, 0].tolist() == [None] * 10 + [digest(first)] * 20 + [digest(second)] * 10 + [None] * 5 + [digest(second)] * 5
    totals = database.features.account.totals
    assert (totals["in"], totals["out"], totals["repeats"]) == (4, 3, 1)
    plain = read(database.place.settings, database.device, seconds(0), seconds(60))
    bare = np.array(given["calibration"].to_pylist()) == None  # noqa: E711
    assert (given["x_g"].to_numpy()[bare] == plain["x_g"].to_numpy()[bare]).all()
    database.rows("UPDATE calibrations SET expires = %s WHERE hash IS NOT NULL RETURNING 1", seconds(2))
    given, rows = database.values()
    agree(given, rows)
    assert sum(flags & apply.EXPIRED == apply.EXPIRED for flags in given["calibration_flags"].to_pylist()) == 9 * 10 + 15 * 10


def test_a_withdrawn_one_and_an_older_one_pushed_again(database):
    frames = database.place.frames(1, 50, start_us=START_US)
    database.store(frames)
    first, second = made(database.device, created=seconds(-5)), made(database.device, seed=2, created=seconds(1))
    database.push(b"", seconds(0.5))  # nothing to withdraw
    for blob, when in ((first, 0), (second, 2), (None, 3), (None, 3.1), (first, 4)):
        database.push(compact.encode(blob) if blob else b"", seconds(when))
    given, rows = database.values()
    agree(given, rows)
    held = given["calibration"].to_pylist()[::10]
    assert held == [digest(first)] * 10 + [digest(second)] * 20 + [None] * 10 + [digest(first)] * 10
    assert len(database.rows("SELECT FROM calibrations")) == 4


def test_another_sensor_makes_it_not_valid_from_that_boot_on(database):
    """Whichever of birth message and calibration comes first; what the old sensor measured stays calibrated."""
    early = database.place.frames(1, 10, start_us=START_US, boot=7)
    late = database.place.frames(1, 20, start_us=START_US + 2_000_000, boot=9)
    database.store(early)
    database.store(late)
    first, second = made(database.device, created=seconds(-5)), made(database.device, 2, seconds(3), serial="ffff")
    database.info(part="adxl382", boot=7, sensor_serial=b"\1\2")
    database.push(compact.encode(first))
    database.info(part="adxl382", boot=9, sensor_serial=b"\xff\xff")
    given, rows = database.values()
    agree(given, rows)
    assert given["calibration"].to_pylist() == [digest(first)] * 100 + [None] * 200
    assert given["calibration_flags"].to_pylist()[-1] == apply.NOT_VALID
    database.push(compact.encode(second), seconds(5))
    given, rows = database.values()
    agree(given, rows)
    assert given["calibration"].to_pylist() == [digest(first)] * 100 + [None] * 100 + [digest(second)] * 100


def test_what_is_damaged_or_anothers_is_a_dead_letter_and_the_one_before_stays(database):
    good = made(database.device)
    blob = compact.encode(good)
    database.push(blob)
    for bad in (blob[:-1], blob[:300] + b"!" + blob[301:], b"cal", compact.encode(made(database.device + 1))):
        database.push(bad)
    block, _ = container.unseal(blob)
    flat = {**good.content["model"], "matrix_g_per_count": [[0, 0, 0]] * 3}
    steep = {**good.content["temperature"], "offset_count": [[1, 2, 3]] * 4}
    for content in ({**good.content, "model": flat}, {"sensor": 1}, {**good.content, "temperature": steep}):
        database.push(container.seal(block, json.dumps(content).encode()))
    tiny = {**good.content, "sensor": {**good.content["sensor"], "scale_g": 1e-60}}
    for content in (tiny, {**good.content, "note": float("nan")}, {**good.content, "note": "\0"}):
        database.push(container.seal(block, json.dumps(content).encode()))
    for kind in ("calibration/once", "config"):  # for who is there now; a configuration
        database.push(b"anything", kind=kind)
    totals = database.features.account.totals
    assert (totals["in"], totals["out"], totals["dead"]) == (11, 1, 10)
    letters = topic_records(database.place.settings, names.DEADLETTER)
    details = sorted(h["detail"].decode() for _, key, _, h in letters if key == f"{database.device:016x}/calibration".encode())
    reasons = ["3 bytes are no", "a calibration of device", *["it fails its checksum"] * 2]
    reasons += ["the calibration has temperature terms of order 4", *["the calibration's document"] * 4]
    reasons += ["the calibration's scale is 1e-60"]
    assert [detail.startswith(reason) for detail, reason in zip(details, reasons, strict=True)] == [True] * 10, details
    assert database.rows("SELECT hash FROM calibrations") == [(bytes.fromhex(digest(good)),)]


def _metric(port, name):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", answer.read().decode(), re.MULTILINE))
    except OSError:
        return -1.0


def test_from_the_topic_through_both_ways_into_the_database(stack, place):
    """Published retained as `triax calibrate push` does: through broker and bridge, and through the ingest front."""
    bridged, fronted = place.device, place.device + 1
    blobs = {device: compact.encode(made(device)) for device in (bridged, fronted)}
    port = free_port()
    place.run("features", "--flush-s", "0.2")

    def held():
        with psycopg.connect(place.settings.postgres) as connection:
            if connection.execute("SELECT to_regclass('calibrations')").fetchone() == (None,):
                return []
            return connection.execute("SELECT device, hash FROM calibrations ORDER BY device, since").fetchall()

    def bridge():
        supervisor.run("bridge", "--metrics-port", str(port), "--client-id", place.name, "--no-preflight")
        place.wait(lambda: _metric(port, "triax_subscribed") == 1, "subscription")

    with Supervisor(stack.settings, place.directory) as supervisor, running_front(stack.settings) as (front, _):
        bridge()
        ways = {bridged: f"mqtt://127.0.0.1:{stack['mqtt'].port}", fronted: f"mqtt://127.0.0.1:{front}"}
        for device, way in ways.items():
            with Broker(way) as link:
                link.publish(names.mqtt_topic(device, "calibration"), blobs[device], retain=True)
        both = [(device, compact.digest(blobs[device])) for device in ways]
        place.wait(lambda: held() == both, "both calibrations")
        supervisor.stop_worker("bridge")
        bridge()  # the broker sends what it retains again
        for device, way in ways.items():
            with Broker(way) as link:
                link.publish(names.mqtt_topic(device, "calibration"), blobs[device][:-1], retain=True)  # damaged
                link.publish(names.mqtt_topic(device, "calibration"), b"", retain=True)
        want = [row for one in both for row in (one, (one[0], None))]
        place.wait(lambda: held() == want, "both withdrawn")
    mine = {f"{device:016x}/calibration".encode() for device in ways}
    damaged = [v for _, k, v, h in topic_records(stack.settings, names.DEADLETTER) if k in mine and h["stage"] == b"features"]
    assert sorted(damaged) == sorted(blob[:-1] for blob in blobs.values())
