"""Goals F1 to F3: true rate, drift, losses."""

import numpy as np
import pytest
from triax_tools.calibrate import clock
from triax_tools.calibrate.errors import Refused

NOMINAL = 1000.0


def arrivals(rate_of, duration_s, delay, seed, lost=0.01):
    """Frames of 100 samples: their sequence, running count at the frame's end, arrival; 1 % of the frames are lost."""
    rng = np.random.default_rng(seed)
    frames = int(duration_s * 10)
    count = 100.0 * np.arange(1, frames + 1)
    made = rate_of(count)
    arrival = made + delay(rng, frames)
    kept = np.flatnonzero(rng.random(frames) >= lost)
    return kept, count[kept], arrival[kept]


def uniform(rng, n):
    return rng.uniform(0, 1e-3, n)


def stalls(rng, n):
    return rng.exponential(5e-3, n) + np.where(rng.random(n) < 0.01, 0.2, 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_f1_three_percent_off_within_2_ppm_and_lost_frames_exactly(seed):
    rate = NOMINAL * 0.97
    kept, count, arrival = arrivals(lambda c: c / rate, 60, uniform, seed)
    found = clock.measure_clock(count, arrival)
    assert found.rate_hz == pytest.approx(rate, rel=2e-6)
    assert abs(found.rate_hz / rate - 1) * 1e6 <= 4 * found.error_ppm + 0.5
    assert clock.holes(kept) == kept[-1] - kept[0] + 1 - len(kept)
    assert not found.drifts


@pytest.mark.parametrize("seed", range(8))
def test_f2_stalls_within_10_ppm_where_least_squares_is_not(seed):
    rate = NOMINAL * 0.97
    _, count, arrival = arrivals(lambda c: c / rate, 60, stalls, 50 + seed)
    found = clock.measure_clock(count, arrival)
    assert found.rate_hz == pytest.approx(rate, rel=10e-6)
    assert not found.drifts


def test_f2_least_squares_follows_the_stalls():
    off = []
    for seed in range(20):
        _, count, arrival = arrivals(lambda c: c / NOMINAL, 60, stalls, seed)
        off.append(clock.measure_clock(count, arrival).least_squares_hz / NOMINAL - 1)
    assert np.std(off) * 1e6 > 20


@pytest.mark.parametrize("ppm", [50, -50])
@pytest.mark.parametrize("seed", range(4))
def test_f3_drift_is_said(ppm, seed):
    def made(count):
        nominal = count / NOMINAL
        return nominal - 0.5 * ppm * 1e-6 / 60 * nominal**2

    _, count, arrival = arrivals(made, 60, uniform, seed)
    found = clock.measure_clock(count, arrival)
    assert found.drifts
    assert found.drift_ppm == pytest.approx(ppm * 2 / 3, abs=10)  # between the middles of the outer thirds


def test_lost_samples_against_a_known_rate():
    count = np.arange(0, 11_000, 1000.0)
    arrival = count / 1280
    lost = clock.lost_against(1600.0, count, arrival)
    assert lost.samples == 2500
    assert lost.share == pytest.approx(0.2)


def test_holes_of_nothing_and_of_repeats():
    assert clock.holes(np.array([], int)) == 0
    assert clock.holes(np.array([5, 5, 6, 9, 9])) == 2


@pytest.mark.parametrize(
    ("count", "arrival", "match"),
    [
        (np.arange(5.0), np.arange(5.0), "too few"),
        (np.zeros(50), np.arange(50.0), "do not advance"),
        (np.arange(50.0), np.full(50, np.nan), "do not advance"),
    ],
)
def test_refusals(count, arrival, match):
    with pytest.raises(Refused, match=match):
        clock.measure_clock(count, arrival)
