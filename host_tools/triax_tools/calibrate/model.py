"""The sensor model, and the nine intrinsic numbers that two calibrations are compared by.

    m = S a + b        what the sensor does (m: counts; a: g; S: sensing rows; b: offset)
    a = U (m - b)      what is applied (U = inverse of S, upper triangular: the gauge)
    case = R a         the case frame, a separate measurement (rotation.py)

The intrinsic numbers do not depend on the gauge nor on how the board was held (NIST, J. Res. 122.32): three sensitivities
(lengths of the rows of S, counts per g), three offsets (counts), three angles between sensing axes (rad).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["INTRINSIC_NAMES", "STANDARD_G", "Array", "Model", "from_intrinsic", "intrinsic", "intrinsic_jacobian", "pack", "unpack"]

Array = np.ndarray[Any, np.dtype[Any]]

STANDARD_G = 9.80665  # m/s2, exact: the "g" of results; local gravity only scales the fit
INTRINSIC_NAMES = (
    "sensitivity_x",
    "sensitivity_y",
    "sensitivity_z",
    "offset_x",
    "offset_y",
    "offset_z",
    "angle_xy",
    "angle_xz",
    "angle_yz",
)
_UPPER = np.triu_indices(3)


@dataclass(frozen=True)
class Model:
    """a = matrix @ (counts - offset): matrix in g per count (3, 3), offset in counts (3,)."""

    matrix: Array
    offset: Array

    def apply(self, counts: Array) -> Array:
        """Acceleration in g of counts (..., 3)."""
        return np.asarray((counts - self.offset) @ self.matrix.T)

    def respond(self, g: Array) -> Array:
        """Counts that the sensor shows at accelerations in g (..., 3)."""
        return np.asarray(g @ np.linalg.inv(self.matrix).T + self.offset)


def pack(model: Model) -> Array:
    """The nine parameters of a fit: upper triangle of the matrix by rows, then the offset."""
    return np.concatenate([model.matrix[_UPPER], model.offset])


def unpack(theta: Array) -> Model:
    """Inverse of `pack`."""
    matrix = np.zeros((3, 3))
    matrix[_UPPER] = theta[:6]
    return Model(matrix, np.array(theta[6:]))


def intrinsic(model: Model) -> Array:
    """Nine numbers in the order of INTRINSIC_NAMES: counts/g, counts, rad."""
    rows = np.linalg.inv(model.matrix)
    length = np.linalg.norm(rows, axis=1)
    unit = rows / length[:, None]
    cosine = np.array([unit[0] @ unit[1], unit[0] @ unit[2], unit[1] @ unit[2]])
    return np.concatenate([length, model.offset, np.arccos(cosine)])


def from_intrinsic(values: Array) -> Model:
    """The model with an upper triangular matrix that has these nine numbers."""
    xy, xz, yz = np.cos(values[6:])
    # Rows of an upper triangular S: z along the third axis, y in the second and third, x in all three.
    z = np.array([0.0, 0.0, 1.0])
    y = np.array([0.0, np.sqrt(1 - yz**2), yz])
    x2 = (xy - xz * yz) / y[1]
    x = np.array([np.sqrt(1 - xz**2 - x2**2), x2, xz])
    return Model(np.linalg.inv(np.array([x, y, z]) * values[:3, None]), np.array(values[3:6]))


def intrinsic_jacobian(theta: Array) -> Array:
    """d intrinsic / d theta (9, 9) by central differences, each step relative to its block's size."""
    step = np.repeat([abs(theta[[0, 3, 5]]).mean() * 1e-6, 1e-6 / abs(theta[[0, 3, 5]]).mean()], [6, 3])
    out = np.empty((9, 9))
    for column in range(9):
        low, high = theta.copy(), theta.copy()
        low[column] -= step[column]
        high[column] += step[column]
        out[:, column] = (intrinsic(unpack(high)) - intrinsic(unpack(low))) / (2 * step[column])
    return out
