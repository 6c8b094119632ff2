"""Spectra and envelope spectra of raw captures, as functions of arrays in g.

    amplitude spectrum   one-sided, g peak: a sine of amplitude A on a line of the grid, or anywhere near it, stands at A
    density              one-sided, g^2/Hz: its sum times the line spacing is the mean square about the mean
    envelope spectrum    amplitude spectrum of the magnitude of the analytic signal in a band: where a resonance is struck again
    and again,
                         the rate of the blows and its multiples

The flat-top window (five terms of SRS type, ISO 18431-2) keeps the height of a line between two grid lines to 0.02 dB and is
used for amplitudes; Hann is used for density and for `line`, which finds frequency and amplitude of one line between the grid.
"""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Line", "amplitude_spectrum", "band_envelope", "density", "envelope_spectrum", "line", "peaks"]

Array = np.ndarray[Any, Any]
_FLAT_TOP = (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368)
_HANN_NOISE_BANDWIDTH = 1.5  # lines


class Line(NamedTuple):
    """One spectral line: a sine of amplitude `amplitude_g` (peak)."""

    frequency_hz: float
    amplitude_g: float


def _window(count: int, terms: tuple[float, ...]) -> Array:
    """Periodic cosine-sum window."""
    angle = 2 * np.pi * np.arange(count) / count
    out = np.zeros(count)
    for order, term in enumerate(terms):
        out += (-1) ** order * term * np.cos(order * angle)
    return out


def amplitude_spectrum(values: Array, rate_hz: float) -> tuple[Array, Array]:
    """Frequencies (Hz) and amplitudes (g peak) of `values` (samples, ..) about their mean, one-sided."""
    count = len(values)
    window = _window(count, _FLAT_TOP).reshape(-1, *([1] * (values.ndim - 1)))
    lines = np.abs(np.fft.rfft((values - values.mean(axis=0)) * window, axis=0)) * 2 / window.sum()
    lines[0] /= 2
    if count % 2 == 0:
        lines[-1] /= 2
    return np.fft.rfftfreq(count, 1 / rate_hz), lines


def density(values: Array, rate_hz: float) -> tuple[Array, Array]:
    """Frequencies (Hz) and density (g^2/Hz) of `values` (samples, ..) about their mean, one-sided, Hann window."""
    count = len(values)
    window = _window(count, (0.5, 0.5)).reshape(-1, *([1] * (values.ndim - 1)))
    power = np.abs(np.fft.rfft((values - values.mean(axis=0)) * window, axis=0)) ** 2 * 2 / (rate_hz * (window**2).sum())
    power[0] /= 2
    if count % 2 == 0:
        power[-1] /= 2
    return np.fft.rfftfreq(count, 1 / rate_hz), power


def line(values: Array, rate_hz: float, low_hz: float, high_hz: float) -> Line:
    """The strongest line of a single axis between two frequencies, placed between the grid lines (Hann, ratio of the two highest).

    Exact for one sine; neighbours within four lines of the grid (4 rate / count) and noise bend it.
    """
    count = len(values)
    spectrum = np.abs(np.fft.rfft((values - values.mean()) * _window(count, (0.5, 0.5))))
    first, last = max(2, int(np.ceil(low_hz * count / rate_hz))), min(len(spectrum) - 2, int(high_hz * count / rate_hz))
    if last < first:
        raise ValueError(f"{count} samples at {rate_hz} Hz have no line between {low_hz} and {high_hz} Hz")
    top = first + int(spectrum[first : last + 1].argmax())
    side = 1 if spectrum[top + 1] >= spectrum[top - 1] else -1
    ratio = spectrum[top + side] / spectrum[top] if spectrum[top] > 0 else 0.0
    offset = float(np.clip((2 * ratio - 1) / (1 + ratio), -0.5, 0.5))
    sinc = np.sinc(offset) / (1 - offset * offset)  # Hann's main lobe, relative to its top
    return Line((top + side * offset) * rate_hz / count, float(spectrum[top] / sinc * 4 / count))


def band_envelope(values: Array, rate_hz: float, low_hz: float, high_hz: float) -> Array:
    """Magnitude of the analytic signal of `values` (samples, ..) between two frequencies, g."""
    count = len(values)
    spectrum = np.fft.fft(values - values.mean(axis=0), axis=0)
    frequency = np.fft.fftfreq(count, 1 / rate_hz)
    spectrum[(frequency < low_hz) | (frequency > high_hz)] = 0
    return np.abs(np.fft.ifft(2 * spectrum, axis=0))


def envelope_spectrum(values: Array, rate_hz: float, low_hz: float, high_hz: float) -> tuple[Array, Array]:
    """Amplitude spectrum (Hz, g peak) of the envelope in a band."""
    return amplitude_spectrum(band_envelope(values, rate_hz, low_hz, high_hz), rate_hz)


def peaks(frequency_hz: Array, amplitude_g: Array, count: int, apart: int = 5) -> list[Line]:
    """The `count` highest local maxima of a single axis, `apart` grid lines from each other, highest first.

    A flat-top line is five grid lines wide on either side, hence 5.
    """
    inner = amplitude_g[1:-1]
    places = np.flatnonzero((inner >= amplitude_g[:-2]) & (inner > amplitude_g[2:])) + 1
    chosen: list[int] = []
    for place in places[np.argsort(-amplitude_g[places], kind="stable")].tolist():
        if all(abs(place - other) > apart for other in chosen):
            chosen.append(place)
            if len(chosen) == count:
                break
    return [Line(float(frequency_hz[place]), float(amplitude_g[place])) for place in chosen]
