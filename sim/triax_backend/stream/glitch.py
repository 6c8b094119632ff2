"""A single bad sample, a shock, or neither: what a frame's extremes and its sum of squares tell together.

Per frame and axis there are N raw samples (1,600), their smallest and largest, their sum of squares, and ten 10 ms values. Let

    a   how far the extreme stands out of the local level. The level is one of the 10 ms values, so a is between
        extreme - high and extreme - low (for a maximum), `high` and `low` the largest and smallest 10 ms value
    E   the excess energy: fast - N P, `fast` the sum of squares about the 10 ms values and P its usual mean (median of the
    frames before) s   the usual spread of N P from frame to frame (robust, at least that of white noise: P sqrt(2 N))

One bad sample adds E = a^2. Anything that came through the part's own filter is spread over several samples: a band-limited
pulse of bandwidth B at rate f carries E = a^2 f / (2 B), which is 2 a^2 for the widest parts here (IIS3DWB: 6.3 kHz at 26.7 kHz,
ADXL382: 4 kHz at 16 kHz), and a real shock rings, which makes it 4 a^2 and more. So, in units of a^2:

    glitch  0.5 <= E <= 1.5, with a^2 large enough against s to tell 1 from 2
    shock   E - 3 s > 2.1 where one side stands out (two bad samples on that side give at most 2); where both do, a^2 is the sum of
            both, two bad samples give 1, and a shock is what has more than 1.5
    neither is claimed in between: an extreme that stands out but whose energy drowns in the machine's own.

Slow motion and steps of the level move the 10 ms values along and so leave a
and `fast` almost as they are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LIMIT", "SIGMAS", "Judged", "judge", "usual_floor"]

# Robust deviations above the usual peak. A frame's peak is an extreme of 1,600 samples with a long upper tail (Gumbel): at 8 one
# frame in 10^7 of white noise would pass this test alone.
LIMIT = np.float32(8)
# And that many standard deviations of the raw samples, for machines whose peaks hardly vary.
SIGMAS = np.float32(6)
_SURE = np.float32(3)  # deviations of the energy
_ONE_LOW, _ONE_HIGH = np.float32(0.5), np.float32(1.5)
_SEVERAL, _BOTH = np.float32(2.1), np.float32(1.5)
_PEAK_FLOOR = np.float32(0.05)  # of the usual peak: what rises by less than 8 x 5 % is no spike
_QUANTUM = np.float32(0.5)  # counts
# A scale of 0 (no frame of ours has one) must not divide by zero.
_TINY = np.float32(1e-12)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Judged:
    """Per frame, window and axis (all of shape (frames, windows, 3))."""

    score: Array  # (a - usual) / deviation, a the lower bound on the larger side
    stands_out: Array
    shock: Array
    glitch_high: Array  # the maximum is one bad sample
    glitch_low: Array
    calm: bool  # nothing stands out anywhere

    def take(self, which: Array) -> "Judged":
        """Those windows."""
        score, out, shock = self.score[:, which], self.stands_out[:, which], self.shock[:, which]
        return Judged(score, out, shock, self.glitch_high[:, which], self.glitch_low[:, which], self.calm)


def usual_floor(peak: Array, deviation: Array, scale_g: Array) -> Array:
    """Deviation of the usual peak, not below what is significant (5 %) or can be resolved (half a count)."""
    return np.maximum(np.maximum(deviation, _PEAK_FLOOR * peak), np.maximum(_QUANTUM * scale_g, _TINY))


def judge(cells: dict[str, Array], peaks: Array, valid: Array | None, usual: dict[str, Array]) -> Judged:
    """Judge frames (fields of CELL, (frames, windows, ..)) against what is usual (windows, 3): peak g, power g^2 and deviations."""
    peak, power = usual["peak"], usual["power"]
    deviation = usual_floor(peak, usual["peak_dev"], cells["scale_g"].max(axis=0)[:, None])
    limit = np.maximum(peak + LIMIT * deviation, SIGMAS * np.sqrt(power))
    score = (peaks - peak) / deviation
    out = peaks > limit
    if valid is not None:
        score = np.where(valid, score, 0)
        out &= valid
    if not out.any():
        return Judged(score, out, out, out, out, calm=True)
    one, up, down, shock = (np.zeros(out.shape, bool) for _ in range(4))
    hit = np.flatnonzero(out.any(axis=(0, 2)))
    some = {name: cells[name][:, hit] for name in ("minimum", "maximum", "low", "high", "fast", "samples")}
    up_low, up_high = some["maximum"] - some["high"], some["maximum"] - some["low"]
    down_low, down_high = some["low"] - some["minimum"], some["high"] - some["minimum"]
    up[:, hit], down[:, hit] = (up_low > limit[hit]) & out[:, hit], (down_low > limit[hit]) & out[:, hit]
    least = np.where(up[:, hit], up_low * up_low, 0) + np.where(down[:, hit], down_low * down_low, 0)
    most = np.where(up[:, hit], up_high * up_high, 0) + np.where(down[:, hit], down_high * down_high, 0)
    samples, usual_power = some["samples"][:, :, None], power[hit]
    excess = some["fast"] - samples * usual_power
    spread = np.maximum(samples * usual["power_dev"][hit], usual_power * np.sqrt(2 * samples))
    resolved = _ONE_LOW * least > _SURE * spread
    one[:, hit] = out[:, hit] & (excess <= _ONE_HIGH * most) & (excess + _SURE * spread >= _ONE_LOW * least) & resolved
    several = np.where(up[:, hit] & down[:, hit], _BOTH, _SEVERAL)
    shock[:, hit] = out[:, hit] & (excess - _SURE * spread > several * most)
    return Judged(score, out, shock, one & up, one & down, calm=False)
