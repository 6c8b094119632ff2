"""Four-parameter sine fit (IEEE 1057) on three axes at once, and the frequency response on a shaker.

Amplitude is the peak value in g. Phase is that of a cosine, in degrees, at the middle of the record (where it is known best) and at
its first sample. Never a bin of an FFT: between bins it is off by up to 15 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import Array

__all__ = ["Response", "Sine", "Tone", "frequency_response", "guess_hz", "rate_from_tones", "sine_fit"]

MIN_PERIODS = 3.0
_STEPS = 30
RATE_OFF_PPM = 100.0  # a crystal is never that wrong: the time axis is


@dataclass(frozen=True)
class Sine:
    """A line at one frequency on three axes; every `_sd` is a standard error from the residual."""

    frequency_hz: float
    frequency_sd: float
    amplitude_g: Array
    amplitude_sd: Array
    phase_deg: Array  # at the middle of the record
    phase_sd: Array
    phase_start_deg: Array
    offset_g: Array
    residual_g: Array  # root mean square, after the harmonics
    wander_hz: float | None = None  # by how much the second half's frequency differs; more than frequency_sd: no steady tone


@dataclass(frozen=True)
class Tone:
    """What the shaker did while a record was made: peak amplitude and phase of the reference at the record's first sample."""

    frequency_hz: float
    amplitude_g: float
    phase_deg: float


@dataclass(frozen=True)
class Response:
    """Sensor over reference at one tone, on the axis that moved most; `transverse` is the largest other axis over it."""

    frequency_hz: float
    magnitude: float
    magnitude_sd: float
    phase_deg: float
    phase_sd: float
    axis: int
    transverse: float


def guess_hz(values: Array, rate_hz: float) -> float:
    """Frequency of the strongest line of (n, 3): the Hann spectrum's peak, interpolated."""
    n = len(values)
    spectrum = np.abs(np.fft.rfft((values - values.mean(axis=0)) * np.hanning(n)[:, None], axis=0)) ** 2
    power = spectrum.sum(axis=1)
    power[:3] = 0
    k = int(np.argmax(power))
    if not 0 < k < len(power) - 1:
        return k * rate_hz / n
    a, b, c = np.log(power[k - 1 : k + 2] + 1e-300)
    bend = a - 2 * b + c
    return float((k + (0.5 * (a - c) / bend if bend else 0.0)) * rate_hz / n)


def _columns(time: Array, omega: float, harmonics: int) -> Array:
    parts = [np.ones_like(time)]
    for k in range(1, harmonics + 1):
        parts += [np.cos(k * omega * time), np.sin(k * omega * time)]
    return np.array(parts).T


def sine_fit(values_g: Array, rate_hz: float, frequency_hz: float | None = None, harmonics: int = 1) -> Sine:
    """Fit one fundamental (and its harmonics, so that they do not count as noise) to values (n, 3) in g.

    The frequency starts at `frequency_hz` or at the strongest line. Raises Refused under three periods or above half the rate.
    """
    found = _fit(values_g, rate_hz, frequency_hz, harmonics)
    half = len(values_g) // 2
    if found.frequency_hz * half / rate_hz < 2 * MIN_PERIODS:
        return found
    first, second = (_fit(part, rate_hz, found.frequency_hz, harmonics) for part in (values_g[:half], values_g[half:]))
    return replace(found, wander_hz=abs(second.frequency_hz - first.frequency_hz))


def _fit(values_g: Array, rate_hz: float, frequency_hz: float | None, harmonics: int) -> Sine:
    n = len(values_g)
    start = guess_hz(values_g, rate_hz) if frequency_hz is None else frequency_hz
    if start * n / rate_hz < MIN_PERIODS:
        raise Refused(f"{n / rate_hz:.3g} s hold fewer than {MIN_PERIODS:g} periods of {start:.4g} Hz: record longer.")
    if start * harmonics >= rate_hz / 2:
        raise Refused(f"{start * harmonics:.6g} Hz lies above half the sample rate ({rate_hz / 2:.6g} Hz).")
    time = (np.arange(n) - (n - 1) / 2) / rate_hz
    omega = 2 * np.pi * start
    for _ in range(_STEPS):
        columns = _columns(time, omega, harmonics)
        weights, *_ = np.linalg.lstsq(columns, values_g, rcond=None)
        residual = values_g - columns @ weights
        slope = np.zeros_like(values_g)
        for k in range(1, harmonics + 1):
            cosine, sine = columns[:, 2 * k - 1], columns[:, 2 * k]
            slope += k * time[:, None] * (np.outer(cosine, weights[2 * k]) - np.outer(sine, weights[2 * k - 1]))
        step = float(np.sum(slope * residual) / np.sum(slope * slope))
        omega += step
        if abs(step) < 1e-13 * omega:
            break
    freedom = n - 2 * harmonics - 2
    sigma = np.sqrt(np.sum(residual**2, axis=0) / freedom)
    amplitude = np.hypot(weights[1], weights[2])
    phase = np.degrees(np.arctan2(-weights[2], weights[1]))
    start_phase = phase + np.degrees(omega * time[0])
    strength = np.sum((amplitude * time.std() / np.maximum(sigma, 1e-300)) ** 2) * n / 2
    return Sine(
        frequency_hz=omega / (2 * np.pi),
        frequency_sd=float(1 / np.sqrt(strength) / (2 * np.pi)),
        amplitude_g=amplitude,
        amplitude_sd=sigma * np.sqrt(2 / n),
        phase_deg=phase,
        phase_sd=np.degrees(sigma * np.sqrt(2 / n) / np.maximum(amplitude, 1e-300)),
        phase_start_deg=(start_phase + 180) % 360 - 180,
        offset_g=weights[0],
        residual_g=np.sqrt(np.mean(residual**2, axis=0)),
    )


def rate_from_tones(records: Sequence[Array], tones: Sequence[Tone], rate_hz: float) -> tuple[float, float]:
    """True rate and how far `rate_hz` is off in ppm: the shaker runs on a crystal, so fitted / commanded is the time axis."""
    ratios, weights = [], []
    for values, tone in zip(records, tones, strict=True):
        found = sine_fit(values, rate_hz)
        ratios.append(found.frequency_hz / tone.frequency_hz)
        weights.append((tone.frequency_hz / found.frequency_sd) ** 2)
    ratio = float(np.average(ratios, weights=weights))
    return rate_hz / ratio, (1 / ratio - 1) * 1e6


def frequency_response(records: Sequence[Array], tones: Sequence[Tone], rate_hz: float) -> list[Response]:
    """Magnitude and phase at each tone. `rate_hz` must be the true one (`rate_from_tones` or the clock)."""
    out = []
    for values, tone in zip(records, tones, strict=True):
        found = sine_fit(values, rate_hz, tone.frequency_hz)
        if abs(found.frequency_hz / tone.frequency_hz - 1) * 1e6 > RATE_OFF_PPM:
            raise Refused(
                f"The tone of {tone.frequency_hz:g} Hz is found at {found.frequency_hz:.6g} Hz: the sample rate of {rate_hz:g} Hz "
                "is wrong. Measure it first (triax calibrate clock)."
            )
        axis = int(np.argmax(found.amplitude_g))
        others = np.delete(found.amplitude_g, axis)
        # With the commanded frequency known the phase at the first sample is the middle's, carried back along the tone.
        back = 360 * tone.frequency_hz * (len(values) - 1) / 2 / rate_hz
        phase = (found.phase_deg[axis] - back - tone.phase_deg + 180) % 360 - 180
        out.append(
            Response(
                frequency_hz=tone.frequency_hz,
                magnitude=float(found.amplitude_g[axis] / tone.amplitude_g),
                magnitude_sd=float(found.amplitude_sd[axis] / tone.amplitude_g),
                phase_deg=float(phase),
                phase_sd=float(found.phase_sd[axis]),
                axis=axis,
                transverse=float(others.max() / found.amplitude_g[axis]),
            )
        )
    return out
