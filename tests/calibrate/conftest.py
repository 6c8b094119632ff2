"""Recordings beside the repository, and what several tests of calibration need."""

from pathlib import Path

import numpy as np
import pytest
from triax_tools.calibrate import gravity

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def data():
    """Folder of third-party recordings; they are never in the repository."""
    if not DATA.is_dir():
        pytest.skip("the recordings (shared/data beside the repository) are not here")
    return DATA


@pytest.fixture(scope="session")
def xsens(data):
    """imu_tk's Xsens log as counts (51175, 3)."""
    return np.loadtxt(data / "imu-tk-xsens" / "xsens_acc.mat")[:, 1:]


@pytest.fixture(scope="session")
def standard():
    """Gravity of the simulations: a local g that is a standard g."""
    return gravity.given(9.80665)
