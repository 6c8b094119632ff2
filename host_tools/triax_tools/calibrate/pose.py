"""The 18 poses of a calibration, their names, and which of them a set of rests has covered.

6 faces and 12 edges of a cube: standard errors per unit sigma of a pose mean are 0.41 (offset), 0.53 (scale) and 1.0
(misalignment), and a hand error of 7 degrees changes them by less than 15 %. A pose is named by what points up:
"+X" or "+X-Y" (halfway).
"""

import itertools

import numpy as np

from triax_tools.calibrate.model import Array

__all__ = ["CELLS", "CELL_RADIUS_DEG", "FACES", "NAMES", "cell_of", "design", "design_condition", "instruction", "missing", "names"]

_FACES = [tuple(sign if axis == k else 0 for k in range(3)) for axis in range(3) for sign in (1, -1)]
_EDGES = [v for v in itertools.product((1, 0, -1), repeat=3) if sum(map(abs, v)) == 2]
FACES = 6  # the first six cells
CELLS: Array = np.array([np.array(v) / np.linalg.norm(v) for v in _FACES + _EDGES])
NAMES = tuple("".join(f"{'+' if c > 0 else '-'}{axis}" for c, axis in zip(v, "XYZ", strict=True) if c) for v in _FACES + _EDGES)
# Neighbouring cells are 45 degrees apart: 22.5 would leave no pose of a careless hand out, 20 keeps each near its own cell.
CELL_RADIUS_DEG = 20.0


def cell_of(direction: Array) -> tuple[int, float]:
    """Nearest cell to the upward direction (any length), and its distance in degrees."""
    unit = direction / np.linalg.norm(direction)
    cosines = CELLS @ unit
    cell = int(np.argmax(cosines))
    return cell, float(np.degrees(np.arccos(min(1.0, float(cosines[cell])))))


def missing(directions: Array) -> list[int]:
    """Cells that no direction of (n, 3) lies in."""
    seen = {cell for cell, away in map(cell_of, directions) if away <= CELL_RADIUS_DEG}
    return [cell for cell in range(len(CELLS)) if cell not in seen]


def names(cells: list[int]) -> str:
    """'+X, -Y+Z', for messages."""
    return ", ".join(NAMES[cell] for cell in cells)


def instruction(cell: int) -> str:
    """What the human does to reach a cell."""
    parts = [NAMES[cell][at : at + 2] for at in range(0, len(NAMES[cell]), 2)]
    if len(parts) == 1:
        return f"turn {parts[0]} up"
    return f"turn the edge between {parts[0]} and {parts[1]} up"


def design(directions: Array) -> Array:
    """Jacobian of |U(m - b)| at U = 1, b = 0 for unit directions (n, 3): columns are the upper triangle of U, then the offset."""
    unit = directions / np.linalg.norm(directions, axis=1)[:, None]
    rows, columns = np.triu_indices(3)
    return np.hstack([unit[:, rows] * unit[:, columns], -unit])


def design_condition(directions: Array) -> float:
    """Condition number of the information matrix of a pose set; 6 for the 18 poses, infinite for six faces."""
    matrix = design(directions)
    singular = np.linalg.svd(matrix, compute_uv=False)
    if len(singular) < matrix.shape[1] or singular[-1] < 1e-9 * singular[0]:
        return float("inf")
    return float((singular[0] / singular[-1]) ** 2)
