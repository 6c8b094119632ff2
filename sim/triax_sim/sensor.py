"""What a sensor makes of motion: offset, scale, misalignment, noise, temperature, codes; and faults of single samples planted on
purpose.

`Sensor(motion, ...)` is the sample source of a virtual part: the part tells it rate, scale and codes with `begin`, then asks
counts by sample number. The same seed and numbers give the same counts, however they are asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from triax_sim.motion import Array, Motion, uniform

__all__ = ["TYPICAL", "DeadAxis", "Glitch", "Imperfections", "Sensor", "typical"]

Counts = npt.NDArray[np.int32]
NOISE_BLOCK = 4096
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Imperfections:
    """One unit's errors. Axes see `misalignment @ true x (1 + scale error) + offset`, each at its temperature, plus white noise.

    offset_g; scale_error (0.01 = 1 %); misalignment: 3 x 3, near the unit matrix; noise_ug_rthz: density; offset_mg_per_c and
    scale_ppm_per_c: temperature coefficients about 25 degrees.
    """

    offset_g: Vector = (0.0, 0.0, 0.0)
    scale_error: Vector = (0.0, 0.0, 0.0)
    misalignment: tuple[Vector, Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    noise_ug_rthz: Vector = (0.0, 0.0, 0.0)
    offset_mg_per_c: Vector = (0.0, 0.0, 0.0)
    scale_ppm_per_c: Vector = (0.0, 0.0, 0.0)

    def matrix(self, celsius: float) -> Array:
        """True g to sensed g, 3 x 3."""
        warm = celsius - 25.0
        gain = 1 + np.asarray(self.scale_error) + 1e-6 * warm * np.asarray(self.scale_ppm_per_c)
        return np.asarray(gain[:, None] * np.asarray(self.misalignment), dtype=np.float64)

    def offset(self, celsius: float) -> Array:
        """Sensed g at zero g."""
        return np.asarray(self.offset_g) + 1e-3 * (celsius - 25.0) * np.asarray(self.offset_mg_per_c)


# Per part: noise in ug/sqrt(Hz) x, y, z; largest zero-g offset in g; largest scale error; offset per degree in mg. From
# facts/sensors.md; what no data sheet text confirmed there (most offsets) is taken as given there.
TYPICAL: dict[str, tuple[Vector, float, float, float]] = {
    "adxl382": ((55.0, 55.0, 55.0), 0.05, 0.05, 0.5),
    "adxl380": ((30.0, 30.0, 30.0), 0.03, 0.05, 0.5),
    "iis3dwb": ((75.0, 75.0, 75.0), 0.06, 0.05, 1.0),
    "adxl355": ((22.5, 22.5, 25.0), 0.025, 0.08, 0.15),
    "adxl345": ((290.0, 290.0, 430.0), 0.15, 0.10, 0.8),
    "mpu6050": ((400.0, 400.0, 400.0), 0.05, 0.03, 1.0),
    "icm42688p": ((65.0, 65.0, 70.0), 0.02, 0.005, 0.15),
    "lis3dh": ((220.0, 220.0, 220.0), 0.04, 0.05, 0.5),
    "lis2dw12": ((90.0, 90.0, 90.0), 0.02, 0.05, 0.2),
}


def typical(part: str, seed: int) -> Imperfections:
    """One unit of a part out of a batch: errors uniform within the part's limits, drawn from the seed. KeyError: no such part."""
    noise, offset, scale, per_degree = TYPICAL[part]
    draw = 2 * uniform(np.arange(18), seed) - 1
    tilt = 0.01 * draw[9:15]

    def three(values: Array, limit: float) -> Vector:
        return float(values[0]) * limit, float(values[1]) * limit, float(values[2]) * limit

    return Imperfections(
        offset_g=three(draw[0:3], offset),
        scale_error=three(draw[3:6], scale),
        misalignment=(
            (1.0, float(tilt[0]), float(tilt[1])),
            (float(tilt[2]), 1.0, float(tilt[3])),
            (float(tilt[4]), float(tilt[5]), 1.0),
        ),
        noise_ug_rthz=noise,
        offset_mg_per_c=three(draw[6:9], per_degree),
        scale_ppm_per_c=three(draw[15:18], 100.0),
    )


@dataclass(frozen=True)
class Glitch:
    """One raw sample reads a wrong code on one axis: what a disturbed transfer does, and no motion can."""

    sample: int
    axis: int
    code: int


@dataclass(frozen=True)
class DeadAxis:
    """From a sample on an axis reads one code for ever."""

    axis: int
    from_sample: int
    code: int = 0


@dataclass
class Sensor:
    """Counts of one unit in motion. `rate_hz`, `lsb_per_g`, `low`, `high` come from the part through `begin`; set them to use it
    alone.

    temperature_c may change at any time; it acts on what is made after that.
    """

    motion: Motion
    imperfections: Imperfections = field(default_factory=Imperfections)
    seed: int = 1
    faults: Sequence[Glitch | DeadAxis] = ()
    temperature_c: float = 25.0
    rate_hz: float = 0.0
    lsb_per_g: float = 0.0
    low: int = -32768
    high: int = 32767
    start_s: float = 0.0
    first: int = 0
    _noise: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def begin(self, first: int, start_us: float, rate_hz: float, lsb_per_g: float, low: int, high: int) -> None:
        """The part measures: sample `first` is taken at `start_us` of the world's time, the rest at `rate_hz` (true, not
        nominal).
        """
        self.first, self.start_s, self.rate_hz = first, start_us / 1e6, rate_hz
        self.lsb_per_g, self.low, self.high = lsb_per_g, low, high

    def times(self, first: int, count: int) -> Array:
        """World time of samples, seconds."""
        return self.start_s + (np.arange(first, first + count) - self.first) / self.rate_hz

    def g(self, first: int, count: int) -> Array:
        """What the axes would read with endless resolution and range."""
        true = self.motion(self.times(first, count))
        sensed = true @ self.imperfections.matrix(self.temperature_c).T + self.imperfections.offset(self.temperature_c)
        # White noise of density d sampled at rate f fills the band to f/2.
        sigma = np.asarray(self.imperfections.noise_ug_rthz) * 1e-6 * np.sqrt(self.rate_hz / 2)
        return sensed + sigma * self._normal(first, count) if sigma.any() else sensed

    def __call__(self, first: int, count: int) -> Counts:
        codes = np.rint(self.g(first, count) * self.lsb_per_g)
        counts = np.clip(codes, self.low, self.high).astype(np.int32)
        for fault in self.faults:
            self._plant(fault, counts, first)
        return counts

    def _plant(self, fault: Glitch | DeadAxis, counts: Counts, first: int) -> None:
        if isinstance(fault, Glitch):
            if first <= fault.sample < first + len(counts):
                counts[fault.sample - first, fault.axis] = fault.code
        else:
            counts[max(0, fault.from_sample - first) :, fault.axis] = fault.code

    def _normal(self, first: int, count: int) -> npt.NDArray[Any]:
        """Standard normal values of samples, a block of them at a time from a counter-based generator."""
        pieces = []
        at = first
        while at < first + count:
            block = at // NOISE_BLOCK
            end = min(first + count, (block + 1) * NOISE_BLOCK)
            pieces.append(self._block(block)[at - block * NOISE_BLOCK : end - block * NOISE_BLOCK])
            at = end
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _block(self, number: int) -> npt.NDArray[np.float32]:
        known = self._noise.get(number)
        if known is None:
            generator = np.random.Generator(np.random.Philox(key=np.array([self.seed & 0xFFFFFFFF, number], dtype=np.uint64)))
            known = generator.standard_normal((NOISE_BLOCK, 3), dtype=np.float32)
            for old in [n for n in self._noise if abs(n - number) > 1]:
                del self._noise[old]
            self._noise[number] = known
        return known
