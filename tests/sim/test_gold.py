"""Gold devices: the node's own code on virtual parts, with the same account as the bulk; and the bulk's bytes are the gold's."""

from pathlib import Path

import numpy as np
import pytest
from triax_proto.frame import checksums_ok, decode, encode, frame_dtype, parse, values_of, wire_size
from triax_sim import ledger as ledgers
from triax_sim import planted
from triax_sim.bulk import PARTS, Bank, Layout, device_ids, reduce_counts
from triax_sim.gold import Gold
from triax_sim.plan import Cohort, Plan, Target
from triax_sim.replay import read_hsdatalog
from triax_sim.sensor import Sensor

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "st-datalog2-iis3dwb" / "STWIN.box_DL2_00001"
BOOT = 1_800_000_000


def run(broker, tmp_path, cohort, duration_s=1.0, **options):
    plan = Plan(
        Target(port=broker.port), (cohort,), str(tmp_path / "g.ledger"), str(tmp_path / "g.json"), boot=BOOT,
        duration_s=duration_s, **options,
    )  # fmt: skip
    result = Gold(plan).run()
    broker.settled()
    return result, ledgers.read([plan.ledger])


def whole_frames(broker):
    """Frames of ten values; the end of a run closes a shorter one."""
    data = [payload for _, payload, _, _ in broker.frames if len(payload) == wire_size()]
    frames = decode(b"".join(data))
    assert checksums_ok(frames).all()
    return frames


def identities(rows):
    return {tuple(int(row[name]) for name in ("device", "boot", "sequence", "checksum")) for row in rows}


@pytest.mark.parametrize(("part", "qos"), [("adxl382", 1), ("iis3dwb", 0)])
def test_every_frame_of_the_node_is_in_the_ledger(broker, tmp_path, part, qos):
    result, rows = run(broker, tmp_path, Cohort("gold", 0, 2, part=part, qos=qos, kind="gold"))
    assert result["due"] == result["sent"] == len(rows) == len(broker.frames)
    assert result["acked"] == (len(rows) if qos else 0)
    assert (result["overruns"], result["gaps"], result["unsent"]) == (0, 0, 0)
    assert (rows["sent_us"] >= rows["due_us"]).all()
    arrived = {
        tuple(int(frame[name][0]) for name in ("device", "boot", "sequence", "checksum"))
        for frame in (parse(payload) for _, payload, _, _ in broker.frames)
    }
    assert arrived == identities(rows)
    assert len(rows) == pytest.approx(2 * 11, abs=2)
    assert set(rows["boot"]) == {BOOT}
    due = np.sort(rows["due_us"][rows["device"] == rows["device"][0]])
    assert np.abs(np.diff(due[:-1]) - 100_000).max() < 12_000  # a frame is seen at the poll after its last sample


class Overheard(Sensor):
    """A sensor that keeps what it told the virtual part."""

    told = {}

    def __call__(self, first, count):
        counts = super().__call__(first, count)
        self.told.update(zip(range(first, first + count), counts, strict=True))
        return counts


@pytest.mark.parametrize("part", PARTS)
def test_bulk_bytes_are_gold_bytes_for_the_same_samples(broker, tmp_path, part, monkeypatch):
    """The same counts, reduced by the node's kernels and by numpy; the header as the node measured it."""
    monkeypatch.setattr(planted, "Sensor", Overheard)
    monkeypatch.setattr(Overheard, "told", {})
    run(broker, tmp_path, Cohort("gold", 3, 1, part=part, motion="outer", clock_ppm=0.0, kind="gold"))
    gold = whole_frames(broker)
    assert len(gold) >= 9
    kind = PARTS[part]
    counts = np.array([Overheard.told[n] for n in range(len(gold) * kind.samples)])
    layout = Layout([Bank(kind, lambda first, count: counts[first : first + count], len(gold))])
    own = {name: gold[name] for name in ("device", "time_error_us", "rate_hz", "config", "temperature_mc")}
    changing = {name: gold[name] for name in ("boot", "sequence", "first_sample", "time_us")}
    rows, checksum = layout.build(np.arange(len(gold)), layout.own(own), own | changing)
    assert rows.tobytes() == gold.tobytes()
    assert checksum.tolist() == gold["checksum"].tolist()
    assert (gold["device"] == device_ids(1, np.array([3]))[0]).all()
    scale = {"adxl382": 1 / 2000, "iis3dwb": 0.000488}[part]
    assert gold["scale_g"][0] == np.float32(scale)


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
def test_a_recording_goes_through_the_virtual_part(broker, tmp_path):
    cohort = Cohort("gold", 0, 1, part="iis3dwb", kind="gold")
    run(broker, tmp_path, cohort, options={"recording": str(DATA)}, duration_s=1.2)
    recording = read_hsdatalog(DATA, "iis3dwb")
    frames = whole_frames(broker)
    assert len(frames) >= 10
    for frame in frames:
        first = int(frame["first_sample"])
        counts = recording.counts[first : first + int(frame["samples"])].astype(np.int64)
        assert (frame["x"] == counts[:, 0].reshape(10, 267).sum(axis=1)).all()
        assert (frame["z"] == counts[:, 2].reshape(10, 267).sum(axis=1)).all()
        assert (frame["sum_squares"] == (counts**2).sum(axis=0).astype(np.uint64)).all()


def test_a_frame_shape_is_known_by_its_size():
    assert values_of(wire_size()) == 10
    assert frame_dtype().itemsize == 273
    assert encode(reduce_counts(np.ones((1600, 3), np.int32), PARTS["adxl382"])).shape == (1, 273)
