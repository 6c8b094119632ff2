"""Goals H1 and H2: sine fit and frequency response."""

import numpy as np
import pytest
from triax_tools.calibrate import response
from triax_tools.calibrate.errors import Refused

RATE = 26_667.0
SIGMA = 75e-6 * np.sqrt(RATE / 2)


def degrees(a, b):
    return (a - b + 180) % 360 - 180


@pytest.mark.parametrize("seed", range(5))
def test_h1_sine_of_one_second(seed):
    rng = np.random.default_rng(seed)
    time = np.arange(int(RATE)) / RATE
    phase = rng.uniform(-180, 180)
    wave = np.cos(2 * np.pi * 159.155 * time + np.radians(phase))
    values = np.outer(wave, [0.01, 0.02, 1.0]) + rng.normal(0, SIGMA, (len(time), 3)) + [0, 0, 1]
    found = response.sine_fit(values, RATE)
    assert found.amplitude_g[2] == pytest.approx(1, abs=300e-6)
    assert found.amplitude_sd[2] == pytest.approx(75e-6, rel=0.05)
    assert found.frequency_hz == pytest.approx(159.155, abs=2e-4)
    middle = phase + 360 * 159.155 * (len(time) - 1) / 2 / RATE
    assert abs(degrees(found.phase_deg[2], middle)) <= 0.02
    assert abs(degrees(found.phase_start_deg[2], phase)) <= 0.04  # frequency is unknown: twice the error at the ends
    assert found.offset_g[2] == pytest.approx(1, abs=300e-6)


def sensor(frequency, resonance=9_000.0, damping=0.6):
    """Complex response of a second-order low pass."""
    s = frequency / resonance
    return 1 / (1 - s * s + 2j * damping * s)


def shaker_run(true_rate, seed):
    rng = np.random.default_rng(seed)
    records, tones = [], []
    for frequency in np.geomspace(50, 6000, 13):
        count = 26_667
        tone = response.Tone(float(frequency), 1.0, float(rng.uniform(-180, 180)))
        gain = sensor(frequency)
        angle = 2 * np.pi * frequency * np.arange(count) / true_rate + np.radians(tone.phase_deg) + np.angle(gain)
        wave = np.abs(gain) * np.cos(angle)
        records.append(np.outer(wave, [0.003, 1.0, 0.005]) + rng.normal(0, SIGMA, (count, 3)) + [0, 1, 0])
        tones.append(tone)
    return records, tones


def test_h2_second_order_sensor_with_the_rate_one_percent_off():
    true_rate = RATE * 1.01
    records, tones = shaker_run(true_rate, 3)
    with pytest.raises(Refused, match="sample rate of 26667 Hz is wrong"):
        response.frequency_response(records, tones, RATE)
    rate, off_ppm = response.rate_from_tones(records, tones, RATE)
    assert rate == pytest.approx(true_rate, rel=2e-6)
    assert off_ppm == pytest.approx(1e4, abs=2)
    for found in response.frequency_response(records, tones, rate):
        truth = sensor(found.frequency_hz)
        assert found.magnitude == pytest.approx(abs(truth), rel=0.005)
        assert abs(degrees(found.phase_deg, np.degrees(np.angle(truth)))) <= 0.3
        assert found.axis == 1
        assert found.transverse < 0.02


def test_harmonics_do_not_count_as_noise():
    rng = np.random.default_rng(4)
    time = np.arange(4000) / 1000
    wave = sum(np.cos(2 * np.pi * 31.7 * k * time) / k for k in (1, 2, 3))
    values = np.outer(wave, [1, 1, 1]) + rng.normal(0, 1e-3, (4000, 3))
    found = response.sine_fit(values, 1000, harmonics=3)
    assert found.amplitude_g == pytest.approx(np.ones(3), abs=2e-4)
    assert found.residual_g == pytest.approx(np.full(3, 1e-3), rel=0.1)


def test_the_unbalance_line_of_a_real_motor(data):
    path = next((data / "vibrationdaq-adcmxl3021").glob("*MTC*.csv"))
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    found = response.sine_fit(table[:, 1:], 1 / 290.909e-6, harmonics=5)
    # 121.69 Hz is bin 145 of the record's FFT (0.839 Hz wide); the line lies between bins, and the motor drifts by 0.03 Hz.
    assert found.frequency_hz == pytest.approx(121.60, abs=0.02)
    assert abs(found.frequency_hz - 121.69) < 0.839 / 2
    assert found.frequency_sd < 0.002
    assert found.amplitude_g == pytest.approx([0.737, 0.482, 8.76], rel=0.01)
    assert found.amplitude_sd == pytest.approx([0.004, 0.020, 0.029], rel=0.1)
    assert found.wander_hz == pytest.approx(0.030, abs=0.01)


@pytest.mark.parametrize(
    ("count", "frequency", "match"), [(100, 5.0, "fewer than 3 periods"), (1000, 600.0, "above half the sample rate")]
)
def test_refusals(count, frequency, match):
    with pytest.raises(Refused, match=match):
        response.sine_fit(np.random.default_rng(1).normal(size=(count, 3)), 1000, frequency)
