"""Goals J1 and J2: two calibrations compared, and a fleet judged from its rests."""

import numpy as np
import pytest
from triax_tools.calibrate import drift, fit, pose, simulate
from triax_tools.calibrate.errors import Refused

COUNTS = simulate.COUNTS_PER_G
SIGMA = 75e-6 / np.sqrt(20)


def capture(unit, rng, standard, shift_g=0.0):
    poses = simulate.hand_poses(pose.CELLS, rng)
    means = unit.model.respond(poses) + rng.normal(0, SIGMA * COUNTS, poses.shape) + np.array([shift_g, 0, 0]) * COUNTS
    return fit.fit(means, standard)


def compare(first, second):
    return drift.difference(first.intrinsic, first.covariance, first.dof, second.intrinsic, second.covariance, second.dof)


def test_j1_unchanged_pairs_pass_and_100_ug_is_flagged(standard):
    unchanged = flagged = named = 0
    for seed in range(100):
        rng = np.random.default_rng(7000 + seed)
        unit = simulate.draw_unit(rng)
        first, second = capture(unit, rng, standard), capture(unit, rng, standard)
        unchanged += not compare(first, second).changed
        moved = compare(first, capture(unit, rng, standard, 100e-6))
        flagged += moved.changed
        named += moved.worst == "offset_x"
    assert unchanged >= 96
    assert flagged >= 95
    assert named >= 95


def test_j1_the_probability_of_unchanged_pairs_is_uniform(standard):
    p = []
    for seed in range(150):
        rng = np.random.default_rng(9000 + seed)
        unit = simulate.draw_unit(rng)
        p.append(compare(capture(unit, rng, standard), capture(unit, rng, standard)).probability)
    assert np.mean(p) == pytest.approx(0.5, abs=0.08)


def fleet_of(count, seed, rests=120):
    """Uncalibrated units in fixed poses over ten weeks: temperature, rest noise, 5 % drifted along gravity, 10 % re-tilted."""
    rng = np.random.default_rng(seed)
    devices, truth = {}, {}
    for k in range(count):
        unit = simulate.draw_unit(rng)
        up = rng.normal(size=3)
        up /= np.linalg.norm(up)
        day = np.sort(rng.uniform(0, 70, rests))
        warm = 25 + 10 * (
            0.6 * np.sin(2 * np.pi * day + rng.uniform(0, 6)) + 0.4 * np.sin(2 * np.pi * day / 35 + rng.uniform(0, 6))
        )
        slope = rng.uniform(-0.5e-3, 0.5e-3, 3)
        a = np.repeat(up[None], rests, axis=0)
        when = rng.uniform(15, 55)
        kind = "drift" if k % 20 == 0 else "tilt" if k % 10 == 1 else "steady"
        if kind == "tilt":
            axis = np.cross(up, rng.normal(size=3))
            axis /= np.linalg.norm(axis)
            a[day >= when] = up * np.cos(np.radians(1)) + np.cross(axis, up) * np.sin(np.radians(1))
        g = unit.model.respond(a) / COUNTS + np.outer(warm - 25, slope) + rng.normal(0, 60e-6, a.shape)
        if kind == "drift":
            g[day >= when] += rng.choice([-1, 1]) * 5e-3 * up
        devices[f"{k:016x}"] = (day * 86400, warm, g)
        truth[f"{k:016x}"] = kind
    return devices, truth


def judge(devices, truth):
    found = {d.device: d for d in drift.fleet(devices)}
    drifted = [k for k, kind in truth.items() if kind == "drift"]
    tilted = [k for k, kind in truth.items() if kind == "tilt"]
    others = [k for k, kind in truth.items() if kind != "drift"]
    assert np.mean(["drift" in found[k].verdict for k in drifted]) >= 0.95
    assert np.mean(["drift" in found[k].verdict for k in others]) < 0.01
    assert np.mean(["drift" in found[k].verdict for k in tilted]) < 0.01
    assert np.mean([found[k].verdict == "offset or tilt" for k in tilted]) >= 0.95
    return found


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_j2_fleet_of_1000(seed):
    judge(*fleet_of(1000, seed))


def test_j2_one_corrupt_unit_does_not_stop_the_run():
    devices, _ = fleet_of(40, 5)
    names = list(devices)
    devices[names[2]] = (np.arange(3.0), np.arange(3.0), np.full((3, 3), np.nan))
    devices[names[3]] = (np.arange(40.0), np.zeros(40), np.zeros((40, 3)))
    devices[names[4]] = (np.arange(40.0), np.zeros(40), "not numbers")
    devices[names[5]] = (np.arange(40.0), np.zeros(39), np.ones((40, 3)))
    found = {d.device: d for d in drift.fleet(devices)}
    assert len(found) == 40
    assert [found[k].verdict for k in names[2:6]] == ["unusable"] * 4
    assert "usable rests" in found[names[2]].note
    assert "no accelerometer at rest" in found[names[3]].note
    assert found[names[0]].verdict == "drift"


def test_a_step_is_not_eaten_by_the_temperature_regression():
    rng = np.random.default_rng(8)
    day = np.arange(60.0)
    warm = np.where(day < 30, 15.0, 35.0) + rng.normal(0, 3, 60)  # summer came together with the drift
    g = np.outer(np.ones(60), [0, 0, 1.0]) + rng.normal(0, 60e-6, (60, 3)) + np.outer(warm - 25, [0, 0, 0.2e-3])
    g[day >= 30] += [0, 0, 5e-3]
    found = drift.device_drift("0" * 16, day * 86400, warm, g)
    assert found.verdict == "drift"
    assert found.along_g == pytest.approx(5e-3, abs=0.5e-3)


def test_too_few_rests_are_refused():
    with pytest.raises(Refused, match="5 usable rests"):
        drift.device_drift("0" * 16, np.arange(5.0), np.zeros(5), np.ones((5, 3)) / np.sqrt(3))
