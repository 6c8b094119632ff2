"""Power spectral density (one-sided) and Allan deviation with N, B, K (two-sided), each with its interval.

Two conventions meet here and differ by the square root of two. Data sheets and `scipy.signal.welch` give a one-sided density D;
IEEE's N, the white part of the Allan deviation at 1 s and kalibr's `accelerometer_noise_density` are two-sided: N = D / sqrt(2).

    S(f) = N^2 + B^2 / (2 pi f) + (K / (2 pi f))^2                       two-sided
    sigma^2(tau) = N^2 / tau + (2 ln 2 / pi) B^2 + K^2 tau / 3           so B = floor / 0.664, not the floor itself

N, B, K come from generalised least squares on the Allan variances with their full covariance under the model (Gaussian noise: each
covariance is an integral of S^2 over the two transfer functions), so that the intervals hold although all points share their data.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import Array

__all__ = ["Allan", "Coefficient", "NoiseFit", "Psd", "allan", "band_density", "fit_noise", "oadev", "octaves", "psd"]

MASKED_BINS = 3  # gravity and its leakage through the window lie in bins 0 to 2
_CHUNK = 1 << 15  # values: three buffers of this stay in a core's second-level cache
_PER_OCTAVE = 2
_LONGEST = 1 / 9  # of the record: beyond, a point has less than eight degrees of freedom
_GRID = 3000  # frequencies of the covariance integrals, even in log f


@dataclass(frozen=True)
class Psd:
    """One-sided density in g^2/Hz per axis (n, 3); bins that gravity leaks into are NaN."""

    frequency_hz: Array
    density: Array
    bin_hz: float
    averages: int


@dataclass(frozen=True)
class Allan:
    """Overlapping Allan deviation in g per axis (n, 3), with the relative standard error of each tau."""

    tau_s: Array
    sigma_g: Array
    relative_error: Array
    rate_hz: float
    duration_s: float


@dataclass(frozen=True)
class Coefficient:
    """A value with its 95 % interval; `bound` is set, and `value` None, where the interval reaches zero."""

    value: float | None
    low: float
    high: float
    bound: float | None


@dataclass(frozen=True)
class NoiseFit:
    """N (g s^1/2, two-sided), B (g), K (g s^-1/2) of one axis."""

    n: Coefficient
    b: Coefficient
    k: Coefficient

    @property
    def density_g(self) -> float:
        """One-sided density that N stands for, g / sqrt(Hz)."""
        return float(np.sqrt(2) * (self.n.value if self.n.value is not None else 0.0))


def psd(values_g: Array, rate_hz: float, bin_hz: float = 1.0) -> Psd:
    """Welch's density of values (n, 3) with bins of `bin_hz`: Hann window, 50 % overlap, mean of each segment removed."""
    length = round(rate_hz / bin_hz)
    if not 8 <= length <= len(values_g):
        raise Refused(
            f"{len(values_g)} values at {rate_hz:g} Hz have no bins of {bin_hz:g} Hz: record at least {8 / bin_hz:.0f} s, "
            "or choose wider bins."
        )
    hop = length - length // 2
    segments = 1 + (len(values_g) - length) // hop
    with ThreadPoolExecutor() as pool:
        parts = list(pool.map(lambda axis: _welch(axis, rate_hz, length, hop, segments), np.ascontiguousarray(values_g.T)))
    frequency, density = np.fft.rfftfreq(length, 1 / rate_hz), np.array(parts).T
    density[:MASKED_BINS] = np.nan
    if length % 2 == 0:
        density[-1] = np.nan  # half the rate has one half only: it would look like a dip
    return Psd(frequency, density, rate_hz / length, segments)


def _welch(axis: Array, rate_hz: float, length: int, hop: int, segments: int) -> Array:
    """scipy.signal.welch to 1e-10 (tested), some segments at a time so that they stay in the cache: in a tenth of its time."""
    window = scipy.signal.get_window("hann", length, fftbins=True)
    pieces = np.lib.stride_tricks.sliding_window_view(axis, length)[::hop]
    batch = max(1, _CHUNK // length)
    total = np.zeros(length // 2 + 1)
    for low in range(0, segments, batch):
        piece = pieces[low : low + batch]
        spectrum = np.fft.rfft((piece - piece.mean(axis=1, keepdims=True)) * window, axis=1)
        total += (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    total *= 2 / (rate_hz * (window @ window) * segments)  # both halves of the spectrum
    total[0] /= 2
    if length % 2 == 0:
        total[-1] /= 2
    return total


def band_density(spectrum: Psd, low_hz: float, high_hz: float) -> Array:
    """One-sided noise density (3,) in g / sqrt(Hz) between two frequencies: the median bin, so that lines do not count."""
    chosen = (spectrum.frequency_hz >= low_hz) & (spectrum.frequency_hz <= high_hz) & np.isfinite(spectrum.density[:, 0])
    if not chosen.any():
        raise Refused(f"No bin between {low_hz:g} and {high_hz:g} Hz: the record reaches {spectrum.frequency_hz[-1]:g} Hz.")
    freedom = 2 * spectrum.averages * 0.95  # 50 % overlap of a Hann window costs a twentieth
    return np.asarray(np.sqrt(np.median(spectrum.density[chosen], axis=0) * freedom / scipy.stats.chi2.median(freedom)))


def octaves(count: int, per_octave: int = _PER_OCTAVE, longest: float = _LONGEST) -> Array:
    """Averaging factors from 1 to `longest` of `count` values, rounded to whole steps of `oadev`'s thinning, without repeats."""
    most = max(1, int(count * longest))
    steps = int(np.floor(np.log2(most) * per_octave)) + 1
    exact = 2 ** (np.arange(steps) / per_octave)
    step = np.array([_step(int(m)) for m in exact])
    return np.unique((np.rint(exact / step) * step).astype(int))


def oadev(values: Array, rate_hz: float, factors: Sequence[int] | Array, thin: bool = False) -> Array:
    """Overlapping Allan deviation of one axis (n,) at tau = factor / rate, in the unit of the values.

    `thin`: begin 32 to 64 differences in each tau instead of one at every value. Neighbours share all but a fiftieth of their data,
    so this tells as much in a tenth of the time.
    """
    phase = np.empty(len(values) + 1)
    phase[0] = 0.0
    np.cumsum(values - np.mean(values), out=phase[1:])
    buffer = np.empty(_CHUNK)
    out = np.empty(len(factors))
    for index, m in enumerate(factors):
        step = _step(int(m)) if thin else 1
        thinned = phase if step == 1 or m % step else phase[::step].copy()
        out[index] = np.sqrt(_mean_square(thinned, int(m) // (1 if thinned is phase else step), buffer) / 2) / m
    return out


def _step(m: int) -> int:
    """Power of two that leaves 32 to 64 steps in `m`."""
    return int(1 << max(0, m.bit_length() - 6))


def _mean_square(phase: Array, m: int, buffer: Array) -> float:
    """Mean square of phase[i + 2 m] - 2 phase[i + m] + phase[i], piece by piece so that it stays in the cache."""
    count = len(phase) - 2 * m
    total = 0.0
    for low in range(0, count, _CHUNK):
        high = min(low + _CHUNK, count)
        part = buffer[: high - low]
        middle = phase[low + m : high + m]
        np.subtract(phase[low + 2 * m : high + 2 * m], middle, out=part)
        np.subtract(part, middle, out=part)
        np.add(part, phase[low:high], out=part)
        total += float(np.einsum("i,i->", part, part))  # no BLAS: its threads would fight ours for the cores
    return total / count


def allan(values_g: Array, rate_hz: float) -> Allan:
    """Overlapping Allan deviation of values (n, 3)."""
    if len(values_g) < 100:
        raise Refused(f"{len(values_g)} values are no Allan plot: record at least 100 times the shortest time of interest.")
    factors = octaves(len(values_g))
    with ThreadPoolExecutor() as pool:  # numpy lets go of the interpreter in each call: a core per axis
        columns = list(pool.map(lambda axis: oadev(axis, rate_hz, factors, thin=True), np.ascontiguousarray(values_g.T)))
    tau, duration = factors / rate_hz, len(values_g) / rate_hz
    return Allan(tau, np.array(columns).T, 1 / np.sqrt(2 * (duration / tau - 1)), rate_hz, duration)


def _transfer(tau_s: Array, rate_hz: float, frequency: Array) -> Array:
    """|H|^2 of the difference of neighbouring means, tau by frequency: Allan variance = integral of 2 S |H|^2 over f > 0."""
    m = np.rint(tau_s * rate_hz)[:, None]
    step = np.pi * frequency / rate_hz
    return np.asarray(2 * np.sin(m * step) ** 4 / (m * np.sin(step)) ** 2)


def _bases(frequency: Array) -> Array:
    """S(f) of N = 1, B = 1, K = 1 (rows)."""
    return np.array([np.ones_like(frequency), 1 / (2 * np.pi * frequency), (2 * np.pi * frequency) ** -2.0])


def fit_noise(measured: Allan, axis: int) -> NoiseFit:
    """N, B and K of one axis. A coefficient whose 95 % interval reaches zero becomes an upper bound."""
    tau, rate = measured.tau_s, measured.rate_hz
    frequency = np.geomspace(1 / (20 * measured.duration_s), rate / 2, _GRID)
    weight = np.gradient(np.log(frequency)) * frequency
    transfer = _transfer(tau, rate, frequency)
    bases = _bases(frequency)
    columns = (transfer * weight) @ (2 * bases.T)
    columns[:, 0] = 1 / tau  # exact; the integral on a log grid is good to a part in a thousand
    variance = measured.sigma_g[:, axis] ** 2
    if not (variance > 0).all():
        raise Refused("The values do not move at all: the record is below one count of noise, or not from a sensor.")
    spread = measured.duration_s - 2 * tau
    longest = np.maximum(spread[:, None], spread[None, :])
    covariance = np.diag((variance * measured.relative_error * 2) ** 2)
    squares = np.zeros(3)
    errors = np.zeros((3, 3))
    for _ in range(3):
        root = scipy.linalg.cholesky(covariance + np.eye(len(tau)) * 1e-9 * np.trace(covariance) / len(tau) * 1e-6, lower=True)
        white = scipy.linalg.solve_triangular(root, columns, lower=True)
        target = scipy.linalg.solve_triangular(root, variance, lower=True)
        scale = np.linalg.norm(white, axis=0)
        squares = scipy.optimize.nnls(white / scale, target)[0] / scale
        errors = np.linalg.inv((white / scale).T @ (white / scale)) / np.outer(scale, scale)
        power = squares @ bases
        covariance = (transfer * (power**2 * weight)) @ transfer.T * 4 / longest
        # Values, not a continuum: white noise at tau of a few samples has no more freedom than there are samples.
        covariance = covariance + np.diag(np.diag(covariance)) * 1e-6
    names = [_coefficient(squares[k], float(np.sqrt(errors[k, k]))) for k in range(3)]
    return NoiseFit(*names)


def _coefficient(square: float, sd: float) -> Coefficient:
    """From the estimate of a squared coefficient and its standard error."""
    low, high = square - 1.96 * sd, square + 1.96 * sd
    if low <= 0:
        return Coefficient(None, 0.0, float(np.sqrt(high)), float(np.sqrt(square + 1.645 * sd)))
    return Coefficient(float(np.sqrt(square)), float(np.sqrt(low)), float(np.sqrt(high)), None)
