"""Frames and gaps from virtual parts."""

from itertools import cycle, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triax.capture import Capture
from triax.chips import NOT_MEASURED, PASS
from triax.errors import BadSetting
from triax.raw import RawEncoder
from triax_proto import frame as wire
from triax_proto.v1 import frame_pb2
from triax_proto.v1.event_pb2 import Gap

from .rig import Rig, ramp


class StillClock:
    """A clock without memory of polls, so that frames depend on samples alone."""

    suspect = contradicted = stepped = False
    bound = 0

    def __init__(self):
        self.utc = self

    def configure(self, odr_hz, tolerance_ppm, delay_us, ahead=0):
        pass

    def restart(self):
        pass

    def advance(self, ticks):
        pass

    def observe(self, sets, before, after):
        pass

    def put_time(self, buf, ahead):
        pass


class FakePart:
    """A part whose FIFO holds what the test puts there."""

    NAME, FIFO_SETS, COUNT_BITS, LOSS_PERIOD, ODR_TOLERANCE_PPM = "fake", 512, 16, 0, 30_000
    delay_us, scale_g, clip_low, clip_high, gap, gap_modulo = 0, 0.001, -32768, 32767, 0, -1

    def __init__(self, counts):
        self.counts = counts
        self.at = self.waiting = 0

    def validate(self, *settings):
        pass

    def settings(self):
        return None

    def configure(self, range_g, odr_hz, lowpass, highpass):
        self.odr_hz = odr_hz

    def start(self, watermark):
        pass

    def stop(self):
        pass

    def level(self):
        return self.waiting

    def read_fifo(self, out):
        n = self.waiting
        for i, v in enumerate(self.counts[self.at : self.at + n].ravel().tolist()):
            out[i] = v
        self.at += n
        self.waiting = 0
        return n

    def temperature_mc(self):
        return 21_500


def frames_of(counts, decimation, bursts):
    """Frames of a fake part whose FIFO is found with so many sets at each poll, over and over."""
    part = FakePart(counts)
    sent = []
    capture = Capture(part, StillClock(), lambda: 0, 1, 2, lambda b, n: sent.append(bytes(b[:n])), None, values=4)
    capture.configure(1, 2, 16000, decimation)
    capture.start()
    for burst in cycle(bursts):
        part.waiting = min(burst, len(counts) - part.at)
        if not part.waiting:
            break
        capture.poll(0)
    capture.stop()
    return sent


@given(st.sampled_from([1, 3, 160, 267]), st.lists(st.integers(1, 512), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_frames_do_not_depend_on_how_bursts_were_cut(decimation, bursts):
    counts = np.random.default_rng(4).integers(-32768, 32768, (1500, 3)).astype(np.int32)
    sent = frames_of(counts, decimation, bursts)
    assert sum(int(wire.parse(data)[0]["samples"]) for data in sent) == len(counts)
    assert sent == frames_of(counts, decimation, [512])


@pytest.mark.parametrize("name", ["adxl382", "iis3dwb"])
def test_values_are_sums_of_the_parts_counts(name):
    rig = Rig(name)
    rig.run(0.5)
    rig.capture.stop()
    assert rig.holes() == []
    assert rig.gaps == []
    assert rig.twin.refusals == []
    for item in rig.frames:
        first, samples, decimation = int(item["first_sample"]), int(item["samples"]), int(item["decimation"])
        counts = ramp(first, samples).astype(np.int64)
        whole = samples // decimation
        sums = counts[: whole * decimation].reshape(whole, decimation, 3).sum(1)
        if whole:
            assert np.array_equal(np.stack([item["x"], item["y"], item["z"]], 1), sums)
        assert item["minimum"].tolist() == counts.min(0).tolist()
        assert item["maximum"].tolist() == counts.max(0).tolist()
        assert item["sum_squares"].tolist() == (counts**2).sum(0).tolist()
        assert item["flags"] == 0
    assert [int(f["sequence"]) for f in rig.frames] == list(range(len(rig.sent)))
    assert int.from_bytes(rig.capture.samples, "little") == sum(int(f["samples"]) for f in rig.frames)


@pytest.mark.parametrize("name", ["adxl382", "iis3dwb", "icm42688p"])
def test_a_stall_becomes_a_gap_of_the_right_length(name):
    rig = Rig(name, ppm=3000, odr_hz=16000 if name == "icm42688p" else None)
    rig.run(1)
    for fifos in (1.2, 2.5, 30):
        lost = rig.twin.truth.lost
        rig.stall(fifos)
        rig.run(0.4)
        first, length, bound, cause = rig.gaps[-1]
        true = rig.twin.truth.lost - lost
        assert cause == Gap.CAUSE_FIFO_OVERRUN
        assert abs(length - true) <= max(bound, 0 if rig.part.LOSS_PERIOD else 1)
        assert (first, length) in rig.holes()
    rig.capture.stop()
    assert rig.holes() == [g[:2] for g in rig.gaps]
    flagged = [int(f["flags"]) for f in rig.frames if int(f["first_sample"]) in [g[0] + g[1] for g in rig.gaps]]
    assert flagged == [frame_pb2.FRAME_FLAG_FIFO_OVERRUN] * 3
    assert int(rig.frames[-1]["lost_samples"]) == sum(g[1] for g in rig.gaps)
    assert rig.capture.overruns == 3


def test_no_window_mixes_both_sides_of_a_gap():
    rig = Rig(source=lambda first, count: np.full((count, 3), 1000 if first < 8192 else -1000, np.int32))
    rig.world.advance_to(int(8192e6 / 16000) - 3000)
    rig.stall(3)
    rig.run(0.3)
    rig.capture.stop()
    for item in rig.frames:
        if "x" in item.dtype.names:
            assert set(item["x"].tolist()) <= {160_000, -160_000}


def test_permanent_overrun_sends_at_most_one_frame_in_100_ms():
    rig = Rig(ppm=-5000)
    rig.run(0.5)
    sent = len(rig.sent)
    begin = rig.world.now_us
    while rig.world.now_us - begin < 2e6:
        rig.stall(1.6)
        rig.poll()
    assert len(rig.sent) - sent <= 21
    rig.run(0.3)
    for _ in range(4):  # what came while a burst was read
        rig.poll()
    made = rig.twin.truth.made
    rig.capture.stop()
    holes = sum(length for _, length in rig.holes())
    assert holes == sum(g[1] for g in rig.gaps)
    total = int(rig.frames[-1]["first_sample"]) + int(rig.frames[-1]["samples"])
    assert abs(total - made) <= 2 + max(g[2] for g in rig.gaps)
    assert max(g[2] for g in rig.gaps) < 10


def test_a_bus_error_is_a_gap_and_the_part_goes_on():
    rig = Rig(ppm=2000)
    rig.run(0.5)
    rig.bus.faults.fail = 1
    rig.run(0.5)
    rig.capture.stop()
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_BUS_ERROR]
    assert rig.capture.bus_errors == 1
    assert [int(f["flags"]) for f in rig.frames if f["flags"]] == [frame_pb2.FRAME_FLAG_BUS_ERROR]
    # The index follows the time: nothing else may shift.
    seconds = np.diff([int(f["time_us"]) for f in rig.frames]) / 1e6
    samples = np.diff([int(f["first_sample"]) for f in rig.frames])
    assert np.abs(seconds - samples / 16032).max() < 1e-3


def test_a_dead_bus_never_raises_and_ends_in_one_gap():
    rig = Rig()
    rig.run(0.3)
    for stuck in (0x00, 0xFF):
        rig.bus.faults.stuck = stuck
        rig.run(0.5)
    rig.bus.faults.stuck = None
    rig.run(0.5)
    rig.capture.stop()
    assert len(rig.gaps) == 1
    assert rig.gaps[0][1] == pytest.approx(16000, rel=0.3)
    assert rig.capture.bus_errors > 1


def test_a_bus_that_is_dead_for_longer_than_the_ticks_last():
    rig = Rig(ppm=4000)
    rig.clock.set_utc(rig.world.ticks_us(), 1_700_000_000_000_000, 1000)
    rig.run(5)
    rig.bus.faults.stuck = 0xFF
    for _ in range(50):  # 50 minutes: ticks wrap after 17.9
        rig.world.advance(60_000_000)
        rig.poll()
    rig.bus.faults.stuck = None
    rig.run(1)
    rig.capture.stop()
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_BUS_ERROR]
    assert rig.gaps[0][1] == pytest.approx(3000 * 16064, rel=1e-3)
    last = rig.frames[-1]
    index, us = int(last["first_sample"]), int(last["time_us"]) - 1_700_000_000_000_000
    assert abs(us - index * 1e6 / 16064) < 20_000 + rig.gaps[0][2] * 62
    assert abs(us - rig.world.now_us) < 1_000_000


def test_a_sensor_reset_is_found_and_configured_anew():
    rig = Rig("iis3dwb")
    rig.run(0.5)
    rig.twin.power_dip()
    rig.run(1)
    rig.capture.stop()
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_SENSOR_RESET]
    assert rig.holes() == [rig.gaps[0][:2]]
    assert rig.twin.refusals == []


def test_misaligned_fifo_pointers_are_found():
    rig = Rig()
    rig.twin.quirks["misalign_every"] = 40
    rig.run(1)
    rig.capture.stop()
    assert {g[3] for g in rig.gaps} == {Gap.CAUSE_AXIS_BREAK}
    assert frame_pb2.FRAME_FLAG_AXIS_RESYNC in {int(f["flags"]) for f in rig.frames}
    for item in rig.frames:  # no frame has a swapped axis
        assert int(item["maximum"][2]) <= 1


def test_blocked_says_why():
    rig = Rig()
    rig.run(0.3)
    rig.capture.blocked = True
    rig.stall(4)
    rig.run(0.3)
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_BLOCKED]


def test_configuration_change_closes_the_frame():
    rig = Rig(ppm=1000)
    rig.run(0.35)
    rig.capture.configure(2, 15, 32000, decimation=50)
    rig.fifo_us /= 2
    rig.run(0.3)
    rig.capture.stop()
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_CONFIG]
    configs = [(int(f["config"]), int(f["decimation"])) for f in rig.frames]
    assert configs == sorted(configs)
    assert {(1, 160), (2, 50)} == set(configs)
    assert rig.frames[-1]["scale_g"] == np.float32(500e-6)
    assert rig.frames[-1]["rate_hz"] == pytest.approx(32032, rel=1e-4)
    times = [int(f["time_us"]) for f in rig.frames]
    assert times == sorted(times)


def test_settings_are_refused_before_anything_changes():
    rig = Rig()
    rig.run(0.2)
    for bad in ((1, 77, 16000), (1, 15, 123), (1, 15, 16000, 20_000), (1, 15, 16000, 0, 3)):
        with pytest.raises(BadSetting):
            rig.capture.configure(*bad)
    rig.run(0.2)
    rig.capture.stop()
    assert rig.gaps == []
    fresh = Capture(rig.part, rig.clock, lambda: 0, 1, 1, None, None)
    with pytest.raises(BadSetting):
        fresh.start()


@pytest.mark.parametrize("broken", ["configure", "self_test"])
def test_what_the_part_does_not_take_leaves_the_old_in_force(broken):
    rig = Rig()
    rig.run(0.3)
    rig.bus.faults.fail = 1
    with pytest.raises(OSError, match="5"):
        rig.capture.configure(2, 15, 32000, decimation=50) if broken == "configure" else rig.capture.self_test()
    rig.run(0.5)
    rig.capture.stop()
    assert len(rig.gaps) == 1
    assert {(int(f["config"]), int(f["decimation"]), float(f["scale_g"])) for f in rig.frames} == {
        (1, 160, float(np.float32(0.002)))
    }
    assert rig.frames[-1]["rate_hz"] == pytest.approx(16000, rel=1e-4)
    assert int(rig.frames[-1]["samples"]) > 0


@pytest.mark.parametrize("name", ["adxl382", "iis3dwb"])
@pytest.mark.parametrize("what", ["configure", "self_test"])
def test_a_transfer_that_fails_at_any_point_of_a_change_does_not_end_the_capture(name, what):
    """Each transfer of the change in turn: what was in force is in force again, without the self-test's deflection."""
    count = 0
    while True:
        rig = Rig(name, source=lambda first, count: np.zeros((count, 3), np.int32))
        rig.run(0.1)
        transfers = [0]
        spi = rig.bus.write_readinto

        def counted(tx, rx, transfers=transfers, spi=spi, at=count):
            transfers[0] += 1
            if transfers[0] == at + 1:
                raise OSError(5, "input/output error")
            spi(tx, rx)

        rig.bus.write_readinto = counted
        settings = rig.part.settings()
        try:
            rig.capture.configure(2, rig.part.RANGES_G[0], settings[1]) if what == "configure" else rig.capture.self_test()
        except OSError:
            assert rig.part.settings() == settings
        rig.bus.write_readinto = spi
        sent = len(rig.sent)
        rig.run(0.5)
        assert len(rig.sent) >= sent + 2, count
        assert int(rig.frames[-1]["maximum"][0]) == 0, "deflected"
        assert rig.part.recover() is False, "registers are not those of the configuration"
        if transfers[0] <= count:
            break
        count += 1 if count < 12 else 7
    assert count > 10


def test_stop_and_start_is_a_gap():
    rig = Rig(ppm=2000)
    rig.run(0.3)
    rig.capture.stop()
    sent = len(rig.sent)
    rig.world.advance(2_000_000)
    rig.capture.start()
    rig.run(0.3)
    rig.capture.stop()
    assert len(rig.sent) > sent
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_CONFIG]
    assert rig.gaps[0][1] == pytest.approx(2 * 16032, abs=100)
    assert frame_pb2.FRAME_FLAG_RATE_SUSPECT not in {int(f["flags"]) for f in rig.frames}


def test_self_test_is_a_gap_with_registers_as_before():
    rig = Rig(source=lambda first, count: np.zeros((count, 3), np.int32))
    rig.run(0.3)
    before = bytes(rig.twin.registers[0x26:0x5F])
    assert rig.capture.self_test() == PASS
    assert bytes(rig.twin.registers[0x26:0x5F]) == before
    rig.run(0.3)
    rig.capture.stop()
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_SELF_TEST]
    assert rig.gaps[0][1] == pytest.approx(16000 * 0.55, rel=0.2)
    assert rig.twin.refusals == []


def test_saturation_is_flagged():
    rig = Rig(source=lambda first, count: np.full((count, 3), 32767 if first else 5, np.int32))
    rig.run(0.4)
    rig.capture.stop()
    assert {int(f["flags"]) for f in rig.frames} >= {frame_pb2.FRAME_FLAG_SATURATED}


def test_a_rate_out_of_tolerance_is_suspect():
    for ppm, flags in ((20_000, 0), (60_000, frame_pb2.FRAME_FLAG_RATE_SUSPECT)):
        rig = Rig(ppm=ppm)
        rig.run(1)
        assert int(rig.frames[-1]["flags"]) == flags
        assert rig.frames[-1]["rate_hz"] == pytest.approx(16000 * (1 + ppm / 1e6), rel=2e-4)


def test_samples_lost_in_transactions_make_the_rate_suspect():
    rig = Rig()
    rig.twin.quirks["lose_in_transaction"] = 1
    rig.run(1)
    assert rig.twin.truth.lost > 0
    assert frame_pb2.FRAME_FLAG_RATE_SUSPECT in {int(f["flags"]) for f in rig.frames[3:]}


def test_test_pattern_follows_the_sample_number():
    rig = Rig("iis3dwb", values=40)
    rig.capture.stop()
    rig.capture.configure(2, 2, 26667, decimation=1, test_pattern=True)
    rig.capture.start()
    rig.run(0.05)
    rig.stall(2)
    rig.run(0.05)
    for item in rig.frames:
        index = (int(item["first_sample"]) + np.arange(int(item["samples"]))) % 1000
        assert item["flags"] & frame_pb2.FRAME_FLAG_TEST_PATTERN
        if "x" in item.dtype.names:
            assert item["x"].tolist() == index.tolist()
            assert item["y"].tolist() == (-index).tolist()
            assert item["z"].tolist() == np.where(index == 0, 1000, 0).tolist()


def test_decimation_one_is_every_count():
    rig = Rig("iis3dwb", decimation=1, values=100)
    rig.run(0.05)
    rig.capture.stop()
    values = np.concatenate([np.stack([f["x"], f["y"], f["z"]], 1) for f in rig.frames])
    assert np.array_equal(values, ramp(0, len(values)))


@pytest.mark.parametrize("name", ["iis3dwb", "adxl355"])
def test_raw_capture_has_every_count_for_the_time_asked(name):
    rig = Rig(name, odr_hz=None if name == "iis3dwb" else 4000)
    rig.run(0.25)
    rig.capture.start_raw(RawEncoder(5, 6, 128, rig.part.COUNT_BITS), 77, 120, rig.emit_raw)
    assert rig.capture.raw_running()
    rig.run(0.05)
    rig.stall(2)
    rig.run(0.3)
    assert not rig.capture.raw_running()
    epoch = rig.twin.epoch
    rig.capture.stop()
    ends = []
    for k, data in enumerate(rig.raw):
        message = frame_pb2.RawFrame.FromString(data)
        first = message.first_sample
        counts = np.cumsum(np.stack([message.x, message.y, message.z], 1), axis=0)
        assert len(counts) == message.samples <= 128
        assert message.sequence == k
        assert message.capture == 77
        assert message.device == 5
        lost = sum(g[1] for g in rig.gaps if g[0] <= first)
        assert np.array_equal(counts, ramp(first, len(counts))) or lost
        expected = message.SerializeToString(deterministic=True)
        assert data == expected
        ends.append((first, first + message.samples))
        assert message.time_us == pytest.approx(epoch.time_of(first + 1), abs=1000)
    missing = [(a[1], b[0] - a[1]) for a, b in pairwise(ends) if b[0] != a[1]]
    assert missing == [g[:2] for g in rig.gaps]
    total = sum(b - a for a, b in ends)
    assert total == int(0.12 * rig.odr_hz) + 1


def test_adxl382_with_temperature():
    rig = Rig(temperature=True)
    rig.twin.temperature_c = 41.0
    rig.run(0.6)
    rig.stall(2.2)
    rig.run(0.6)
    rig.capture.stop()
    assert rig.part.FIFO_SETS == 80
    assert [g[3] for g in rig.gaps] == [Gap.CAUSE_FIFO_OVERRUN]
    assert int(rig.frames[-1]["temperature_mc"]) == pytest.approx(41_000, abs=100)
    assert rig.twin.refusals == []


def test_temperature_is_in_the_frame_or_not_measured():
    rig = Rig("iis3dwb")
    rig.twin.temperature_c = -12.5
    rig.run(0.3)
    assert int(rig.frames[-1]["temperature_mc"]) == -12_500
    rig = Rig("adxl345", odr_hz=3200)
    rig.run(0.3)
    assert rig.capture.temperature_mc == NOT_MEASURED
    assert int(rig.frames[-1]["temperature_mc"]) == wire.NO_TEMPERATURE


def test_health():
    rig = Rig()
    rig.run(0.1)
    rig.stall(0.9)
    rig.poll()
    assert rig.capture.high_water >= 0.85 * rig.part.FIFO_SETS
    assert rig.capture.worst_gap_us == pytest.approx(0.9 * rig.fifo_us, rel=0.1)
    assert rig.capture.bus_errors == rig.capture.overruns == rig.capture.gaps == 0
