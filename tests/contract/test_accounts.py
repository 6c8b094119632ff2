"""The node's capture on every part: what it says is lost against what the part knows is lost.

A stall of 0.9 of the FIFO time loses nothing. Past it the stated loss may differ from the part's own counter by at most
2 + ODR x jitter + gap x rate error samples, where jitter is the longest time that may pass between a poll's clock reading and its
look at the FIFO.
"""

import numpy as np
import pytest
from triax.capture import Capture
from triax.clock import SampleClock
from triax_proto.frame import parse
from triax_proto.v1.frame_pb2 import FRAME_FLAG_RATE_SUSPECT

from .conftest import pairs_with

PPM = 8_000.0  # the oscillator's error: inside each part's tolerance
JITTER_US = 100
TOLERANCE = 2


class Node:
    """A rig with the node's capture; keeps frames and gaps."""

    def __init__(self, rig, seed=1):
        self.rig, self.world, self.twin, self.part = rig, rig.world, rig.twin, rig.part
        self.frames, self.gaps = [], []
        self.rng = np.random.default_rng(seed)
        self.clock = SampleClock(self.world.ticks_us())
        self.capture = Capture(self.part, self.clock, self.world.ticks_us, 1, 1, self._emit, self._gap)
        self.part.check()
        self.part.reset()
        rate = next(hz for hz in sorted(rig.driver.ODRS_HZ, reverse=True) if hz <= min(rig.fastest_hz(), 27_000))
        self.capture.configure(1, rig.driver.RANGES_G[-1], rate)
        self.capture.start()
        self.fifo_us = self.part.FIFO_SETS * rig.period_us

    def _emit(self, buffer, length):
        self.frames.append(bytes(buffer[:length]))

    def _gap(self, first_sample, length, bound, cause):
        self.gaps.append((length, bound, cause))

    def poll(self):
        """One poll; something else may run between its look at the clock and its look at the FIFO."""
        now = self.world.ticks_us()
        self.world.advance(int(self.rng.integers(0, JITTER_US)))
        self.capture.poll(now)

    def drain(self):
        """Poll until little is left, as a loop does that polls again at once."""
        for _ in range(4):
            self.poll()

    def run(self, fifos):
        """Poll regularly for so many FIFO times, and drain."""
        for _ in range(int(fifos / 0.3)):
            self.world.advance(int(0.3 * self.fifo_us))
            self.poll()
        self.drain()

    def run_ms(self, ms):
        """Poll regularly for at least so long. A second gap within 100 ms of the first costs the node the frame between them."""
        self.run(max(2.0, ms * 1000 / self.fifo_us))

    def stated(self):
        return sum(length for length, _, _ in self.gaps)

    def contiguous(self):
        """Frames decoded; their numbers leave no room for what no gap told."""
        parsed = [parse(data) for data in self.frames]  # short ones have another layout
        names = ("sequence", "first_sample", "samples", "time_us", "flags")
        frames = {name: np.array([int(frame[name][0]) for frame in parsed]) for name in names}
        ends = frames["first_sample"] + frames["samples"]
        holes = frames["first_sample"][1:] - ends[:-1]
        assert (holes >= 0).all()
        assert int(holes.sum()) + int(frames["first_sample"][0]) <= self.stated()
        assert frames["sequence"].tolist() == list(range(len(parsed)))
        return frames

    def times_follow_numbers(self):
        """Stop; the times of the frames are those of their samples' numbers at the true rate, over all gaps."""
        true_hz = self.twin.epoch.rate_uhz / 1e6
        self.capture.stop()
        frames = self.contiguous()
        seconds = (frames["time_us"] - frames["time_us"][0]) / 1e6
        by_number = (frames["first_sample"] - frames["first_sample"][0]) / true_hz
        assert np.abs(seconds - by_number).max() < 1e-3 + 3 / true_hz


@pytest.fixture
def node(make_rig):
    return Node(make_rig(ppm=PPM))


def test_stalls_of_nine_tenths_lose_nothing(node):
    node.run(30)
    for _ in range(8):
        node.world.advance(int(0.9 * node.fifo_us))
        node.drain()
    node.run(5)
    assert node.gaps == []
    truth = node.twin.truth
    assert truth.lost == 0
    assert node.capture.overruns == 0
    node.capture.stop()
    frames = node.contiguous()
    assert int(frames["samples"].sum()) == int.from_bytes(node.capture.samples, "little")


@pytest.mark.parametrize("fifos", [1.3, 2.0, 5.7, 40.0])
def test_the_stated_loss_is_the_true_one(node, fifos):
    node.run(60)
    true_hz = node.twin.epoch.rate_uhz / 1e6
    for _ in range(5):
        rate_error = abs(node.clock.rate_mhz() / 1000 / true_hz - 1)
        before, gaps = node.twin.truth.lost, len(node.gaps)
        node.world.advance(int(fifos * node.fifo_us))
        node.drain()
        node.run_ms(120)
        told = node.gaps[gaps:]
        lost = node.twin.truth.lost - before
        assert lost > 0
        stated = sum(length for length, _, _ in told)
        allowed = TOLERANCE + true_hz * JITTER_US / 1e6 + fifos * node.part.FIFO_SETS * rate_error
        assert abs(stated - lost) <= allowed, f"stated {told}, true {lost}"
        bound = sum(b for _, b, _ in told)
        assert abs(stated - lost) <= bound + TOLERANCE, f"the bound is too narrow: stated {told}, true {lost}"
    node.capture.stop()
    assert (node.contiguous()["flags"] & 1).sum() >= 5


def test_a_reconfiguration_costs_what_it_says(node):
    """The samples that nobody made while the part stood still are a gap of time, not of the part: frames' times must not slip."""
    node.run(60)
    node.capture.configure(2, node.rig.driver.RANGES_G[0], node.part.odr_hz)
    node.run(60)
    assert len(node.gaps) == 1
    node.times_follow_numbers()


@pytest.mark.parametrize("pair", pairs_with("misalign_every"), ids="-".join)
def test_a_pointer_out_of_step_is_found_and_told(node):
    node.run(30)
    node.twin.quirks["misalign_every"] = 40
    node.run(120)
    node.twin.quirks.clear()
    node.run(3)
    node.capture.stop()
    truth = node.twin.truth
    assert truth.dropped > 5
    assert {cause for _, _, cause in node.gaps} == {3}
    assert len(node.gaps) >= truth.dropped * 0.8
    node.contiguous()


@pytest.mark.parametrize("pair", pairs_with("no_overrun_flag"), ids="-".join)
def test_an_overrun_that_no_flag_tells_is_told(node):
    node.twin.quirks["no_overrun_flag"] = 1
    node.run(60)
    node.world.advance(int(3 * node.fifo_us))
    node.drain()
    node.run_ms(120)
    lost = node.twin.truth.lost
    assert lost > 0
    bound = sum(b for _, b, _ in node.gaps)
    assert abs(node.stated() - lost) <= bound + TOLERANCE
    node.times_follow_numbers()


@pytest.mark.parametrize("pair", pairs_with("lose_in_transaction"), ids="-".join)
def test_samples_lost_without_a_trace_make_the_rate_suspect(node):
    node.twin.quirks["lose_in_transaction"] = 1
    node.run(300)
    truth = node.twin.truth
    assert truth.dropped > 0.05 * truth.made
    node.capture.stop()
    assert (node.contiguous()["flags"] & FRAME_FLAG_RATE_SUSPECT).any()


@pytest.mark.parametrize("pair", pairs_with("lose_at_cycle"), ids="-".join)
def test_samples_lost_when_the_fifo_is_cycled_are_in_the_gap(node):
    node.twin.quirks["lose_at_cycle"] = 3
    node.run(60)
    node.capture.configure(2, node.rig.driver.RANGES_G[0], node.part.odr_hz)
    node.run(20)
    assert node.twin.truth.dropped == 3
    node.times_follow_numbers()
