"""Models: honest splits, planted and recorded faults, files that must be refused, the swap by the time of the data."""

import hashlib
import json
import pickle
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from triax_backend.models import bearings, store, train, windows
from triax_backend.models.card import card
from triax_backend.models.errors import Rejected, TooLittle
from triax_backend.models.serving import Scores, refusal
from triax_backend.models.vectors import CAPTURE_FEATURES, WINDOW_FEATURES, capture_vector, shaft_hz
from triax_backend.settings import Settings
from triax_backend.stream.columns import of_frames
from triax_backend.stream.process import Stream
from triax_proto.v1.event_pb2 import Event, Model
from triax_sim.machine import Defect, Machine
from triax_sim.replay import read_csv, read_hsdatalog

sys.path.insert(0, str(Path(__file__).parent))
import planted

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RATE = 26_700.0


def features(fleet):
    rows, _ = Stream().process(of_frames(fleet.frames.T.reshape(-1), 0))
    return rows[rows["windows"] == 1]


@pytest.fixture(scope="module")
def healthy():
    return features(planted.fleet(devices=64, frames=600, per_kind=0, seed=21))


@pytest.fixture(scope="module")
def model(healthy):
    return windows.train(healthy, seed=1)


def test_no_device_and_no_moment_is_in_two_parts(healthy):
    parts = windows.split(healthy["device"], healthy["time_us"])
    masks = [parts.train, parts.tune, parts.test]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not set(healthy["device"][masks[one]]) & set(healthy["device"][masks[other]])
        assert healthy["time_us"][masks[one]].max() < healthy["time_us"][masks[other]].min()
    with pytest.raises(TooLittle):
        windows.split(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(TooLittle):
        windows.train(healthy[:100])


def test_planted_faults_are_unusual_windows_and_healthy_ones_are_not(model):
    fleet = planted.fleet(devices=64, frames=600, per_kind=4, seed=22)
    rows = features(fleet)
    faulty = np.zeros(len(rows), bool)
    for fault in fleet.faults:
        if fault.kind in ("bearing", "dead_axis"):  # those that change the vibration for good
            faulty |= (rows["device"] == 0x0200_0000_0000_0000 + fault.row) & (rows["window"] > fault.frame // 10)
    others = {0x0200_0000_0000_0000 + fault.row for fault in fleet.faults}
    clean = ~np.isin(rows["device"], list(others))
    result = windows.judge(model, rows[faulty | clean], faulty[faulty | clean])
    print(json.dumps(result))
    assert result["recall"] >= 0.8
    assert result["false_share"] <= 0.01
    assert model.report["test"]["share_above"] <= 0.02
    strange = [device for device, _, share in windows.unusual_devices(model, rows[rows["window"] > 45]) if share > 0.5]
    assert set(strange) <= others


SPEEDS = np.random.default_rng(5).uniform(18, 45, 64)


def capture(label, number, seconds=1.0):
    """A capture of a machine of its own speed, resonance, unbalance and noise, with this defect."""
    rng = np.random.default_rng([number, len(label)])
    defects = [] if label == "healthy" else [Defect(label, float(rng.uniform(0.4, 1.2)))]
    machine = Machine(
        speed_hz=float(SPEEDS[number]),
        unbalance_g=float(rng.uniform(0.1, 0.6)),
        defects=defects,
        resonance_hz=float(rng.uniform(4_000, 6_500)),
        decay_s=float(rng.uniform(0.0008, 0.0015)),
        slip=0.01,
        seed=number,
    )
    time_s = rng.uniform(0, 100) + np.arange(int(seconds * RATE)) / RATE
    return machine(time_s) + rng.normal(0, 0.02, (len(time_s), 3))


@pytest.fixture(scope="module")
def bearing():
    rows = [(capture(label, number), label, number) for label in ("healthy", "outer", "inner", "ball") for number in range(24)]
    # a machine has its number whatever its label; devices of different labels are different machines
    devices = np.array([number + 100 * "hoib".index(label[0]) for _, label, number in rows])
    return bearings.train(
        np.array([capture_vector(g, RATE) for g, _, _ in rows]), np.array([label for _, label, _ in rows]), devices
    )


def test_the_shaft_is_found():
    for number in (0, 7, 13):
        assert shaft_hz(capture("inner", number), RATE) == pytest.approx(SPEEDS[number], abs=1)
    with pytest.raises(ValueError, match="want at least"):
        capture_vector(capture("outer", 1)[:1000], RATE)


def test_planted_bearing_defects_are_told_apart_on_machines_never_seen(bearing):
    print(json.dumps(bearing.report["test"]))
    assert bearing.report["test"]["accuracy"] >= 0.85
    labels = ("healthy", "outer", "inner", "ball")
    fresh = [(label, capture(label, number)) for label in labels for number in range(40, 46)]
    guessed, probability = bearings.predict(bearing, np.array([capture_vector(g, RATE) for _, g in fresh]))
    right = np.array([label for label, _ in fresh]) == guessed
    assert right.mean() >= 0.85
    assert (probability > 0).all()
    with pytest.raises(TooLittle):
        bearings.train(np.zeros((3, len(CAPTURE_FEATURES))), np.array(["a", "a", "b"]), np.arange(3))


def test_recorded_motion_has_no_bearing_defect(bearing):
    """The unbalance recording and three of a board in a hand: a machine without a bearing defect, and none at all."""
    if not DATA.is_dir():
        pytest.skip(f"no recordings: {DATA}")
    recordings = [read_csv(next((DATA / "vibrationdaq-adcmxl3021").glob("*MTC*.csv")))]
    folder = DATA / "st-datalog2-iis3dwb"
    recordings += [read_hsdatalog(folder / name, "iis3dwb") for name in ("STWIN.box_DL2_00001", "STWIN.box_20240916_15_45_40")]
    vectors = np.array([capture_vector(one.g()[: int(4 * one.rate_hz)], one.rate_hz) for one in recordings])
    guessed, probability = bearings.predict(bearing, vectors)
    print(list(zip([one.name for one in recordings], guessed.tolist(), probability.round(2).tolist(), strict=True)))
    assert guessed[0] == "healthy" or probability[0] < 0.6


class Evil:
    def __reduce__(self):
        return print, ("a pickle was run",)


def offer(scores, trained, version, from_us=0, **changes):
    data = store.dump(trained.pipeline)
    manifest = store.manifest("window", version, data, "", WINDOW_FEATURES, trained.threshold, "window", from_us)
    for name, value in changes.items():
        if name == "features":
            del manifest.features[:]
            manifest.features.extend(value)
        elif name != "data":
            setattr(manifest, name, value)
    scores.offer(manifest, changes.get("data", data))


def test_what_must_be_refused_is_refused_and_the_last_good_model_stays(model, bearing):
    scores = Scores()
    offer(scores, model, "1")
    pickled = pickle.dumps(Evil())
    strange = store.dump(Evil)  # a type that is not ours
    for bad in (
        {"hash": b"0" * 32},
        {"data": pickled, "hash": hashlib.sha256(pickled).digest()},
        {"data": b"PK nonsense", "hash": hashlib.sha256(b"PK nonsense").digest()},
        {"data": strange, "hash": hashlib.sha256(strange).digest()},
        {"features": ["log_rms_x"]},
        {"name": "v" * 60},
        {"threshold": float("nan")},
    ):
        with pytest.raises(Rejected):
            offer(scores, model, "2", **bad)
    with pytest.raises(Rejected):
        offer(scores, bearing, "3")
    assert scores.versions == ["window/1"]
    with pytest.raises(Rejected):
        store.manifest("window", "x" * 60, b"", "", (), 0.0, "window", 0)
    with pytest.raises(Rejected):
        store.fetch(Settings(), "file:///nowhere/at/all.skops")
    with pytest.raises(Rejected):
        store.fetch(Settings(), "http://somewhere/model")
    event = refusal(Model(name="window", version="2", hash=b"0" * 32), "hash")
    assert event.kind == Event.KIND_MODEL_REJECTED
    assert event == refusal(Model(name="window", version="2", hash=b"0" * 32), "hash")


def test_the_swap_falls_on_the_same_window_however_the_stream_is_cut(model, healthy):
    frames = planted.fleet(devices=8, frames=300, per_kind=0, seed=30).frames.T.reshape(-1)
    swap = planted.START_US + 15 * 1_000_000
    outcomes = []
    for cuts in ((), range(100, len(frames), 100)):
        scores = Scores()
        offer(scores, model, "1", planted.START_US)
        offer(scores, model, "2", swap)
        stream = Stream(score=scores)
        rows = np.concatenate([stream.process(of_frames(part, 0))[0] for part in np.split(frames, cuts)])
        ones = rows[rows["windows"] == 1]
        assert set(ones["model"][ones["time_us"] < swap]) == {b"window/1"}
        assert set(ones["model"][ones["time_us"] >= swap]) == {b"window/2"}
        assert (ones["score"] != 0).all()
        outcomes.append(np.sort(np.array([row.tobytes() for row in rows])))
    assert (outcomes[0] == outcomes[1]).all()


def test_a_strange_window_is_an_event_once(model):
    fleet = planted.fleet(devices=8, frames=300, per_kind=0, seed=31)
    fleet.frames["sum_squares"][3, 200:] *= 6
    scores = Scores()
    offer(scores, model, "1")
    _, events = Stream(score=scores).process(of_frames(fleet.frames.T.reshape(-1), 0))
    found = events[events["kind"] == Event.KIND_ANOMALY]
    assert found["device"].tolist() == [0x0200_0000_0000_0003]
    assert found["window"].tolist() == [20]
    assert found["model"].tolist() == [b"window/1"]
    assert found["score"][0] > found["threshold"][0]


def test_a_model_comes_with_its_card(model, bearing, tmp_path):
    for trained, scope in ((model, "window"), (bearing, "raw")):
        words, numbers = card("name", "7", scope, trained.report, {"source": "here"})
        assert "## Limits" in words
        assert json.loads(numbers)["report"]["test"]
        data = {"source": "here"}
        manifest = train.publish(Settings(), trained, data, name=scope, version="7", scope=scope, effective_from_us=5, out=tmp_path)
        loaded = store.load(store.fetch(Settings(), manifest.address), manifest.hash)
        count = len(trained.report["features"])
        probe = np.zeros((2, count))
        method = "score_samples" if scope == "window" else "predict_proba"
        assert (getattr(loaded, method)(probe) == getattr(trained.pipeline, method)(probe)).all()
        assert (tmp_path / scope / "7" / "card.md").read_text() == card(scope, "7", scope, trained.report, data)[0]


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_models_are_swapped_in_a_running_stream(model, tmp_path_factory, tmp_path):
    from test_stream_runner import PARTITIONS, produce, read, records_of, start, wait_for
    from triax_backend.stack import Stack
    from triax_backend.stream.features import decode
    from triax_proto.names import EVENTS, FEATURES

    records = records_of(planted.fleet(devices=40, frames=300, per_kind=0, seed=9).frames)
    log = tmp_path / "stream.log"
    with Stack(tmp_path_factory.mktemp("models"), only=("kafka", "s3"), partitions=PARTITIONS) as stack:
        settings = stack.settings
        for version, at in (("1", 0), ("2", planted.START_US + 20 * 1_000_000)):
            train.publish(settings, model, {}, name="window", version=version, scope="window", effective_from_us=at)
        process = start(settings, "swap", log, commit_s=0.2, state_dir=tmp_path / "state")
        produce(settings, records[: len(records) // 2])
        wait_for(settings, "swap", ends(records[: len(records) // 2], PARTITIONS), process, log)
        data = store.dump(model.pipeline)
        broken = store.manifest("window", "3", data, "file:///nowhere.skops", WINDOW_FEATURES, 1.0, "window", planted.START_US)
        store.announce(settings, broken)
        wait_until(lambda: any(key == b"models" for _, key, _ in read(settings, EVENTS)), log)
        produce(settings, records[len(records) // 2 :])
        wait_for(settings, "swap", ends(records, PARTITIONS), process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        rows = np.concatenate([decode(value) for _, _, value in read(settings, FEATURES)])
        ones = rows[rows["windows"] == 1]
        assert len(ones) == 40 * 30
        assert set(ones["model"]) == {b"window/1", b"window/2"}
        assert ((ones["model"] == b"window/2") == (ones["time_us"] >= planted.START_US + 20_000_000)).all()
        refused = [Event.FromString(value) for _, key, value in read(settings, EVENTS) if key == b"models"]
        assert [event.finding.model for event in refused] == ["window/3"]


def ends(records, partitions):
    counts = [0] * partitions
    for number, _ in records:
        counts[number] += 1
    return counts


def wait_until(condition, log, timeout_s=40):
    import time

    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.5)
