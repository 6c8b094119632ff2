"""Medians and sums over the frames of windows, with holes, and a median and MAD that are followed one window at a time.

Frames are axis 0, so each step is one pass over all windows. Only + - * / sqrt, minimum, maximum and comparisons, in a fixed order:
every numpy and every engine gives the same bits.
"""

from typing import Any

import numpy as np

__all__ = ["MAD_TO_SIGMA", "follow", "masked_median", "masked_sum"]

MAD_TO_SIGMA = np.float32(1.4826)  # of a normal distribution

Array = np.ndarray[Any, Any]


def masked_sum(values: Array, valid: Array | None) -> Array:
    """Sum over axis 0 of the valid ones (None: all), added in the order of the axis, in double precision."""
    shown = values if valid is None else np.where(valid, values, 0)
    return np.asarray(shown.sum(axis=0, dtype=np.float64))


def _ranked(values: Array) -> list[Array]:
    """Rows of axis 0 sorted element by element: insertion by compare and exchange, one pass over all windows each."""
    ranked: list[Array] = []
    for row in values:
        rest = row
        for index, other in enumerate(ranked):
            ranked[index] = np.minimum(other, rest)
            rest = np.maximum(other, rest)
        ranked.append(rest)
    return ranked


def masked_median(values: Array, valid: Array | None) -> Array:
    """Median over axis 0 of the valid ones (None: all), 0 where there is none."""
    if valid is None:
        ranked = _ranked(values)
        return np.asarray((ranked[(len(values) - 1) // 2] + ranked[len(values) // 2]) / 2)
    sorted_ = np.stack(_ranked(np.where(valid, values, np.inf)))
    count = np.broadcast_to(valid, values.shape).sum(axis=0)
    low = np.maximum((count - 1) // 2, 0)[None]
    high = np.minimum(count // 2, len(values) - 1)[None]
    middle = (np.take_along_axis(sorted_, low, 0) + np.take_along_axis(sorted_, high, 0))[0] / 2
    return np.where(count > 0, middle, 0).astype(values.dtype)


def follow(centre: Array, deviation: Array, values: Array, valid: Array | None, gain: Array | np.float32) -> tuple[Array, Array]:
    """Median and robust deviation (1.4826 MAD) moved towards the valid `values` (several, windows, ..) of one window each.

    Stochastic approximation (Robbins and Monro) of the two quantiles: the centre moves by gain x deviation x (share above - share
    below); the deviation grows or shrinks by gain x (share outside - share inside) of its MAD. A value counts by its side alone, so
    an outlier moves either by one share whatever its height; after a real change the deviation grows exponentially until it fits.
    """
    distance = values - centre
    above = np.sign(distance)
    out = np.sign(np.abs(distance) * MAD_TO_SIGMA - deviation)
    count = np.float32(len(values))
    if valid is not None:
        above, out, count = np.where(valid, above, 0), np.where(valid, out, 0), np.maximum(valid.sum(axis=0), 1).astype(np.float32)
    # sums of -1, 0 and 1: exact in any order
    side, outside = above.sum(axis=0), out.sum(axis=0)
    return centre + gain * deviation * (side / count), deviation * (1 + gain * (outside / count))
