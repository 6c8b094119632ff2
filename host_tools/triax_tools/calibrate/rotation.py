"""Rotation from the sensor to the case: a measurement of its own, with its own uncertainty, never folded into the intrinsic fit.

Two or more rests with a *named* face of the case up fix it: R a = d in the least-squares sense (Kabsch). The intrinsic fit cannot
see R, and what the hand did wrong when it placed the case cannot reach the intrinsic numbers through here.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when first used: `triax --help` needs none

from triax_tools.calibrate.errors import Refused
from triax_tools.calibrate.model import Array

__all__ = ["CaseRotation", "case_rotation"]

PLACEMENT_DEG = 0.5  # tilt of a face on a table, 1 sigma, where nothing better is known
WARN_DEG = 10.0  # a larger rotation is more likely a wrong name than a mounting error


@dataclass(frozen=True)
class CaseRotation:
    """case = matrix @ sensor. `sd_deg`: standard error of the rotation about each case axis."""

    matrix: Array
    angle_deg: float
    sd_deg: Array
    residual_deg: Array  # angle left between each face and its name
    faces: tuple[str, ...]
    suspicious: bool


def case_rotation(ups: Array, faces: Array, names: tuple[str, ...], placement_deg: float = PLACEMENT_DEG) -> CaseRotation:
    """R from calibrated accelerations at rest (n, 3) and the case directions (n, 3) that pointed up.

    Raises Refused with fewer than two faces, or parallel ones.
    """
    if len(ups) < 2:
        raise Refused("One face leaves the rotation about it free: rest the case on two faces that are not opposite.")
    unit = ups / np.linalg.norm(ups, axis=1)[:, None]
    wanted = faces / np.linalg.norm(faces, axis=1)[:, None]
    # Each face fixes the two rotations across it.
    information = sum((np.eye(3) - np.outer(d, d) for d in wanted), np.zeros((3, 3))) / np.radians(placement_deg) ** 2
    if np.linalg.cond(information) > 1e6:
        raise Refused("The named faces are parallel or opposite: rest the case on one across them too.")
    turn, _ = scipy.spatial.transform.Rotation.align_vectors(wanted, unit)
    left = np.degrees(np.arccos(np.clip(np.sum(turn.apply(unit) * wanted, axis=1), -1, 1)))
    freedom = 2 * len(ups) - 3
    excess = float(np.sqrt(np.sum(left**2) / freedom)) / placement_deg
    sd = np.degrees(np.sqrt(np.diag(np.linalg.inv(information)))) * max(1.0, excess)
    angle = float(np.degrees(turn.magnitude()))
    return CaseRotation(turn.as_matrix(), angle, sd, left, names, angle > WARN_DEG)
