"""Local gravity from latitude and height: it is a scale factor of the whole calibration.

Somigliana's formula on the WGS 84 ellipsoid with the second-order height correction (NIMA TR8350.2, sections 4.1 and 4.3). What the
formula cannot know (the anomaly) is some tens of ppm on land; a measured value is better and is taken as it is.
"""

import math
from dataclasses import dataclass

from triax_tools.calibrate.errors import BadInput

__all__ = ["ANOMALY_PPM", "Gravity", "given", "local"]

ANOMALY_PPM = 50.0  # standard uncertainty of the formula on land; ends up in the scale's stated error

_EQUATOR = 9.7803253359  # m/s2, normal gravity at the equator
_K = 0.00193185265241
_E2 = 0.00669437999013  # first eccentricity squared
_A = 6378137.0  # m, semi-major axis
_F = 1 / 298.257223563
_M = 0.00344978650684  # ratio of centrifugal to gravitational acceleration at the equator


@dataclass(frozen=True)
class Gravity:
    """|g| in m/s2, its relative standard uncertainty, and where it came from."""

    m_s2: float
    sd_ppm: float
    source: str


def local(latitude_deg: float, height_m: float = 0.0) -> Gravity:
    """Normal gravity at a geodetic latitude and a height above sea level. Raises BadInput outside -90..90 or -500..9000."""
    if not -90 <= latitude_deg <= 90:
        raise BadInput(f"latitude {latitude_deg} is outside -90..90 degrees")
    if not -500 <= height_m <= 9000:
        raise BadInput(f"height {height_m} m is outside -500..9000 m above sea level")
    s2 = math.sin(math.radians(latitude_deg)) ** 2
    surface = _EQUATOR * (1 + _K * s2) / math.sqrt(1 - _E2 * s2)
    value = surface * (1 - 2 / _A * (1 + _F + _M - 2 * _F * s2) * height_m + 3 / _A**2 * height_m**2)
    return Gravity(value, ANOMALY_PPM, f"WGS 84 at latitude {latitude_deg:g} deg, height {height_m:g} m")


def given(m_s2: float, sd_ppm: float = 1.0) -> Gravity:
    """A value measured or taken from a survey. Raises BadInput outside 9.76..9.84 (no place on Earth)."""
    if not 9.76 <= m_s2 <= 9.84:
        raise BadInput(f"gravity {m_s2} m/s2 is found nowhere on Earth (9.76..9.84); give --gravity in m/s2")
    return Gravity(m_s2, sd_ppm, "given")
