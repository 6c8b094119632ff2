"""Goals I1, I2 and G3: the file, its form on the node, and what reading with it gives."""

import json
import zlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from triax_backend import read
from triax_proto import frame as codec
from triax_tools.calibrate import apply, compact, document, fit, gravity, pose, rotation, simulate, table
from triax_tools.calibrate.errors import BadDocument
from triax_tools.calibrate.model import intrinsic
from triax_tools.calibrate.recording import Identity
from triax_tools.calibrate.temperature import Temperature

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SENSOR = Identity("00112233445566ff", "iis3dwb", "0102030405", "1.2.0", 2.0, 1 / 16384, "+X+Y+Z")
TERMS = Temperature(30.0, 15.0, 45.0, np.array([[4.5, -3.25, 7.1]]), np.array([[1e-4, -2e-4, 5e-5]]))


def make(terms=TERMS, scale=1.0, seed=1):
    """A document of a simulated unit; `scale` multiplies the counts per g (16 g ranges have fewer)."""
    rng = np.random.default_rng(seed)
    unit = simulate.draw_unit(rng)
    poses = simulate.hand_poses(pose.CELLS, rng)
    means = (unit.model.respond(poses) + rng.normal(0, 0.3, poses.shape)) * scale
    result = fit.fit(means, gravity.local(52.5, 40))
    sensor = Identity(**{**SENSOR.__dict__, "scale_g": SENSOR.scale_g / scale, "range_g": SENSOR.range_g / scale})
    gates = [document.Gate("condition", result.condition, 50.0, "1", True)]
    return document.build(result, sensor, NOW, gates, "ab" * 32, temperature=terms), result


@pytest.fixture(scope="module")
def made():
    return make()[0]


def test_i1_file_to_node_to_file_is_bit_identical(made):
    text = document.dump(made)
    blob = compact.encode(document.parse(text))
    assert len(blob) <= compact.LIMIT
    back = compact.decode(blob)
    assert document.dump(back) == text
    assert (back.model.matrix == made.model.matrix).all()
    assert (back.model.offset == made.model.offset).all()
    assert compact.encode(back) == blob


@pytest.mark.parametrize("seed", range(4))
def test_i1_float32_reader_within_4_ug_at_16_g(seed):
    made, _ = make(scale=1 / 8, seed=seed)
    reader = compact.read_float32(compact.encode(made))
    rng = np.random.default_rng(seed)
    counts = rng.integers(-32768, 32768, (200_000, 3))
    for celsius in (15.0, 30.0, 41.7):
        exact, flags = apply.calibrate_counts(made, counts, np.full(len(counts), celsius))
        assert not flags.any()
        inside = np.abs(exact).max(axis=1) <= 16.5
        assert np.abs(reader.apply(counts, celsius) - exact)[inside].max() <= 4e-6
    assert reader.identity.part == "iis3dwb"
    assert reader.identity.sensor_serial == "0102030405"
    assert reader.expires_s == int(made.expires.timestamp())


def test_the_file_says_what_it_is(made):
    held = json.loads(document.dump(made))
    assert held["schema"] == "triax-calibration/1"
    assert held["sensor"]["sensor_serial"] == "0102030405"
    assert held["sensor"]["axis_map"] == "+X+Y+Z"
    assert held["intrinsic"]["offset_x"]["unit"] == "count"
    assert held["tool"].startswith("triax ")
    assert held["created"] == "2026-03-01T12:00:00+00:00"
    assert held["gravity"]["source"].startswith("WGS 84 at latitude 52.5")
    assert len(held["covariance_lower"]) == 45
    assert held["data_sha256"] == "ab" * 32
    assert held["temperature"]["low_c"] == 15


def test_covariance_and_numbers_survive(made):
    _, result = make()
    again = document.parse(document.dump(made))
    assert again.intrinsic == pytest.approx(result.intrinsic, rel=1e-12)
    assert again.covariance == pytest.approx(result.covariance, rel=1e-3)
    assert again.dof == 9
    assert intrinsic(again.model) == pytest.approx(result.intrinsic, rel=1e-12)
    # Gravity's own uncertainty is in the sensitivity's error and in nothing else.
    held = again.content["intrinsic"]
    assert held["sensitivity_x"]["standard_error"] > result.intrinsic[0] * 49e-6
    assert held["offset_x"]["standard_error"] == pytest.approx(result.standard_error[3], rel=1e-3)


def other(**changes):
    return Identity(**{**SENSOR.__dict__, **changes})


@pytest.mark.parametrize(
    ("sensor", "now", "match"),
    [
        (other(sensor_serial="ffff"), NOW, "serial 0102030405; the one here is ffff. Calibrate the new sensor"),
        (other(part="adxl382"), NOW, "of a part iis3dwb; the sensor is a adxl382"),
        (other(device="0" * 15 + "1"), NOW, "of device 00112233445566ff, not of 0000000000000001"),
        (other(scale_g=1 / 2048), NOW, r"of full scale \+-2 g .* the sensor runs at 0\.4883 mg"),
        (SENSOR, NOW + timedelta(days=366), "expired on 2027-03-01. Calibrate again"),
    ],
)
def test_i2_each_misuse_has_its_own_message(made, sensor, now, match):
    with pytest.raises(BadDocument, match=match):
        made.check(sensor, now)


def test_i2_the_right_sensor_passes_and_unknown_facts_do_not_count(made):
    made.check(SENSOR, NOW)
    made.check(Identity(), NOW)
    made.check(SENSOR, NOW + timedelta(days=400), allow_expired=True)


def tampered(change):
    content = dict(make()[0].content)
    change(content)
    try:
        return json.dumps({**content, "crc32": zlib.crc32(document.canonical(content))})
    except ValueError:
        return json.dumps({**content, "crc32": 0})


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file is empty"),
        ("   \n", "the file is empty"),
        ("{", "is no JSON"),
        (b"\xff\xfe\x00", "is no JSON"),
        ("[1]", "schema is 'list'"),
        ('{"schema": "other/9"}', "schema is 'other/9', this tool reads 'triax-calibration/1'"),
        (tampered(lambda c: c["model"].update(offset_count=[float("nan"), 0, 0])), "holds NaN"),
        (tampered(lambda c: c.pop("model")), "is incomplete .*'model'"),
        (tampered(lambda c: c["model"].update(offset_count=[1, 2])), "wrong shape"),
        (tampered(lambda c: c.update(covariance_lower=[1.0])), "is incomplete"),
    ],
)
def test_i2_bad_files_each_have_their_own_message(text, match):
    with pytest.raises(BadDocument, match=match):
        document.parse(text)


def test_i2_any_flipped_byte_of_the_file_is_seen(made):
    text = document.dump(made).encode()
    rng = np.random.default_rng(3)
    for at in rng.integers(0, len(text), 300):
        flipped = bytearray(text)
        flipped[at] ^= 1 << rng.integers(8)
        if json_equal(flipped, text):
            continue  # white space between tokens, or another spelling of the same number
        with pytest.raises(BadDocument):
            document.parse(bytes(flipped))


def json_equal(a, b):
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


def test_i2_any_flipped_bit_on_the_node_is_seen(made):
    blob = compact.encode(made)
    rng = np.random.default_rng(4)
    for at in [*range(40), *rng.integers(0, len(blob), 200)]:
        flipped = bytearray(blob)
        flipped[at] ^= 1 << rng.integers(8)
        with pytest.raises(BadDocument):
            compact.decode(bytes(flipped))


@pytest.mark.parametrize("length", [0, 3, 100, 166, 500])
def test_i2_a_copy_that_is_cut_off_is_seen(made, length):
    with pytest.raises(BadDocument, match="Push it again"):
        compact.decode(compact.encode(made)[:length])


def test_i2_too_long_for_the_node_is_refused(made):
    rng = np.random.default_rng(5)
    content = {**made.content, "gates": [{"name": rng.bytes(3000).hex(), "passed": True}]}
    with pytest.raises(BadDocument, match="the node stores 4096"):
        compact.encode(document.Document(content))


def frames_at(counts, celsius_mc, decimation=10):
    """Frames of raw counts (n, 10 * decimation, 3)."""
    frames = codec.empty(len(counts))
    sums = counts.reshape(len(counts), 10, decimation, 3).sum(axis=2)
    for k, axis in enumerate("xyz"):
        frames[axis] = sums[:, :, k]
    frames["decimation"], frames["samples"], frames["scale_g"] = decimation, 10 * decimation, 1 / 16384
    frames["minimum"], frames["maximum"] = counts.min(axis=1), counts.max(axis=1)
    frames["sum_squares"] = (counts.astype(np.int64) ** 2).sum(axis=1)
    frames["temperature_mc"] = celsius_mc
    return frames


def test_the_largest_document_fits_on_the_node():
    rng = np.random.default_rng(9)
    terms = Temperature(30.123, 15.456, 45.789, rng.normal(size=(3, 3)), rng.normal(size=(3, 3)) * 1e-4)
    _, result = make()
    ups = simulate.hand_poses(pose.CELLS[:6], rng)
    turn = rotation.case_rotation(ups, pose.CELLS[:6], pose.NAMES[:6])
    gates = [document.Gate("worst pose, predicted from the others", rng.random(), 1e3, "ug", True, "x" * 40) for _ in range(4)]
    sensor = Identity("00112233445566ff", "icm42688p", "0102030405060708", "1.2.0-rc1", 2.0, 1 / 16384)
    made = document.build(result, sensor, NOW, gates, "ab" * 32, temperature=terms, rotation=turn, mean_temperature_c=23.4)
    blob = compact.encode(made)
    assert len(blob) <= compact.LIMIT
    assert document.dump(compact.decode(blob)) == document.dump(made)
    assert compact.read_float32(blob).rotation == pytest.approx(turn.matrix, abs=1e-6)


def test_frames_in_g_with_flags_and_hash(made):
    rng = np.random.default_rng(6)
    counts = np.rint(rng.normal([100, -200, 16000], 300, (4, 100, 3))).astype(int)
    temperature = np.array([30_000, 15_000, 60_000, codec.NO_TEMPERATURE])
    found = apply.calibrate_frames(made, frames_at(counts, temperature))
    assert found.hash == compact.digest(compact.encode(made))
    assert found.flags.tolist() == [
        apply.OWN_AXIS_ONLY,
        apply.OWN_AXIS_ONLY,
        apply.OWN_AXIS_ONLY | apply.CLAMPED,
        apply.OWN_AXIS_ONLY | apply.NO_TEMPERATURE_MEASURED,
    ]
    for k, celsius in enumerate((30.0, 15.0, 45.0, 30.0)):  # 60 C is clamped to 45, none is the reference
        exact, _ = apply.calibrate_counts(made, counts[k], np.full(100, celsius))
        assert found.values_g[k] == pytest.approx(exact.reshape(10, 10, 3).mean(axis=1), abs=1e-9)
        offset, gain = made.temperature.terms(np.array([celsius]))
        own = (counts[k] - made.model.offset - offset) / (made.intrinsic[:3] * (1 + gain))
        assert found.minimum_g[k] == pytest.approx(own.min(axis=0), abs=1e-12)
        assert found.maximum_g[k] == pytest.approx(own.max(axis=0), abs=1e-12)
        assert found.rms_g[k] == pytest.approx(np.sqrt((own**2).mean(axis=0)), rel=1e-9)


def test_a_frame_with_samples_in_no_window_is_marked(made):
    frames = frames_at(np.full((1, 100, 3), 50), 30_000)
    frames["samples"] = 103
    assert apply.calibrate_frames(made, frames).flags[0] & apply.PARTIAL


def test_g3_clamped_and_flagged_when_reading_counts(made):
    counts = np.full((3, 3), 1000.0)
    values, flags = apply.calibrate_counts(made, counts, np.array([45.0, 80.0, np.nan]))
    assert (values[0] == values[1]).all()
    assert flags.tolist() == [0, apply.CLAMPED, apply.NO_TEMPERATURE_MEASURED]


def test_without_temperature_terms_no_temperature_is_outside():
    made, _ = make(terms=None)
    _, flags = apply.calibrate_counts(made, np.zeros((2, 3)), np.array([np.nan, 500.0]))
    assert not flags.any()
    assert document.dump(compact.decode(compact.encode(made))) == document.dump(made)


def test_a_table_of_the_database_in_calibrated_g(made):
    counts = np.rint(np.random.default_rng(8).normal([100, -200, 16000], 300, (50, 3)))
    warm = np.where(np.arange(50) < 40, 30.0, 60.0)
    columns = {f"{axis}_g": counts[:, k] / 16384 for k, axis in enumerate("xyz")}
    columns |= {"temperature_c": warm, "scale_g": np.full(50, 1 / 16384, np.float32), "calibration": [None] * 50}
    columns |= {"calibration_flags": np.full(50, apply.EXPIRED, np.uint8)}
    held = pa.table(columns, pa.schema([read.SCHEMA.field(name) for name in columns]))
    exact, _ = apply.calibrate_counts(made, counts, warm)
    digest = compact.digest(compact.encode(made)).hex()
    found = table.calibrate_table(held, made)
    assert np.stack([found[f"{axis}_g"].to_numpy() for axis in "xyz"], axis=1) == pytest.approx(exact, abs=1e-12)
    assert found["calibration_flags"].to_pylist() == [0] * 40 + [apply.CLAMPED] * 10
    assert found["calibration"].to_pylist() == [digest] * 50
    assert found.schema.metadata[table.HASH] == digest.encode()
    assert held["x_g"].to_numpy() == pytest.approx(counts[:, 0] / 16384)
    bare = table.uncalibrated(held)
    assert (bare["calibration"].null_count, bare.schema.metadata[table.HASH]) == (50, b"")
