"""Sums of a window with its glitches taken out, sums of several windows, and the feature row of either.

| feature | formula | unit |
|---|---|---|
| mean | sum over frames of N m / sum of N, m the mean of a frame's 10 ms values, N its raw samples | g |
| rms | sqrt(sum of squares about zero / sum of N - mean^2): of every raw sample, about the mean | g |
| minimum, maximum | of every raw sample that is no glitch | g |
| peak | max(maximum - mean, mean - minimum) | g |
| crest | peak / rms | 1 |

A glitch of height a over the frame's mean is taken out of the sums: a / N from the mean, a^2 from the squares. A window whose
frames all have one falls back on the 10 ms values for its extremes.
"""

from typing import Any

import numpy as np
from triax_proto.frame import NO_TEMPERATURE

from triax_backend.stream.features import FEATURE
from triax_backend.stream.glitch import Judged
from triax_backend.stream.robust import masked_sum
from triax_backend.stream.state import SUMMARY

__all__ = ["add", "feature_rows", "summarise"]

Array = np.ndarray[Any, Any]


def summarise(cells: dict[str, Array], valid: Array | None, judged: Judged) -> Array:
    """SUMMARY of each window from its frames (fields of CELL, (frames, windows, ..)); `valid` (frames, windows), None: all
    there."""
    samples = cells["samples"]
    frames, windows = samples.shape
    out = np.zeros(windows, SUMMARY)
    shown = None if valid is None else valid[:, :, None]
    here = np.ones(samples.shape, bool) if valid is None else valid
    mean, square = cells["mean"], cells["fast"] + cells["slow"]
    if not judged.calm:
        safe = np.maximum(samples, 1)[:, :, None]
        up = np.where(judged.glitch_high, cells["maximum"] - mean, 0)
        down = np.where(judged.glitch_low, mean - cells["minimum"], 0)
        mean = mean - (up - down) / safe
        square = np.maximum(square - (up * up + down * down) * (1 - 1 / safe), 0)
        out["glitches"] = judged.glitch_high.sum(axis=(0, 2)) + judged.glitch_low.sum(axis=(0, 2))
    out["frames"] = here.sum(axis=0)
    out["samples"] = masked_sum(samples, valid)
    exact, weight = mean.astype(np.float64), samples[:, :, None].astype(np.float64)
    out["total"] = masked_sum(weight * exact, shown)
    out["square"] = masked_sum(square + weight * exact * exact, shown)
    for name, glitch, spare, worst, pick in (
        ("minimum", judged.glitch_low, "low", np.float32(np.inf), np.min),
        ("maximum", judged.glitch_high, "high", np.float32(-np.inf), np.max),
    ):
        if judged.calm and shown is None:
            out[name] = pick(cells[name], axis=0)
            continue
        all_here = here[:, :, None]
        best = pick(np.where(all_here & ~glitch, cells[name], worst), axis=0)
        out[name] = np.where(np.isinf(best), pick(np.where(all_here, cells[spare], worst), axis=0), best)
    out["flags"] = np.bitwise_or.reduce(np.where(here, cells["flags"], 0), axis=0)
    out["lost_samples"] = np.where(here, cells["lost_samples"], 0).max(axis=0)
    out["time_error_us"] = np.where(here, cells["time_error_us"], 0).max(axis=0)
    each = np.arange(windows)
    out["time_us"] = cells["time_us"][here.argmax(axis=0), each]
    out["rate_hz"] = cells["rate_hz"][frames - 1 - here[::-1].argmax(axis=0), each]
    measured = here & (cells["temperature_mc"] != NO_TEMPERATURE)
    out["temperature"] = masked_sum(cells["temperature_mc"] / 1000.0, measured)
    out["temperatures"] = measured.sum(axis=0)
    return out


def add(before: Array, after: Array) -> Array:
    """SUMMARY of both, `before` the earlier one; an empty one (no frames) changes nothing."""
    out = after.copy()
    for name in ("frames", "samples", "total", "square", "glitches", "temperature", "temperatures"):
        out[name] = before[name] + after[name]
    out["flags"] = before["flags"] | after["flags"]
    for name in ("lost_samples", "time_error_us", "spike_score"):
        out[name] = np.maximum(before[name], after[name])
    some, both = before["frames"] > 0, (before["frames"] > 0) & (after["frames"] > 0)
    out["time_us"] = np.where(some, before["time_us"], after["time_us"])
    out["rate_hz"] = np.where(after["frames"] > 0, after["rate_hz"], before["rate_hz"])
    for name, pick in (("minimum", np.minimum), ("maximum", np.maximum)):
        joined = pick(before[name], after[name])
        out[name] = np.where(both[:, None], joined, np.where(some[:, None], before[name], after[name]))
    return out


def feature_rows(device: Array, boot: Array, window: Array, windows: int, summary: Array) -> Array:
    """FEATURE rows of summaries."""
    out = np.zeros(len(summary), FEATURE)
    out["device"], out["boot"], out["window"], out["windows"] = device, boot, window, windows
    for name in ("frames", "samples", "time_us", "time_error_us", "rate_hz", "glitches", "lost_samples", "flags", "spike_score"):
        out[name] = summary[name]
    samples = np.maximum(summary["samples"], 1.0)[:, None]
    mean = summary["total"] / samples
    rms = np.sqrt(np.maximum(summary["square"] / samples - mean * mean, 0.0))
    peak = np.maximum(summary["maximum"] - mean, mean - summary["minimum"])
    out["mean"], out["rms"], out["peak"] = mean, rms, peak
    out["crest"] = np.where(rms > 0, peak / np.where(rms > 0, rms, 1.0), 0.0)
    out["minimum"], out["maximum"] = summary["minimum"], summary["maximum"]
    warm = summary["temperatures"] > 0
    out["temperature_c"] = np.where(warm, summary["temperature"] / np.maximum(summary["temperatures"], 1.0), np.nan)
    return out
