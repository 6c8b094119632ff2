"""Rotating machines: orders of the bearing, lines of the shaft, envelope lines of each defect."""

import numpy as np
import pytest
from triax_sim.machine import DEFECTS, Bearing, Defect, Machine

RATE = 16_000.0
SECONDS = 16
SPEED = 25.0


def motion(**settings):
    t = np.arange(int(RATE * SECONDS)) / RATE
    return Machine(speed_hz=SPEED, **settings)(t)


def amplitude(values, frequency_hz):
    spectrum = np.abs(np.fft.rfft(values * np.hanning(len(values)))) / len(values) * 4
    at = round(frequency_hz * SECONDS)
    return float(spectrum[at - 3 : at + 4].max())


def envelope(values):
    """Squared signal above 1 kHz, its slow part without the mean."""
    spectrum = np.fft.rfft(values)
    spectrum[: 1000 * SECONDS] = 0
    squared = np.fft.irfft(spectrum) ** 2
    return squared - squared.mean()


def test_orders_of_a_6205():
    """Deep-groove 6205: 3.585, 5.415, 2.357, 0.398 per turn (bearing data of the Case Western set)."""
    bearing = Bearing()
    assert bearing.bpfo == pytest.approx(3.585, abs=0.002)
    assert bearing.bpfi == pytest.approx(5.415, abs=0.002)
    assert bearing.bsf == pytest.approx(2.357, abs=0.002)
    assert bearing.ftf == pytest.approx(0.398, abs=0.002)
    assert bearing.bpfo + bearing.bpfi == pytest.approx(bearing.elements)
    with pytest.raises(KeyError):
        bearing.order("seal")


def test_contact_angle_shortens_the_seen_diameter():
    assert Bearing(contact_deg=60).ratio == pytest.approx(Bearing().ratio / 2)


def test_unbalance_and_harmonics_have_the_stated_amplitudes():
    g = motion(unbalance_g=0.3, harmonics=(0.25, 0.1), axial=0.15)
    for axis in (0, 1):
        assert amplitude(g[:, axis], SPEED) == pytest.approx(0.3, rel=1e-3)
        assert amplitude(g[:, axis], 2 * SPEED) == pytest.approx(0.075, rel=1e-3)
        assert amplitude(g[:, axis], 3 * SPEED) == pytest.approx(0.03, rel=1e-3)
        assert amplitude(g[:, axis], 4 * SPEED) < 1e-6
    assert amplitude(g[:, 2], SPEED) == pytest.approx(0.045, rel=1e-3)


@pytest.mark.parametrize(
    ("where", "absent"),
    [("outer", ("inner", "ball", "cage")), ("inner", ("outer", "ball")), ("ball", ("outer", "inner")), ("cage", ("inner", "ball"))],
)
def test_the_envelope_shows_the_defects_own_frequency(where, absent):
    """What a ball is modulated with is the cage, and nine turns of the cage are the outer ring: those lines belong together."""
    assert where in DEFECTS
    g = motion(unbalance_g=0.0, defects=[Defect(where, 2.0)])[:, 1]
    slow = envelope(g)
    found = amplitude(slow, Bearing().order(where) * SPEED)
    for other in absent:
        assert amplitude(slow, Bearing().order(other) * SPEED) < 0.3 * found, other
    resonance = np.abs(np.fft.rfft(g))
    assert np.argmax(resonance) / SECONDS == pytest.approx(3200, abs=300)


def test_a_moving_defect_has_sidebands_of_its_load_zone():
    slow = envelope(motion(unbalance_g=0.0, slip=0.0, defects=[Defect("inner", 2.0)])[:, 1])
    bpfi = Bearing().bpfi * SPEED
    assert amplitude(slow, bpfi - SPEED) > 0.2 * amplitude(slow, bpfi)
    assert amplitude(slow, bpfi + SPEED) > 0.2 * amplitude(slow, bpfi)
    still = envelope(motion(unbalance_g=0.0, slip=0.0, defects=[Defect("outer", 2.0)])[:, 1])
    bpfo = Bearing().bpfo * SPEED
    assert amplitude(still, bpfo + SPEED) < 0.02 * amplitude(still, bpfo)


def test_peak_of_a_strike():
    """The first peak of exp(-t/1.2 ms) sin(2 pi 3200 t) is 0.94; strikes of the outer ring are far apart."""
    g = motion(unbalance_g=0.0, slip=0.0, direction=(0, 0, 1), defects=[Defect("outer", 2.0)])[:, 2]
    assert np.abs(g).max() == pytest.approx(2.0 * 0.94, rel=0.03)


def test_slip_smears_the_high_harmonics():
    lines = []
    for slip in (0.0, 0.02):
        slow = envelope(motion(unbalance_g=0.0, slip=slip, defects=[Defect("outer", 2.0)])[:, 1])
        lines.append(amplitude(slow, 12 * Bearing().bpfo * SPEED) / amplitude(slow, Bearing().bpfo * SPEED))
    assert lines[1] < 0.7 * lines[0]


def test_run_up_changes_the_speed():
    machine = Machine(speed_hz=10.0, ramp_hz_per_s=2.0, harmonics=())
    t = np.arange(int(10 * RATE)) / RATE
    x = machine(t)[:, 0]
    crossings = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    assert len(crossings) == pytest.approx(10 * 10 + 0.5 * 2 * 100, abs=1)
