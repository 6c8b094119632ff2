"""Goals D1 to D3: the static detector."""

import re

import numpy as np
import pytest
from triax_tools.calibrate import pose, rest, simulate

RATE = 100.0  # of frame sums


def roll(start, count, rng):
    """0.5 degrees a second about a horizontal axis."""
    axis = np.cross(start, rng.normal(size=3))
    axis /= np.linalg.norm(axis)
    angle = np.radians(0.5) * np.arange(count) / RATE
    return np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * np.cross(axis, start)


def disturbance(kind, direction, rng):
    """Motion that ends a rest, as samples around `direction`."""
    if kind == "tremor":
        count = int(rng.uniform(1, 4) * RATE)
        return simulate.hold(direction, count) + simulate.tremor(count, RATE, rng.uniform(5e-3, 20e-3), rng)
    if kind == "tap":
        ring = np.exp(-np.arange(12) / 3) * np.cos(np.arange(12) * 2.1)
        return simulate.hold(direction, 12) + ring[:, None] * rng.normal(size=3) * rng.uniform(0.02, 0.3)
    return roll(direction, int(rng.uniform(3, 8) * RATE), rng)


def day_of_rests(count, seed):
    """A recording with `count` rests of 2.6 to 15 s and every kind of motion between; also the true spans."""
    rng = np.random.default_rng(seed)
    unit = simulate.draw_unit(rng, rate_hz=RATE)
    parts, truth, at = [], [], 0
    direction = simulate.hand_poses(pose.CELLS[:1], rng)[0]
    for _ in range(count):
        length = int(rng.uniform(2.6, 15) * RATE)
        parts.append(simulate.hold(direction, length))
        truth.append((at, at + length))
        at += length
        kind = rng.choice(["tremor", "tap", "roll", "turn"])
        if kind == "turn":
            after = simulate.hand_poses(pose.CELLS[[rng.integers(18)]], rng)[0]
            motion = simulate.move(direction, after, int(rng.uniform(0.8, 3) * RATE), RATE, rng)
            direction = after
        else:
            motion = disturbance(kind, direction, rng)
            direction = motion[-1] / np.linalg.norm(motion[-1]) if kind == "roll" else direction
        parts.append(motion)
        at += len(motion)
    return unit.read(np.concatenate(parts), rng), truth


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_d1_no_accepted_window_overlaps_a_motion(seed):
    counts, truth = day_of_rests(200, seed)
    scale = 1 / simulate.COUNTS_PER_G
    spans = rest.find(counts * scale, RATE, lsb_g=scale)
    accepted = [r for r in (rest.measure(counts, span, RATE, scale) for span in spans) if isinstance(r, rest.Rest)]
    inside = [any(a <= r.start and r.stop <= b for a, b in truth) for r in accepted]
    assert all(inside), [(r.start, r.stop) for r, ok in zip(accepted, inside, strict=True) if not ok]
    long = [(a, b) for a, b in truth if b - a >= 3 * RATE]
    found = sum(any(a <= r.start and r.stop <= b for r in accepted) for a, b in long)
    assert found >= 0.97 * len(long)


def test_d2_creep_is_rejected_with_its_amount():
    rng = np.random.default_rng(21)
    unit = simulate.draw_unit(rng, rate_hz=RATE)
    creep = np.outer(np.linspace(0, 2e-3, 1000), [0, 1, 0])
    counts = unit.read(simulate.hold(np.array([0, 0, 1.0]), 1000) + creep, rng)
    # The trimmed 8.5 s of the 10 show their share of the 2 mg.
    found = rest.measure(counts, (0, 1000), RATE, 1 / simulate.COUNTS_PER_G)
    assert isinstance(found, rest.Rejected)
    assert found.moved_g == pytest.approx(2e-3 * 0.85, rel=0.1)
    assert re.match(r"moved by 1\.[678] mg in 8 s", found.reason)
    assert "hold again" in found.reason


def test_d2_a_still_pose_passes():
    rng = np.random.default_rng(22)
    unit = simulate.draw_unit(rng, rate_hz=RATE)
    counts = unit.read(simulate.hold(np.array([0, 0, 1.0]), 1000), rng)
    found = rest.measure(counts, (0, 1000), RATE, 1 / simulate.COUNTS_PER_G)
    assert isinstance(found, rest.Rest)
    assert found.stop - found.start == 850


@pytest.mark.parametrize("sigma", [0.2, 0.3, 0.45])
def test_d3_undithered_means_are_biased_by_no_more_than_stated(sigma):
    rng = np.random.default_rng(31)
    levels = np.linspace(0, 1, 41)
    bias = [np.rint(level + rng.normal(0, sigma, 20000)).mean() - level for level in levels]
    stated = rest.dithering_error(np.array([sigma]))[0]
    assert np.max(np.abs(bias)) <= stated * 1.05 + 4 * sigma / np.sqrt(20000) + 0.005
    assert np.max(np.abs(bias)) >= stated * 0.9 - 0.02


def test_d3_warns_below_half_a_count():
    warned, error = rest.undithered(np.array([0.2, 0.6, 0.0]))
    assert warned == [0, 2]
    assert error == pytest.approx([np.exp(-2 * np.pi**2 * 0.04) / np.pi, 0, 1 / np.pi])


def test_a_long_rest_that_drifts_is_its_end():
    rng = np.random.default_rng(23)
    unit = simulate.draw_unit(rng, rate_hz=RATE)
    warming = np.outer(4e-3 * (1 - np.exp(-np.arange(12_000) / 2000)), [0, 0, 1])
    counts = unit.read(simulate.hold(np.array([0, 0, 1.0]), 12_000) + warming, rng)
    found = rest.measure(counts, (0, 12_000), RATE, 1 / simulate.COUNTS_PER_G)
    assert isinstance(found, rest.Rest)
    assert (found.start, found.stop) == (9950, 11_950)


def test_a_gap_is_never_bridged():
    rng = np.random.default_rng(41)
    unit = simulate.draw_unit(rng, rate_hz=RATE)
    counts = unit.read(simulate.hold(np.array([1.0, 0, 0]), 2000), rng)
    scale = 1 / simulate.COUNTS_PER_G
    assert rest.find(counts * scale, RATE, starts=(0, 700), lsb_g=scale) == [(0, 700), (700, 2000)]


def test_shorter_than_a_window_is_nothing():
    assert rest.find(np.zeros((50, 3)), RATE) == []
