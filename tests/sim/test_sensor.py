"""Sensors with errors: noise density, offsets, matrix, temperature, codes, planted faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triax_sim import chips
from triax_sim.motion import sine, still
from triax_sim.sensor import TYPICAL, DeadAxis, Glitch, Imperfections, Sensor, typical


def sensor(motion=None, rate_hz=16_000.0, lsb_per_g=2000.0, **more):
    made = Sensor(motion or still(), **more)
    made.begin(0, 0.0, rate_hz, lsb_per_g, -30_000, 30_000)
    return made


@given(first=st.integers(0, 100_000), count=st.integers(1, 9000), cut=st.integers(0, 9000))
def test_counts_depend_on_numbers_and_seed_alone(first, count, cut):
    noisy = Imperfections(noise_ug_rthz=(100.0, 100.0, 100.0))
    whole = sensor(imperfections=noisy, seed=5)(first, count)
    assert whole.dtype == np.int32
    other = sensor(imperfections=noisy, seed=5)
    other(first + 70_000, 10)
    cut = min(cut, count - 1)
    parts = [other(first, cut), other(first + cut, count - cut)] if cut else [other(first, count)]
    assert np.array_equal(np.concatenate(parts), whole)
    if count > 100:
        assert not np.array_equal(sensor(imperfections=noisy, seed=6)(first, count), whole)


def test_noise_has_the_stated_density_at_every_frequency():
    s = sensor(imperfections=Imperfections(noise_ug_rthz=(55.0, 110.0, 0.0)), lsb_per_g=1e6)
    s.low, s.high = -(10**9), 10**9
    g = s(0, 1 << 17) / 1e6
    assert (g[:, 2] == 1).all()
    for axis, density in ((0, 55e-6), (1, 110e-6)):
        segments = (g[:, axis] - g[:, axis].mean()).reshape(64, -1)
        power = (np.abs(np.fft.rfft(segments)) ** 2).mean(axis=0)[1:-1] * 2 / (16_000.0 * segments.shape[1])
        bands = np.sqrt(power.reshape(-1, 1023)[:, :1020].reshape(-1, 102).mean(axis=1))
        assert bands == pytest.approx(density, rel=0.06)


def test_offset_scale_misalignment_and_temperature():
    errors = Imperfections(
        offset_g=(0.01, -0.02, 0.03),
        scale_error=(0.0, 0.0, 0.05),
        misalignment=((1.0, 0.0, 0.02), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
        offset_mg_per_c=(1.0, 0.0, 0.0),
        scale_ppm_per_c=(0.0, 0.0, 100.0),
    )
    assert sensor(imperfections=errors).g(0, 1)[0] == pytest.approx([0.01 + 0.02, -0.02, 1.05 + 0.03])
    warm = sensor(imperfections=errors, temperature_c=75.0)
    assert warm.g(0, 1)[0] == pytest.approx([0.01 + 0.05 + 0.02, -0.02, 1.055 + 0.03])


def test_codes_are_rounded_and_clipped():
    s = sensor(sine(20.0, 100.0))
    counts = s(0, 1600)
    assert counts[:, 2].max() == 30_000
    assert counts[:, 2].min() == -30_000
    assert (sensor(still((0.00024, 0.00026, 1.0)))(0, 1) == [0, 1, 2000]).all()


def test_sample_times_follow_the_true_rate_and_start():
    s = Sensor(lambda t: np.stack([t, t, t], 1))
    s.begin(1000, 5_000_000.0, 100.0, 1000.0, -(10**6), 10**6)
    assert s(1000, 3)[:, 0].tolist() == [5000, 5010, 5020]
    assert s(1100, 1)[0, 0] == 6000


def test_glitch_and_dead_axis():
    s = sensor(faults=[Glitch(100, 1, -32768), DeadAxis(2, 150, 7)])
    counts = s(90, 100)
    assert np.flatnonzero(counts[:, 1] == -32768).tolist() == [10]
    assert (counts[:60, 2] == 2000).all()
    assert (counts[60:, 2] == 7).all()
    assert (s(400, 5)[:, 2] == 7).all()
    assert (s(0, 5)[:, 2] == 2000).all()


def test_every_part_has_typical_errors_within_its_limits():
    assert set(TYPICAL) == set(chips.names())
    for part, (noise, offset, scale, _) in TYPICAL.items():
        units = [typical(part, seed) for seed in range(50)]
        assert all(unit.noise_ug_rthz == noise for unit in units)
        assert max(abs(value) for unit in units for value in unit.offset_g) <= offset
        assert max(abs(value) for unit in units for value in unit.scale_error) <= scale
        assert len({unit.offset_g for unit in units}) == 50
    assert typical("adxl355", 3) == typical("adxl355", 3)
    with pytest.raises(KeyError):
        typical("adxl999", 1)
