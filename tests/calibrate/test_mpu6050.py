"""Allan deviation of a real sensor: ten minutes of a resting MPU-6050."""

import numpy as np
import pytest
from triax_tools.calibrate import noise
from triax_tools.calibrate.readers import read


def test_allan_of_ten_minutes_at_rest(data):
    found = read(data / "sunsided-mpu6050" / "unmoved-with-x-pointing-forward-10min" / "mpu6050_accelerometer.mat")
    rate = found.rate_hz
    # Known answer: 1 s, 10 s, 100 s in 1e-4 g.
    known = {1: (3.1, 3.0, 4.9), 10: (0.94, 1.0, 1.7), 100: (0.33, 0.67, 0.56)}
    for tau, values in known.items():
        ours = [noise.oadev(found.values_g[:, k], rate, [round(tau * rate)])[0] * 1e4 for k in range(3)]
        assert ours == pytest.approx(values, rel=0.05 if tau < 100 else 0.15)
    measured = noise.allan(found.values_g, rate)
    fits = [noise.fit_noise(measured, k) for k in range(3)]
    density = noise.band_density(noise.psd(found.values_g, rate, 0.1), 1, 35)
    for k, fit in enumerate(fits):
        # White to 100 s: N of the Allan plot and the density agree, and K is a bound.
        assert fit.density_g == pytest.approx(density[k], rel=0.04)
        assert fit.k.value is None
    assert density == pytest.approx(np.array([433, 438, 707]) * 1e-6, rel=0.02)
