"""Goals A6 and B1 to B4: imu_tk's Xsens log, whose answer is published."""

import numpy as np
import pytest
from triax_tools.calibrate import fit as fitting
from triax_tools.calibrate import gravity, rest
from triax_tools.calibrate.imutk import imutk_fit
from triax_tools.calibrate.model import STANDARD_G

G = 9.81744
RATE_HZ = 100.01
SCALE_G = 1 / (414 * STANDARD_G)


@pytest.fixture(scope="module")
def means(xsens):
    spans = rest.find(xsens * SCALE_G, RATE_HZ, lsb_g=SCALE_G)
    rests = [rest.measure(xsens, span, RATE_HZ, SCALE_G) for span in spans]
    return np.array([r.mean for r in rests if isinstance(r, rest.Rest)])


def test_b1_reproduces_the_published_fit(means):
    nine = fitting.fit(means, gravity.given(G)).intrinsic
    assert nine[:3] / STANDARD_G == pytest.approx([414.45, 412.12, 414.63], rel=200e-6)
    assert nine[3:6] == pytest.approx([33123.9, 33275.1, 32364.5], abs=0.5)
    assert np.degrees(nine[6:]) == pytest.approx([89.796, 89.479, 88.777], abs=0.03)


def test_b2_imutk_rule_exactly(xsens):
    found = imutk_fit(xsens, G)
    assert (found.multiplier, found.rests) == (6, 38)
    assert found.cost == pytest.approx(0.12013, abs=0.00005)
    assert found.scale == pytest.approx([414.459, 412.010, 414.649], rel=5e-6)
    assert found.offset == pytest.approx([33124.18, 33275.18, 32364.42], abs=0.02)


def test_b3_residuals_and_what_misalignment_is_worth(means):
    result = fitting.fit(means, gravity.given(G))
    assert result.rms_g <= 105e-6
    assert np.sqrt(np.mean(fitting.leave_one_out_g(means) ** 2)) <= 155e-6
    assert np.sqrt(np.mean(fitting.ablation_g(means) ** 2)) >= 3e-3


def test_b4_finds_the_rests_without_an_option(xsens):
    spans = rest.find(xsens * SCALE_G, RATE_HZ, lsb_g=SCALE_G)
    assert all(stop - start >= RATE_HZ for start, stop in spans)
    assert abs(len(spans) - 38) <= 3


def test_a6_repeated_poses_are_warned_of(means):
    result = fitting.fit(means, gravity.given(G))
    assert result.condition == pytest.approx(326, rel=0.05)
    assert result.condition > fitting.CONDITION_WARN
    assert fitting.weak_parameters(result) == ["mis_zy"]
