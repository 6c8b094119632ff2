"""The sample clock against simulated polls: rate, spacing and UTC within what it says of itself."""

import random
import statistics
import struct
from array import array
from itertools import pairwise

import pytest
from triax import frame, kernels_plain
from triax.clock import SampleClock, ticks_diff
from triax.errors import BadSetting

from .small import Small, small

WRAP = 2**30
UTC_AT_BOOT = 1_700_000_000_000_000
TURN_ON_US = 10_000


class Polls:
    """Polls of a part with an oscillator error, one-sided delays and stalls; frames of 100 ms are stamped as they fill."""

    def __init__(self, seed, odr_hz=16000, fifo_sets=106, ppm=None, crystal_ppm=0.0, tolerance=50_000, start=None):
        self.rng = random.Random(seed)
        self.odr_hz = odr_hz
        self.fifo_us = 1e6 * fifo_sets / odr_hz
        self.true_hz = odr_hz * (1 + (self.rng.uniform(-2e4, 2e4) if ppm is None else ppm) / 1e6)
        self.phase = self.rng.random()
        self.asymmetry = self.rng.random()
        self.crystal = 1 + crystal_ppm / 1e6
        self.start = self.rng.randrange(WRAP) if start is None else start
        self.now_us = 0.0  # true time since boot
        self.made = 0
        self.clock = SampleClock(self.start)
        self.clock.configure(odr_hz, tolerance, 0)
        self.frames = []  # (true time of the first sample, time, error or None, has UTC)
        self.next_frame = 0
        self.buffer = bytearray(frame.HEADER)

    def ticks(self, true_us):
        return (self.start + int(true_us * self.crystal)) % WRAP

    def due(self, true_us):
        return max(0, int((true_us - TURN_ON_US) * self.true_hz / 1e6 - self.phase))

    def time_of(self, number):
        """True time of the number-th sample, from 1."""
        return (number + self.phase) * 1e6 / self.true_hz + TURN_ON_US

    def poll(self, jitter_us=1000):
        rng = self.rng
        before = self.now_us
        latch = before + rng.uniform(0, 50)
        after = latch + rng.uniform(0, 50) + rng.uniform(0, jitter_us)
        made = self.due(latch)
        self.clock.observe(made - self.made, self.ticks(before), self.ticks(after))
        self.made = made
        self.now_us = after
        self._stamp()

    def _stamp(self):
        step = int(self.odr_hz / 10)
        while self.next_frame + step <= self.made:
            first = self.next_frame + 1
            self.clock.put_time(self.buffer, first - self.made)
            (time_us,) = struct.unpack_from("<q", self.buffer, frame.TIME_US)
            (error,) = struct.unpack_from("<I", self.buffer, frame.TIME_ERROR_US)
            self.frames.append((self.time_of(first), time_us, error))
            self.next_frame += step

    def run(self, seconds, jitter_us=1000, sync=None):
        """`sync(self)` is called about every 16 s."""
        end = self.now_us + 1e6 * seconds
        synced = self.now_us + 1.5e6
        while self.now_us < end:
            share = self.rng.uniform(0.03, 0.3) if self.rng.random() < 0.97 else 0.9
            self.now_us += share * self.fifo_us
            if sync and self.now_us > synced:
                sync(self)
                synced += 16e6
            self.poll(jitter_us)

    def rate_hz(self):
        return struct.unpack_from("<f", self.buffer, frame.RATE_HZ)[0]


def lopsided(polls):
    """An exchange over a path whose two ways differ by a share that the run keeps, from all there to all back: the error is up to
    half of the round trip, and that is what the node knows."""
    exchange(polls, polls.asymmetry, polls.rng.uniform(3000, 12_000))


def changing(polls):
    """The share is another one each time."""
    exchange(polls, polls.rng.random(), polls.rng.uniform(3000, 12_000))


def queued(polls):
    """Each way has a queue of its own."""
    there, back = polls.rng.expovariate(1 / 2000), polls.rng.expovariate(1 / 2000)
    exchange(polls, there / (there + back), there + back)


def exchange(polls, share, trip_us):
    utc = UTC_AT_BOOT + polls.now_us + (share - 0.5) * trip_us
    polls.clock.set_utc(polls.ticks(polls.now_us), round(utc), int(trip_us / 2) + 2)


PARTS = [(16000, 106), (26667, 512), (4000, 32), (1000, 170)]


@pytest.mark.parametrize(("odr_hz", "fifo_sets"), PARTS)
def test_rate_and_spacing_after_a_minute(odr_hz, fifo_sets):
    for seed in range(3):
        polls = Polls(seed, odr_hz, fifo_sets)
        polls.run(60)
        assert polls.rate_hz() == pytest.approx(polls.true_hz, rel=5e-6)
        assert polls.clock.rate_mhz() == pytest.approx(1000 * polls.true_hz, rel=5e-6)
        spacing = [(b[1] - a[1]) - (b[0] - a[0]) for a, b in pairwise(polls.frames)]
        assert max(map(abs, spacing)) < 1000
        assert not polls.clock.suspect
        assert {error for _, _, error in polls.frames} == {0xFFFFFFFF}  # no UTC yet
        assert max(abs(time - true) for true, time, _ in polls.frames) < 1000 + 1e6 / odr_hz


def utc_of_runs(seeds, seconds, sync):
    """Median bound over median error of all frames of these runs; each bound must hold."""
    errors, bounds = [], []
    for seed in seeds:
        polls = Polls(seed, *PARTS[seed % 4], crystal_ppm=random.Random(seed).uniform(-20, 20))
        polls.run(seconds, sync=sync)
        for true, time, bound in polls.frames:
            if bound != 0xFFFFFFFF:
                errors.append(abs(time - UTC_AT_BOOT - true))
                bounds.append(bound)
                assert errors[-1] <= bound
        if seconds >= 60:
            assert polls.rate_hz() == pytest.approx(polls.true_hz / polls.crystal, rel=5e-6)
    return statistics.median(bounds) / statistics.median(errors)


def test_utc_within_its_bound_always_and_the_bound_is_no_excuse():
    assert utc_of_runs(range(40), 50, lopsided) <= 3


@pytest.mark.parametrize("sync", [changing, queued])
def test_utc_within_its_bound_whatever_the_two_ways_do(sync):
    utc_of_runs(range(8), 50, sync)


@pytest.mark.slow
@pytest.mark.parametrize("sync", [lopsided, changing, queued])
def test_utc_within_its_bound_in_many_runs(sync):
    """The factor has a floor: ways of independent delays d, e tell an interval of (d + e) / 2 and an error of (d - e) / 2, so one
    exchange alone gives 2.4 where they are exponential and 3.4 where they are uniform from 0."""
    assert utc_of_runs(range(1000, 1200), 60, sync) <= 3


def test_ticks_wrap_and_hours_pass():
    polls = Polls(5, 26667, 512, start=WRAP - 1_000_000)
    polls.run(3)
    for _ in range(3):  # three times 8 minutes in steps of 100 ms: over the wrap of ticks and past the rebasing
        for _ in range(4800):
            polls.now_us += 100_000
            polls.poll()
    true, time, _ = polls.frames[-1]
    assert abs(time - true) < 200
    assert polls.now_us > 1.3 * WRAP
    assert polls.clock.since_boot_us(polls.ticks(polls.now_us)) == pytest.approx(polls.now_us, abs=2)


def test_nothing_leaves_31_bits(monkeypatch):
    """The whole clock on checked ints: start, minutes of polls, a gap, UTC, rebasing, a dead quarter of an hour."""
    for module in ("clock", "utc"):
        monkeypatch.setattr(f"triax.{module}.kernels", kernels_plain)
    for odr_hz, fifo_sets in ((16000, 106), (64000, 106), (1.5625, 256)):
        polls = Polls(6, odr_hz, fifo_sets, start=WRAP - 5_000_000)
        clock = polls.clock
        for name, value in vars(clock).items():
            if isinstance(value, array):
                setattr(clock, name, small(value))
            elif type(value) is int:
                setattr(clock, name, Small(value))
        ticks = polls.ticks
        polls.ticks = lambda us, ticks=ticks: Small(ticks(us))
        polls.buffer = small(polls.buffer)
        polls._stamp = lambda polls=polls, clock=clock: clock.put_time(polls.buffer, Small(-20)) if polls.made > 30 else None
        for _ in range(60):
            polls.now_us += 0.5 * polls.fifo_us
            polls.poll()
        for _ in range(70):
            polls.now_us += 6_000_000
            polls.poll()
        utc = polls.clock.utc
        utc._age = utc._age_us = 0  # `set` may use large ints
        for offset in (0, 300, 500):
            utc.set(1_700_000_000_000_000 + offset, 5000)
            utc.pass_time(16_000_000)
        for name in ("_error", "_age", "_age_us", "_crystal", "_rate", "_rate_error", "_lag"):
            setattr(utc, name, Small(getattr(utc, name)))
        for _ in range(16):  # dead
            polls.now_us += 60_000_000
            clock.advance(polls.ticks(polls.now_us))
        assert clock.newest(polls.ticks(polls.now_us), polls.ticks(polls.now_us + 50)) > 0
        clock.restart()
        polls.made = polls.due(polls.now_us)
        for _ in range(10):
            polls.now_us += 0.5 * polls.fifo_us
            polls.poll()
        assert clock.put_time(polls.buffer, Small(-1)) is None


def test_ticks_diff_over_the_wrap():
    assert ticks_diff(5, WRAP - 5) == 10
    assert ticks_diff(WRAP - 5, 5) == -10
    assert ticks_diff(WRAP // 2 - 1, 0) == WRAP // 2 - 1


def test_clock_fix_puts_frames_without_utc_on_the_right_time():
    polls = Polls(7, crystal_ppm=15)
    polls.run(5)
    early = list(polls.frames)
    lopsided(polls)
    offset, error = polls.clock.fix()
    assert polls.clock.utc.known()
    for true, time, bound in early:
        assert bound == 0xFFFFFFFF
        assert abs(time + offset - UTC_AT_BOOT - true) <= error + 200
    polls.run(2)
    true, time, bound = polls.frames[-1]
    assert abs(time - UTC_AT_BOOT - true) <= bound < 20_000


def test_an_agreeing_correction_is_slewed():
    polls = Polls(8)
    polls.clock.set_utc(polls.ticks(0), UTC_AT_BOOT + 80_000, 100_000)  # a bad first exchange
    polls.run(2)
    polls.clock.set_utc(polls.ticks(polls.now_us), round(UTC_AT_BOOT + polls.now_us), 1000)
    polls.run(60)
    assert not polls.clock.utc.stepped
    late = polls.frames[10:]
    spacing = [(b[1] - a[1]) - (b[0] - a[0]) for a, b in pairwise(late)]
    assert max(map(abs, spacing)) < 1000
    assert all(abs(time - UTC_AT_BOOT - true) <= bound for true, time, bound in polls.frames)
    assert polls.frames[-1][2] < 5000


@pytest.mark.parametrize("step_us", [3_600_000_000, -3_600_000_000])
def test_a_step_is_taken_and_told(step_us):
    polls = Polls(9)
    polls.clock.set_utc(polls.ticks(0), UTC_AT_BOOT, 1000)
    polls.run(3)
    polls.clock.set_utc(polls.ticks(polls.now_us), round(UTC_AT_BOOT + polls.now_us) + step_us, 1000)
    assert polls.clock.utc.stepped
    polls.run(1)
    true, time, _ = polls.frames[-1]
    assert abs(time - UTC_AT_BOOT - step_us - true) < 2000
    assert polls.rate_hz() == pytest.approx(polls.true_hz, rel=1e-4)  # the rate knows nothing of it


def test_a_gap_gives_a_new_line_and_never_bends_the_old_one():
    polls = Polls(10, 26667, 512)
    polls.run(20)
    rate = polls.clock.rate_mhz()
    made = polls.made
    polls.now_us += 1_234_567.0
    before = polls.now_us
    now = polls.due(before)
    told = polls.clock.newest(polls.ticks(before), polls.ticks(before + 60))
    assert abs(told - (now - made)) <= max(1, polls.clock.bound)
    assert polls.clock.bound <= 3
    polls.clock.restart()
    assert polls.clock.rate_mhz() == rate
    polls.made = now - 50  # 50 sets were found: the new segment begins with them
    polls.next_frame = polls.made
    polls.poll()
    polls.run(10)
    true, time, _ = polls.frames[-1]
    assert abs(time - true) < 200
    assert polls.clock.rate_mhz() == pytest.approx(1000 * polls.true_hz, rel=5e-6)


def test_one_wrong_level_is_ignored_and_a_lasting_one_begins_a_new_line():
    polls = Polls(11)
    polls.run(10)
    polls.made += 64  # a flipped bit: 64 sets less than there are
    polls.poll()
    polls.made -= 64
    polls.poll()
    assert not polls.clock.contradicted
    polls.run(1)
    true, time, _ = polls.frames[-1]
    assert abs(time - true) < 1000
    polls.made += 400  # 400 samples vanish without a word
    polls.run(1)
    assert polls.clock.contradicted


def test_a_rate_out_of_tolerance_is_suspect_and_still_measured():
    for ppm, suspect in ((15_000, False), (-60_000, True), (60_000, True)):
        polls = Polls(12, ppm=ppm, tolerance=30_000)
        polls.run(10)
        assert polls.clock.suspect is suspect
        assert polls.rate_hz() == pytest.approx(polls.true_hz, rel=1e-4)


@pytest.mark.parametrize("odr_hz", [1, 1.5625, 3.90625, 12.5, 100, 1344, 3200, 32000, 64000])
def test_any_rate_has_a_float(odr_hz):
    clock = SampleClock(0)
    clock.configure(odr_hz, 50_000, 0)
    buffer = bytearray(frame.HEADER)
    clock.observe(1, 0, 10)
    clock.put_time(buffer, 0)
    assert struct.unpack_from("<f", buffer, frame.RATE_HZ)[0] == pytest.approx(odr_hz, rel=1e-6)


def test_delay_of_the_part_is_subtracted():
    times = []
    for delay_us in (0, 700):
        clock = SampleClock(0)
        clock.configure(1000, 50_000, delay_us)
        clock.observe(1, 0, 10)
        buffer = bytearray(frame.HEADER)
        clock.put_time(buffer, 0)
        times.append(struct.unpack_from("<q", buffer, frame.TIME_US)[0])
    assert times[0] - times[1] == 700


def test_rates_that_make_no_sense():
    for odr_hz in (0, -5, 1e7):
        with pytest.raises(BadSetting):
            SampleClock(0).configure(odr_hz, 0, 0)
