"""What the models look at: a vector for a window (a FEATURE row) and one for a raw capture.

Window vector, all from the row, so that the stream needs nothing else:

    log_rms_x, .. z      log10 of the rms, g           log_crest_x, .. z    log10 of peak / rms

Capture vector, all from the axis whose envelope band has the most energy:

    log_rms              log10 of the rms about the mean, g
    crest, kurtosis      peak / rms, and fourth moment / variance^2, of the band above a quarter of the Nyquist frequency
    order_0.2 .. 12.0    envelope spectrum as log10 of its amplitude over its median, the highest in each step of 0.2 shaft turns

The shaft speed is the strongest line between 5 and 100 Hz of the sum of the axes' amplitude spectra. Defects of a bearing then
stand at its own orders whatever the speed: for a 6205 the outer ring at 3.58, the inner ring at 5.42, a ball at 4.71, the cage
at 0.40.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from triax_backend.batch.spectra import amplitude_spectrum, band_envelope

__all__ = ["CAPTURE_FEATURES", "LEAST_CAPTURE_S", "WINDOW_FEATURES", "capture_vector", "shaft_hz", "window_vectors"]

Array = np.ndarray[Any, Any]

WINDOW_FEATURES = tuple(f"{name}_{axis}" for name in ("log_rms", "log_crest") for axis in "xyz")
_STEP, _ORDERS = 0.2, 12.0
_CENTRES = np.arange(_STEP, _ORDERS + _STEP / 2, _STEP)
CAPTURE_FEATURES = ("log_rms", "crest", "kurtosis", *(f"order_{order:.1f}" for order in _CENTRES))
LEAST_CAPTURE_S = 0.5  # lines of 2 Hz: a tenth of a turn at 20 Hz
_FLOOR_G = 1e-6  # an axis that stands still must not be minus infinity
_SHAFT_HZ = (5.0, 100.0)
_BAND = (0.125, 0.45)  # of the rate


def window_vectors(rows: Array) -> Array:
    """(rows, 6) of FEATURE rows."""
    rms = np.log10(np.maximum(rows["rms"].astype(np.float64), _FLOOR_G))
    crest = np.log10(np.maximum(rows["crest"].astype(np.float64), 1.0))
    return np.concatenate([rms, crest], axis=1)


def shaft_hz(g: Array, rate_hz: float) -> float:
    """Speed of the shaft out of the spectra of all axes."""
    frequency, amplitude = amplitude_spectrum(g, rate_hz)
    total = amplitude.sum(axis=1)
    inside = (frequency >= _SHAFT_HZ[0]) & (frequency <= _SHAFT_HZ[1])
    return float(frequency[inside][total[inside].argmax()])


def capture_vector(g: Array, rate_hz: float) -> Array:
    """Vector of a capture (samples, 3) in g. Raises ValueError if it is too short."""
    if len(g) < LEAST_CAPTURE_S * rate_hz:
        raise ValueError(f"a capture of {len(g) / rate_hz:.2f} s; want at least {LEAST_CAPTURE_S} s")
    low, high = (share * rate_hz for share in _BAND)
    envelope = band_envelope(g, rate_hz, low, high)
    axis = int((envelope**2).mean(axis=0).argmax())
    rms = float(np.sqrt(g[:, axis].var()))
    band = envelope[:, axis]
    power = float((band**2).mean()) / 2
    crest = float(band.max() / np.sqrt(max(power, _FLOOR_G**2)))
    # of an analytic signal: <|a|^4> / <|a|^2>^2 is 2 for noise; times 1.5 it is the kurtosis of the band-passed signal, 3
    kurtosis = 1.5 * float((band**4).mean() / max(float((band**2).mean()) ** 2, _FLOOR_G**4))
    frequency, amplitude = amplitude_spectrum(band, rate_hz)
    orders = frequency / shaft_hz(g, rate_hz)
    edges = np.searchsorted(orders, np.append(_CENTRES - _STEP / 2, _CENTRES[-1] + _STEP / 2))
    usual = max(float(np.median(amplitude[edges[0] : max(edges[-1], edges[0] + 1)])), 1e-9)
    # two turns of the window keep the mean's own line out of the lowest step
    highest = [float(amplitude[max(first, 8) : max(last, first + 1, 9)].max()) for first, last in pairwise(edges.tolist())]
    return np.array([np.log10(max(rms, _FLOOR_G)), crest, kurtosis, *np.log10(np.maximum(highest, 1e-12) / usual)])
