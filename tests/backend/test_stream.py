"""Frames to features and events: the same whatever the cuts, late frames and repeats, and planted faults found."""

import sys
from pathlib import Path

import numpy as np
import pytest
from triax_backend.stream.columns import of_frames, of_records
from triax_backend.stream.features import LATE
from triax_backend.stream.process import Stream
from triax_backend.stream.state import BadSnapshot, State
from triax_proto.batch import join, join_array
from triax_proto.frame import empty, encode
from triax_proto.v1.event_pb2 import Event
from triax_sim.replay import read_hsdatalog

sys.path.insert(0, str(Path(__file__).parent))
import planted

BASE = 0x0200_0000_0000_0000


def run(frames, cuts=(), stream=None):
    """Features and events of frames in this order, cut at these places."""
    stream = stream or Stream()
    parts = np.split(np.arange(len(frames)), cuts)
    out = [stream.process(of_frames(frames[part], 3)) for part in parts if len(part)]
    return np.concatenate([f for f, _ in out]), np.concatenate([e for _, e in out]), stream


def ordered(rows):
    return np.sort(np.array([row.tobytes() for row in rows]))


def same(a, b):
    return len(a) == len(b) and (ordered(a) == ordered(b)).all()


@pytest.fixture(scope="module")
def small():
    """Six devices, one of each fault, 40 s, device after device within a second."""
    fleet = planted.fleet(devices=6, frames=400, per_kind=1, seed=5)
    return fleet.frames


def mixed(frames, rng):
    """All frames in a random order of devices, each device's in its own."""
    devices, count = frames.shape
    which = rng.permutation(np.repeat(np.arange(devices), count))
    place = np.zeros(len(which), int)
    for device in range(devices):
        place[which == device] = np.arange(count)
    return frames[which, place]


def test_cuts_change_nothing(small):
    rng = np.random.default_rng(1)
    frames = mixed(small, rng)
    features, events, whole = run(frames)
    assert len(events) >= 4
    for cuts in (range(1, len(frames)), np.sort(rng.choice(len(frames), 60)), range(7, len(frames), 111)):
        again, found, stream = run(frames, cuts)
        assert same(features, again)
        assert same(events, found)
        assert stream.state.snapshot(3) == whole.state.snapshot(3)


def test_every_complete_window_has_one_row_of_its_members(small):
    features, _, _ = run(mixed(small, np.random.default_rng(2)))
    ones = features[features["windows"] == 1]
    assert len(ones) == 6 * 40
    assert (ones["frames"] == 10).all()
    tens = features[features["windows"] == 10]
    sixties = features[features["windows"] == 60]
    assert sorted(set(tens["window"])) == [4, 9, 14, 19, 24, 29, 34]
    assert (tens["frames"][tens["window"] > 4] == 100).all()
    assert set(sixties["window"]) == {29}
    device = ones[ones["device"] == BASE]
    ten = tens[(tens["device"] == BASE) & (tens["window"] == 19)][0]
    part = device[(device["window"] >= 10) & (device["window"] <= 19)]
    assert ten["mean"] == pytest.approx(part["mean"].mean(axis=0), abs=1e-6)
    assert ten["maximum"] == pytest.approx(part["maximum"].max(axis=0))
    assert ten["rms"] ** 2 == pytest.approx((part["rms"] ** 2).mean(axis=0) + part["mean"].var(axis=0), rel=1e-4)


def test_a_row_is_what_the_raw_samples_say():
    rng = np.random.default_rng(3)
    raw = np.rint(rng.normal([100, -50, 2000], 30, (10, 1600, 3))).astype(np.int64)
    frames = empty(10)
    sums, low, high, squares = planted.block_statistics(raw)
    for axis, name in enumerate("xyz"):
        frames[name] = sums[:, axis]
    frames["minimum"], frames["maximum"], frames["sum_squares"] = low, high, squares
    planted._head(frames.reshape(1, 10), 1, 10)
    features, _, _ = run(frames)
    g = raw.reshape(-1, 3) * planted.SCALE_G
    row = features[0]
    assert row["mean"] == pytest.approx(g.mean(axis=0), rel=1e-6)
    assert row["rms"] == pytest.approx(g.std(axis=0), rel=1e-4)
    assert row["peak"] == pytest.approx(np.abs(g - g.mean(axis=0)).max(axis=0), rel=1e-5)
    assert row["crest"] == pytest.approx(row["peak"] / row["rms"], rel=1e-6)
    assert row["samples"] == 16_000
    assert row["temperature_c"] == 25


def test_replayed_frames_make_the_rows_they_would_have_made(small):
    frames = small[0]
    features, _, _ = run(frames)
    # an outage from 95 to 305, replayed next to the live frames at five times their rate
    live, spooled = list(range(305, 400)), list(range(95, 305))
    order = list(range(95))
    while live or spooled:
        order += [*live[:1], *spooled[:5]]
        del live[:1], spooled[:5]
    late, events, _ = run(frames[order])
    shapes = [name for name in features.dtype.names if name not in ("flags", "spike_score", "glitches")]
    ones, whole = (f[f["windows"] == 1] for f in (features, late))
    whole = whole[whole["frames"] == 10]
    clean = ones["glitches"] == 0
    ones, whole = ones[np.argsort(ones["window"])], whole[np.argsort(whole["window"])]
    assert ones["window"].tolist() == whole["window"].tolist()
    for name in shapes:
        assert (ones[name][clean] == whole[name][clean]).all(), name
    # window 30 has waited with its five live frames and went out for the first time before 13 was whole
    assert whole["window"][(whole["flags"] & LATE) != 0].tolist() == list(range(13, 31))
    gone = events[events["kind"] == Event.KIND_MISSING]
    assert gone["first_sequence"].tolist() == [300, 130]
    assert gone["last_sequence"].tolist() == [304, 299]
    assert gone["value"].tolist() == [5, 160]  # 13 had begun


def test_repeats_change_nothing(small):
    frames = small[1]
    features, events, _ = run(frames)
    doubled = np.repeat(np.arange(400), 2)
    again, found, stream = run(frames[doubled], range(50, 800, 50))
    assert same(features, again)
    assert same(events, found)
    assert stream.repeats == 400
    # a whole stretch sent again, much later
    again, found, stream = run(frames[np.r_[0:400, 120:260]])
    assert same(features, again)
    assert stream.repeats == 140


def test_a_hole_is_emitted_after_its_wait_and_again_when_it_fills(small):
    frames = small[2]
    order = [n for n in range(300) if n not in (42, 57)]
    features, events, _ = run(frames[order])
    holes = features[(features["frames"] < 10) & (features["windows"] == 1)]
    assert [(int(f["window"]), int(f["frames"])) for f in holes] == [(4, 9), (5, 9)]
    gone = events[events["kind"] == Event.KIND_MISSING]
    assert gone["first_sequence"].tolist() == gone["last_sequence"].tolist() == [42, 57]
    assert gone["value"].tolist() == [1, 1]
    filled, _, _ = run(frames[[*order, 42]])
    rows = filled[(filled["window"] == 4) & (filled["windows"] == 1)]
    assert rows["frames"].tolist() == [9, 10]


def test_a_new_boot_starts_anew_and_an_old_one_is_finished(small):
    frames = np.concatenate([small[3][:95], small[3][:60], small[3][95:100]])
    whole = frames.copy()
    second = empty(len(frames))
    for name in whole.dtype.names:
        second[name] = whole[name]
    second["boot"][95:155] = 8
    features, events, stream = run(second, range(9, len(second), 9))
    ones = features[features["windows"] == 1]
    assert sorted(ones["window"][ones["boot"] == 8]) == [0, 1, 2, 3, 4, 5]
    old = ones[ones["boot"] == 7]
    assert sorted(old["window"][old["frames"] == 10]) == list(range(10))
    assert old["flags"][old["frames"] == 10][-1] & LATE
    assert not (events["kind"] == Event.KIND_MISSING).any()
    assert stream.state.devices["boot"][0] == 8


def test_test_patterns_stay_out(small):
    frames = empty(40)
    for name in frames.dtype.names:
        frames[name] = small[0][:40][name]
    frames["flags"][10:20] = 64
    features, _, stream = run(frames)
    assert stream.test_patterns == 10
    assert features["window"][features["windows"] == 1].tolist() == [0, 2, 3]


def test_state_survives_a_snapshot(small):
    frames = mixed(small, np.random.default_rng(4))
    cut = 1234
    features, events, whole = run(frames)
    first, found, stream = run(frames[:cut])
    state = State()
    assert state.restore(stream.state.snapshot(3)) == 3
    rest, later, end = run(frames[cut:], (), Stream(state))
    assert same(features, np.concatenate([first, rest]))
    assert same(events, np.concatenate([found, later]))
    assert end.state.snapshot(3) == whole.state.snapshot(3)
    with pytest.raises(BadSnapshot):
        state.restore(b"nonsense")
    state.drop([3])
    assert state.count == 0


def test_records_of_mixed_and_broken_frames():
    frames = empty(5)
    planted._head(frames.reshape(1, 5), 1, 5)
    short = empty(1, 3)
    short["device"], short["sequence"], short["samples"], short["scale_g"] = BASE, 5, 480, 1.0
    data = encode(frames)
    columns, bad = of_records([(2, join_array(data))])
    assert (len(columns), bad) == (5, 0)
    odd = join([bytes(data[0]), encode(short).tobytes(), b"rubbish", bytes(data[1])])
    columns, bad = of_records([(2, join_array(data)), (1, odd), (0, b"\xff\xff"), (2, join_array(data))])
    assert bad == 2
    assert columns["sequence"].tolist() == [0, 1, 2, 3, 4, 0, 5, 1, 0, 1, 2, 3, 4]
    assert columns["partition"].tolist() == [2] * 5 + [1] * 3 + [2] * 5
    assert of_records([])[1] == 0


KIND = {
    "spike": Event.KIND_SPIKE,
    "glitch": Event.KIND_GLITCH,
    "level_shift": Event.KIND_LEVEL_SHIFT,
    "drift": Event.KIND_DRIFT,
    "bearing": Event.KIND_BEARING,
    "dead_axis": Event.KIND_DEAD_AXIS,
}


def test_planted_faults_are_found_and_a_glitch_is_no_spike():
    fleet = planted.fleet()
    frames = fleet.frames
    features, events, _ = run(frames.T.reshape(-1), range(1000, frames.size, 1000))
    assert len(fleet.faults) >= 40
    of = {BASE + fault.row: fault for fault in fleet.faults}
    for kind, code in KIND.items():
        found = events[events["kind"] == code]
        right = {int(e["device"]) for e in found if e["device"] in of and of[int(e["device"])].kind == kind}
        wrong = [e for e in found if int(e["device"]) not in right]
        planted_here = [fault for fault in fleet.faults if fault.kind == kind]
        recall, precision = len(right) / len(planted_here), 1 - len(wrong) / max(len(found), 1)
        print(f"{kind}: planted {len(planted_here)}, recall {recall:.2f}, precision {precision:.2f}")
        assert recall >= 0.85
        assert precision >= 0.9
    glitched = {BASE + fault.row for fault in fleet.faults if fault.kind == "glitch"}
    spikes = events[events["kind"] == Event.KIND_SPIKE]
    assert not glitched & set(spikes["device"].tolist())
    # what was taken out of the features is gone: the glitch shows in no peak of its window
    for fault in fleet.faults:
        if fault.kind == "glitch":
            rows = features[(features["device"] == BASE + fault.row) & (features["windows"] == 1)]
            hit = rows["window"] == fault.frame // 10
            if rows["glitches"][hit][0]:
                assert rows["peak"][hit, fault.axis][0] < 2 * np.median(rows["peak"][:, fault.axis])


@pytest.mark.parametrize("seed", range(4))
def test_two_bad_samples_in_one_frame_are_no_spike(seed):
    rng = np.random.default_rng(seed)
    fleet = planted.fleet(devices=24, frames=200, per_kind=0, seed=seed)
    raw, _ = planted.pools(np.random.default_rng(seed))
    for row in range(24):
        block = raw[row % planted.CLASSES][0].astype(np.int64)
        level = np.rint(fleet.frames["x"][row, 100].mean() / planted.DECIMATION).astype(np.int64)
        height = rng.uniform(500, 8000)
        for at in rng.choice(1600, 2, replace=False):
            block[at, 0] = round(height * rng.choice([-1, 1]) * rng.choice([1, rng.uniform(0.3, 1)]))
        planted._put(fleet.frames, row, 100, block, np.array([level, 0, 2000]))
    _, events, _ = run(fleet.frames.T.reshape(-1))
    assert not (events["kind"] == Event.KIND_SPIKE).any()


DATA = Path(__file__).parents[2].parent / "shared" / "data"


def recorded(folder):
    """Frames of the IIS3DWB in a recording: 267 raw samples a value."""
    if not DATA.is_dir():
        pytest.skip(f"no recordings: {DATA}")
    recording = read_hsdatalog(DATA / "st-datalog2-iis3dwb" / folder, "iis3dwb")
    each = 10 * 267
    count = len(recording.counts) // each
    raw = recording.counts[: count * each].astype(np.int64).reshape(count, each, 3)
    frames = empty(count)
    sums = raw.reshape(count, 10, 267, 3).sum(axis=2)
    for axis, name in enumerate("xyz"):
        frames[name] = sums[:, :, axis]
    frames["minimum"], frames["maximum"], frames["sum_squares"] = raw.min(axis=1), raw.max(axis=1), (raw * raw).sum(axis=1)
    frames["device"], frames["boot"], frames["sequence"] = BASE, 1, np.arange(count)
    frames["samples"], frames["decimation"] = each, 267
    frames["scale_g"], frames["rate_hz"] = recording.scale_g, recording.rate_hz
    frames["time_us"] = np.arange(count) * 100_000
    return frames


def test_a_recorded_tap_is_a_spike_and_no_glitch():
    features, events, _ = run(recorded("STWIN.box_20240916_15_45_40"))
    kinds = events["kind"].tolist()
    assert kinds == [Event.KIND_SPIKE]
    assert events["value"][0] > 1
    assert features["peak"].max() > 4.5  # the tap itself is still in the features
    assert features["mean"][0] == pytest.approx([-0.046, -0.111, 1.091], abs=0.01)


@pytest.mark.parametrize("folder", ["STWIN.box_DL2_00001", "STWIN_DL2_00001"])
def test_a_board_turned_in_the_hand_has_no_glitch_no_bearing_and_no_dead_axis(folder):
    _, events, _ = run(recorded(folder))
    assert not set(events["kind"].tolist()) & {Event.KIND_GLITCH, Event.KIND_BEARING, Event.KIND_DEAD_AXIS}
