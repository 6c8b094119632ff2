"""A simulated unit with known truth, and the hand that turns it: poses, tremor, taps, slow rolls, creep.

The truth is the model of model.py plus white noise, temperature terms and rounding; no register, no FIFO (those are
triax_sim.chips).
"""

from dataclasses import dataclass, field

import numpy as np

from triax_tools.calibrate.model import Array, Model, from_intrinsic

__all__ = ["Unit", "draw_unit", "hand_poses", "hold", "move", "tilt", "tremor"]

COUNTS_PER_G = 16384.0  # 16-bit words at +-2 g
MISALIGNMENT_RAD = 20e-3
SCALE_ERROR = 0.03
OFFSET_G = 0.080


@dataclass(frozen=True)
class Unit:
    """What a sensor does to an acceleration in g. Densities are one-sided."""

    model: Model
    density_g: float = 75e-6  # g / sqrt(Hz), one-sided
    rate_hz: float = 1000.0
    counts_per_g: float = COUNTS_PER_G  # nominal
    offset_per_c: Array = field(default_factory=lambda: np.zeros(3))  # counts / C
    gain_per_c: Array = field(default_factory=lambda: np.zeros(3))  # relative / C, own axis
    reference_c: float = 25.0

    @property
    def sigma_counts(self) -> float:
        """Noise of one sample before rounding: density times the root of half the rate."""
        return float(self.density_g * np.sqrt(self.rate_hz / 2) * self.counts_per_g)

    def exact(self, g: Array, temperature_c: float | Array = 25.0) -> Array:
        """Counts without noise or rounding at accelerations in g (..., 3)."""
        warm = np.expand_dims(np.asarray(temperature_c) - self.reference_c, -1)
        signal = self.model.respond(g) - self.model.offset
        return np.asarray(signal * (1 + self.gain_per_c * warm) + self.model.offset + self.offset_per_c * warm)

    def read(self, g: Array, rng: np.random.Generator, temperature_c: float | Array = 25.0) -> Array:
        """Counts of samples at accelerations in g (n, 3): noise, rounding, the rails of a 16-bit word."""
        noisy = self.exact(g, temperature_c) + rng.normal(0, self.sigma_counts, np.shape(g))
        return np.clip(np.rint(noisy), -32768, 32767)


def draw_unit(rng: np.random.Generator, **changes: float) -> Unit:
    """A unit with misalignment up to 20 mrad, scale within 3 %, offset within 80 mg."""
    nine = np.r_[
        COUNTS_PER_G * (1 + rng.uniform(-SCALE_ERROR, SCALE_ERROR, 3)),
        COUNTS_PER_G * rng.uniform(-OFFSET_G, OFFSET_G, 3),
        np.pi / 2 + rng.uniform(-MISALIGNMENT_RAD, MISALIGNMENT_RAD, 3),
    ]
    return Unit(from_intrinsic(nine), **changes)  # type: ignore[arg-type]


def tilt(direction: Array, rng: np.random.Generator, most_deg: float) -> Array:
    """A unit direction turned by up to `most_deg` about a random axis across it."""
    axis = np.cross(direction, rng.normal(size=3))
    axis /= np.linalg.norm(axis)
    angle = np.radians(rng.uniform(0, most_deg))
    return np.asarray(direction * np.cos(angle) + np.cross(axis, direction) * np.sin(angle))


def hand_poses(cells: Array, rng: np.random.Generator, most_deg: float = 7.0) -> Array:
    """Upward directions (n, 3) as a hand would place them."""
    return np.array([tilt(cell, rng, most_deg) for cell in cells])


def hold(direction: Array, count: int) -> Array:
    """`count` samples at rest with `direction` up."""
    return np.repeat(direction[None], count, axis=0)


def tremor(count: int, rate_hz: float, rms_g: float, rng: np.random.Generator) -> Array:
    """Physiological tremor, 6 to 12 Hz, `rms_g` over the three axes together, (count, 3)."""
    time_s = np.arange(count) / rate_hz
    tones = rng.uniform(6, 12, 8)
    phases = rng.uniform(0, 2 * np.pi, (8, 3))
    waves = np.sin(2 * np.pi * tones[:, None, None] * time_s[None, :, None] + phases[:, None, :]).sum(axis=0)
    scale = np.sqrt(np.sum(np.square(waves)) / max(1, count)) or 1.0
    return np.asarray(waves * rms_g / scale)


def move(start: Array, stop: Array, count: int, rate_hz: float, rng: np.random.Generator) -> Array:
    """A hand turns the sensor from one upward direction to another: great circle, smooth start and stop, tremor of 5 to 20 mg."""
    angle = float(np.arccos(np.clip(start @ stop, -1, 1)))
    across = stop - start * np.cos(angle)
    if np.linalg.norm(across) < 1e-9:
        across = np.cross(start, rng.normal(size=3))
    across /= np.linalg.norm(across)
    part = np.linspace(0, 1, count)
    turned = angle * part * part * (3 - 2 * part)
    path = np.cos(turned)[:, None] * start + np.sin(turned)[:, None] * across
    return np.asarray(path + tremor(count, rate_hz, rng.uniform(5e-3, 20e-3), rng))
