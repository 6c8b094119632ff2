"""Motion: what the spectrum, the level and the moments say must be what was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triax_sim.motion import drift, drop, handling, impacts, mix, shift, sine, spike, still, uniform
from triax_sim.scenes import NAMES, scene

RATE = 16_000.0


def times(seconds, start=0.0):
    return start + np.arange(round(seconds * RATE)) / RATE


def line(values, frequency_hz, seconds):
    """Amplitude of a spectral line that fits a whole number of times into the stretch."""
    spectrum = np.fft.rfft(values) / len(values) * 2
    return abs(spectrum[round(frequency_hz * seconds)])


@pytest.mark.parametrize("name", NAMES)
@given(start=st.floats(0, 1000), cut=st.integers(1, 99))
def test_any_stretch_is_the_same_as_part_of_a_longer_one(name, start, cut):
    motion = scene(name, seed=3)
    t = times(100 / RATE, start)
    whole = motion(t)
    assert whole.shape == (100, 3)
    assert np.array_equal(np.concatenate([motion(t[:cut]), motion(t[cut:])]), whole)
    assert np.isfinite(whole).all()


def test_scenes_that_do_not_exist():
    with pytest.raises(ValueError, match="rotor"):
        scene("flying")


def test_still_is_gravity():
    assert (still((0, 0, -1))(times(0.01)) == [0, 0, -1]).all()


def test_sine_has_its_line_and_no_other():
    t = times(1)
    g = mix(still(), sine(0.5, 159.0, axis=(1, 0, 0)))(t)
    assert line(g[:, 0], 159, 1) == pytest.approx(0.5)
    assert line(g[:, 0], 318, 1) < 1e-9
    assert (g[:, 2] == 1).all()


def test_impacts_come_as_often_and_as_hard_as_asked():
    t = times(50)
    g = impacts(2.0, 8.0, seed=4, spread=0.25)(t)[:, 2]
    loud = np.flatnonzero(np.abs(g) > 3)
    shocks = np.split(loud, np.flatnonzero(np.diff(loud) > 0.02 * RATE) + 1)
    assert 90 <= len(shocks) <= 100
    peaks = [np.abs(g[shock]).max() for shock in shocks]
    # The first quarter wave of 800 Hz has died to exp(-0.31/4) of the nominal peak.
    assert min(peaks) >= 8 * 0.75 * 0.9
    assert max(peaks) <= 8 * 1.25


def test_drop_falls_weightless_for_the_right_time_and_lands():
    t = times(4)
    g = drop(1.0, 0.8, peak_g=60.0)(t)[:, 2]
    assert (g[t < 1.0] == 1).all()
    fall_s = (2 * 0.8 / 9.80665) ** 0.5
    falling = (t > 1.0) & (t < 1.0 + fall_s)
    assert (g[falling] == 0).all()
    assert g.max() == pytest.approx(61, rel=0.01)
    assert t[g.argmax()] == pytest.approx(1.0 + fall_s + 0.0015, abs=1e-3)
    assert g[-1] == 1


def test_handling_turns_gravity_about():
    g = handling(60.0, 0.03, seed=2)(times(30))
    length = np.linalg.norm(g, axis=1)
    assert abs(length - 1).max() < 0.07
    assert g[:, 2].min() < 0.97
    assert line(g[:, 0] - g[:, 0].mean(), 1000, 30) < 1e-5


def test_planted_spike_shift_and_drift():
    t = times(2)
    assert spike(1.0, 5.0, 0.001)(t)[:, 2].max() == pytest.approx(5, rel=0.01)
    assert np.count_nonzero(spike(1.0, 5.0, 0.001)(t)[:, 2]) == pytest.approx(16, abs=1)
    moved = shift(1.0, (0.1, 0.0, -0.2))(t)
    assert (moved[t < 1] == 0).all()
    assert (moved[t >= 1] == [0.1, 0.0, -0.2]).all()
    assert drift(1.0, (0.0, 0.5, 0.0))(np.array([0.5, 2.0, 3.0]))[:, 1].tolist() == [0.0, 0.5, 1.0]


def test_uniform_is_uniform_and_a_function_of_number_and_seed():
    values = uniform(np.arange(100_000), 1)
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=5 / (12e5**0.5))
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(values, uniform(np.arange(100_000), 2))[0, 1]) < 0.02
    assert uniform(np.array([77]), 1)[0] == values[77]
