"""Goals G1 to G3: temperature terms."""

import numpy as np
import pytest
from triax_tools.calibrate import pose, simulate, temperature
from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import intrinsic

COUNTS = simulate.COUNTS_PER_G


def warm_unit(rng):
    base = simulate.draw_unit(rng)
    return simulate.Unit(
        base.model,
        offset_per_c=COUNTS * rng.uniform(-0.5e-3, 0.5e-3, 3),
        gain_per_c=rng.uniform(-200e-6, 200e-6, 3),
    )


@pytest.mark.parametrize("seed", range(6))
def test_g1_ramp_in_one_pose(seed):
    rng = np.random.default_rng(seed)
    unit = warm_unit(rng)
    time = np.arange(0, 1800, 0.1)  # 30 min of 10 Hz means
    warm = 20 + 30 * time / 1800
    sigma = unit.density_g * np.sqrt(10 / 2) * COUNTS
    up = np.repeat([[0.0, 0.0, 1.0]], len(time), axis=0)
    found = temperature.fit_ramp(warm, unit.exact(up, warm) + rng.normal(0, sigma, up.shape), 1 / COUNTS)
    signal = unit.model.respond(up[0]) - unit.model.offset
    truth = unit.offset_per_c + signal * unit.gain_per_c
    assert np.abs(found.slope - truth).max() / COUNTS <= 1e-6
    assert found.slope_sd.max() / COUNTS < 1e-6
    assert found.meaning == ("offset", "offset", "offset or gain")
    assert (found.temperature.low_c, found.temperature.high_c) == pytest.approx((20.25, 49.75), abs=0.3)


def test_g2_gain_and_offset_from_three_temperatures(standard):
    right = 0
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        unit = warm_unit(rng)
        warm = np.repeat([15.0, 30.0, 45.0], 18)
        poses = np.vstack([simulate.hand_poses(pose.CELLS, rng) for _ in range(3)])
        means = unit.exact(poses, warm) + rng.normal(0, 75e-6 / np.sqrt(20) * COUNTS, poses.shape)
        result, terms, errors = temperature.fit_temperatures(means, warm, standard)
        right += (len(terms.offset), len(terms.gain)) == (1, 1)
        if seed < 20 and len(terms.gain) and len(terms.offset):
            assert np.abs(terms.gain[0] - unit.gain_per_c).max() <= 5e-6
            assert np.abs(terms.offset[0] - unit.offset_per_c).max() / COUNTS <= 1e-6
            reference = unit.exact(np.zeros(3), terms.reference_c)
            assert np.abs(result.intrinsic[3:6] - reference).max() / COUNTS < 30e-6
            assert (errors["gain"][0] < 2e-6).all()
    assert right >= 90


def test_g2_curved_offset_is_second_order(standard):
    rng = np.random.default_rng(77)
    unit = warm_unit(rng)
    warm = np.repeat([15.0, 30.0, 45.0], 18)
    poses = np.vstack([simulate.hand_poses(pose.CELLS, rng) for _ in range(3)])
    bend = np.outer((warm - 30) ** 2, [2e-6, -3e-6, 1e-6]) * COUNTS
    means = unit.exact(poses, warm) + bend + rng.normal(0, 75e-6 / np.sqrt(20) * COUNTS, poses.shape)
    _, terms, _ = temperature.fit_temperatures(means, warm, standard)
    assert (len(terms.offset), len(terms.gain)) == (2, 1)
    assert terms.offset[1] / COUNTS == pytest.approx([2e-6, -3e-6, 1e-6], abs=3e-7)


def test_g3_less_than_ten_degrees_are_refused(standard):
    with pytest.raises(Refused, match=r"rose by 8\.0 C: at least 10 C"):
        temperature.fit_ramp(np.linspace(20, 28, 500), np.zeros((500, 3)), 1 / COUNTS)
    with pytest.raises(Refused, match="has no temperature"):
        temperature.fit_ramp(np.full(500, np.nan), np.zeros((500, 3)), 1 / COUNTS)
    with pytest.raises(Refused, match="at least 10 C"):
        temperature.fit_temperatures(np.zeros((18, 3)), np.full(18, 20.0), standard)


def test_a_unit_that_is_turned_in_its_ramp_is_refused():
    up = np.repeat([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], 250, axis=0)
    with pytest.raises(Refused, match="turned by 90 deg"):
        temperature.fit_ramp(np.linspace(20, 40, 500), up * COUNTS, 1 / COUNTS)


def test_g3_outside_the_range_is_clamped_and_flagged():
    terms = temperature.Temperature(30, 15, 45, np.array([[1.0, 2.0, 3.0]]), np.zeros((0, 3)))
    inside, flagged = terms.clamp(np.array([0.0, 15, 30, 50, np.nan]))
    assert inside.tolist() == [15, 15, 30, 45, 30]
    assert flagged.tolist() == [True, False, False, True, True]
    assert terms.terms(inside)[0][3].tolist() == [15, 30, 45]


def test_terms_leave_the_nine_numbers_of_the_reference_temperature(standard):
    rng = np.random.default_rng(6)
    unit = warm_unit(rng)
    warm = np.repeat([15.0, 30.0, 45.0], 18)
    poses = np.vstack([simulate.hand_poses(pose.CELLS, rng) for _ in range(3)])
    means = unit.exact(poses, warm) + rng.normal(0, 75e-6 / np.sqrt(20) * COUNTS, poses.shape)
    result, terms, _ = temperature.fit_temperatures(means, warm, standard)
    truth = intrinsic(unit.model)
    truth[:3] *= 1 + unit.gain_per_c * (terms.reference_c - 25)
    truth[3:6] += unit.offset_per_c * (terms.reference_c - 25)
    assert (np.abs(result.intrinsic - truth) <= 4.5 * result.standard_error).all()
