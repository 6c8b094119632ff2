"""Recordings beside the repository, and what several tests of calibration need."""

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from triax_tools.calibrate import gravity

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="package", autouse=True)
def _one_blas_thread():
    """Small matrices many times over: BLAS threads only wait for each other, by a factor of 40 on a busy machine."""
    with threadpool_limits(1, user_api="blas"):
        yield


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
