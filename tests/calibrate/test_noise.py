"""Goals E1 to E5: density, Allan deviation and N, B, K."""

import allantools
import numpy as np
import pytest
import scipy
from triax_tools.calibrate import noise
from triax_tools.calibrate.errors import Refused

N, B = 53e-6, 10e-6


def coloured(n, b, k, seed, count=3 * 3600 * 10, rate_hz=10.0):
    """Noise of two-sided density n^2 + b^2 / (2 pi f) made in the frequency domain over twice the record, and a random walk."""
    rng = np.random.default_rng(seed)
    frequency = np.fft.rfftfreq(2 * count, 1 / rate_hz)
    frequency[0] = frequency[1]
    density = n**2 + b**2 / (2 * np.pi * frequency)
    spectrum = (rng.normal(size=len(frequency)) + 1j * rng.normal(size=len(frequency))) * np.sqrt(density * rate_hz * count)
    spectrum[0] = 0
    walk = np.cumsum(rng.normal(0, k / np.sqrt(rate_hz), count))  # below 1 / record there is much of it: in time, not frequency
    return np.fft.irfft(spectrum, 2 * count)[:count] + walk


def test_e1_one_sided_and_two_sided_differ_by_the_root_of_two():
    rng = np.random.default_rng(1)
    values = rng.normal(0, 75e-6 * np.sqrt(500), (60_000, 3))
    density = noise.band_density(noise.psd(values, 1000), 10, 450)
    assert density == pytest.approx(np.full(3, 75e-6), rel=0.015)
    measured = noise.allan(values, 1000)
    for axis in range(3):
        found = noise.fit_noise(measured, axis)
        assert found.n.value == pytest.approx(53.03e-6, rel=0.03)
        assert found.density_g == pytest.approx(75e-6, rel=0.03)


@pytest.fixture(scope="module")
def fits():
    return [noise.fit_noise(noise.allan(coloured(N, B, 0, seed)[:, None], 10), 0) for seed in range(50)]


def test_e2_n_and_b_over_50_seeds(fits):
    n = np.array([f.n.value for f in fits])
    b = np.array([f.b.value for f in fits], float)
    assert n == pytest.approx(np.full(50, N), rel=0.02)
    assert b == pytest.approx(np.full(50, B), rel=0.35)
    assert b.mean() == pytest.approx(B, rel=0.05)


def test_e2_intervals_hold_what_they_say(fits):
    assert np.mean([f.n.low <= N <= f.n.high for f in fits]) >= 0.86
    assert np.mean([f.b.low <= B <= f.b.high for f in fits]) >= 0.86


def test_e3_a_k_that_may_be_zero_is_a_bound():
    found = [noise.fit_noise(noise.allan(coloured(N, B, 0.15e-6, 100 + seed)[:, None], 10), 0) for seed in range(12)]
    for fit in found:
        if fit.k.low <= 0:
            assert fit.k.value is None
            assert fit.k.bound is not None
            assert fit.k.bound > 0
        else:
            assert fit.k.value is not None
    assert sum(f.k.value is None for f in found) >= 6  # a record of 3 h cannot tell so small a K from none
    assert np.mean([f.k.high >= 0.15e-6 for f in found]) >= 0.9


def test_e3_a_large_k_is_a_value():
    found = noise.fit_noise(noise.allan(coloured(N, B, 3e-6, 7)[:, None], 10), 0)
    assert found.k.low <= 3e-6 <= found.k.high
    assert found.k.value == pytest.approx(3e-6, rel=0.5)


def test_e4_equals_allantools():
    rng = np.random.default_rng(4)
    values = np.cumsum(rng.normal(size=20_000)) * 1e-6 + rng.normal(size=20_000) * 1e-3 + 1.0
    factors = noise.octaves(len(values), per_octave=4)
    ours = noise.oadev(values, 100.0, factors)
    tau, theirs, _, _ = allantools.oadev(values, rate=100.0, data_type="freq", taus=factors / 100.0)
    assert tau == pytest.approx(factors / 100.0)
    assert ours == pytest.approx(theirs, rel=1e-9)


def test_the_density_is_scipys_of_the_whole_record():
    rng = np.random.default_rng(9)
    values = rng.normal(size=(50_000, 3))
    ours = noise.psd(values, 1000, 2.0)
    _, theirs = scipy.signal.welch(values, 1000, "hann", 500, 250, detrend="constant", axis=0)
    assert ours.density[3:-1] == pytest.approx(theirs[3:-1], rel=1e-10)
    assert ours.averages == 199


def test_thinning_tells_the_same():
    values = coloured(N, B, 1e-6, 8)
    factors = noise.octaves(len(values))
    full, thin = noise.oadev(values, 10, factors), noise.oadev(values, 10, factors, thin=True)
    assert thin[factors < 64] == pytest.approx(full[factors < 64], rel=1e-12)
    sd = 1 / np.sqrt(2 * (len(values) / factors - 1))  # of a point
    assert (np.abs(thin / full - 1) < 0.15 * sd).all()


def test_e5_gravity_is_never_vibration():
    rng = np.random.default_rng(5)
    values = rng.normal([0, 0, 1], 75e-6 * np.sqrt(500), (60_000, 3))
    spectrum = noise.psd(values, 1000)
    assert np.isnan(spectrum.density[:3]).all()
    assert np.nanmax(np.sqrt(spectrum.density)) < 150e-6
    assert noise.band_density(spectrum, 0, 450) == pytest.approx(np.full(3, 75e-6), rel=0.015)


def test_a_line_does_not_raise_the_floor():
    rng = np.random.default_rng(6)
    time = np.arange(60_000) / 1000
    values = rng.normal(0, 75e-6 * np.sqrt(500), (60_000, 3)) + np.sin(2 * np.pi * 50 * time)[:, None]
    assert noise.band_density(noise.psd(values, 1000), 10, 450) == pytest.approx(np.full(3, 75e-6), rel=0.03)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: noise.psd(np.zeros((10, 3)), 1000, 1.0), "record at least 8 s"),
        (lambda: noise.allan(np.zeros((50, 3)), 100), "no Allan plot"),
        (lambda: noise.fit_noise(noise.allan(np.zeros((5000, 3)), 100), 0), "do not move at all"),
        (lambda: noise.band_density(noise.psd(np.ones((5000, 3)), 100), 60, 70), "reaches 50 Hz"),
    ],
)
def test_refusals_say_what_to_do(call, match):
    with pytest.raises(Refused, match=match):
        call()


@pytest.mark.slow
def test_e2_e3_over_200_seeds():
    """Goals E2 and E3, K included, and the coverage of the intervals."""
    found = [noise.fit_noise(noise.allan(coloured(N, B, 0.15e-6, 500 + seed)[:, None], 10), 0) for seed in range(200)]
    assert np.array([f.n.value for f in found]) == pytest.approx(np.full(200, N), rel=0.02)
    b = np.array([f.b.value for f in found], float)
    assert b.mean() == pytest.approx(B, rel=0.05)
    assert (np.abs(b / B - 1) <= 0.35).mean() >= 0.99
    for fit in found:
        assert (fit.k.value is None) == (fit.k.low <= 0)
    for name, truth in (("n", N), ("b", B), ("k", 0.15e-6)):
        assert np.mean([getattr(f, name).low <= truth <= getattr(f, name).high for f in found]) >= 0.9
