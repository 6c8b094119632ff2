"""Counts to calibrated g: what `triax read` and the database use.

Values take the full matrix, offset and temperature terms. A minimum or maximum is of one axis at an unknown moment, and a mean
square mixes axes that were not stored together: they take offset and own-axis sensitivity only, and say so (OWN_AXIS_ONLY).
"""

from dataclasses import dataclass

import numpy as np
from triax_backend.calibrations import EXPIRED, NOT_VALID

from triax_tools.calibrate import compact
from triax_tools.calibrate.document import Document
from triax_tools.calibrate.model import Array

__all__ = [
    "CLAMPED",
    "EXPIRED",
    "NOT_VALID",
    "NO_TEMPERATURE_MEASURED",
    "OWN_AXIS_ONLY",
    "PARTIAL",
    "Calibrated",
    "calibrate_counts",
    "calibrate_frames",
]

# EXPIRED and NOT_VALID are set where the database is asked what is in force.
OWN_AXIS_ONLY = 1  # minimum, maximum and rms: offset and own-axis sensitivity, no cross-axis terms
CLAMPED = 2  # the temperature was outside the calibrated range; the nearest end was used
NO_TEMPERATURE_MEASURED = 4  # the calibration has temperature terms, the frame has no temperature
PARTIAL = 8  # rms: the frame covers samples that are in no whole window, their mean was taken as that of the windows


@dataclass(frozen=True)
class Calibrated:
    """Frames in g (9.80665 m/s2). `flags` (n,) are the bits above; `hash` is the SHA-256 of the calibration that was used."""

    values_g: Array  # (n, k, 3)
    minimum_g: Array  # (n, 3)
    maximum_g: Array
    rms_g: Array
    flags: Array
    hash: bytes


def _warm(document: Document, temperature_c: Array) -> tuple[Array, Array, Array]:
    """Offset change, gain change (n, 3), and flags (n,)."""
    terms = document.temperature
    if not len(terms.offset) and not len(terms.gain):
        zero = np.zeros((len(temperature_c), 3))
        return zero, zero, np.zeros(len(temperature_c), np.uint8)
    inside, clamped = terms.clamp(temperature_c)
    unknown = ~np.isfinite(temperature_c)
    flags = np.where(unknown, NO_TEMPERATURE_MEASURED, np.where(clamped, CLAMPED, 0)).astype(np.uint8)
    offset, gain = terms.terms(inside)
    return offset, gain, flags


def calibrate_counts(document: Document, counts: Array, temperature_c: Array | None = None) -> tuple[Array, Array]:
    """g (n, 3) and flags (n,) of raw counts (n, 3) at temperatures (n,) in C (None or NaN: not measured)."""
    celsius = np.full(len(counts), np.nan) if temperature_c is None else np.broadcast_to(temperature_c, (len(counts),))
    offset, gain, flags = _warm(document, np.asarray(celsius, float))
    model = document.model
    return ((counts - model.offset - offset) / (1 + gain)) @ model.matrix.T, flags


def calibrate_frames(document: Document, frames: Array) -> Calibrated:
    """Frames of one `triax_proto.frame.frame_dtype` array in g. Does not check identity: `Document.check` does."""
    from triax_proto.frame import NO_TEMPERATURE

    raw = frames["temperature_mc"]
    celsius = np.where(raw == NO_TEMPERATURE, np.nan, raw / 1000.0)
    offset, gain, flags = _warm(document, celsius)
    model = document.model
    zero = model.offset + offset
    stretch = 1 + gain
    decimation = frames["decimation"].astype(float)[:, None]
    sums = np.stack([frames[axis].astype(float) for axis in "xyz"], axis=-1)
    means = sums / decimation[:, :, None]
    values = ((means - zero[:, None]) / stretch[:, None]) @ model.matrix.T
    sensitivity = np.linalg.norm(np.linalg.inv(model.matrix), axis=1) * stretch  # counts per g, own axis
    minimum = (frames["minimum"] - zero) / sensitivity
    maximum = (frames["maximum"] - zero) / sensitivity
    samples = frames["samples"].astype(float)[:, None]
    # mean (m - b)^2 = mean m^2 - 2 b mean m + b^2
    middle = means.mean(axis=1)
    square = frames["sum_squares"].astype(float) / samples - 2 * zero * middle + zero**2
    rms = np.sqrt(np.maximum(square, 0)) / sensitivity
    partial = frames["samples"] != sums.shape[1] * frames["decimation"]
    flags = flags | OWN_AXIS_ONLY | np.where(partial, PARTIAL, 0).astype(np.uint8)
    return Calibrated(values, minimum, maximum, rms, flags, compact.digest(compact.encode(document)))
