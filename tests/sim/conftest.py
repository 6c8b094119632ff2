"""Fixtures of the simulator's tests."""

import importlib.util
from pathlib import Path

import pytest


def _load(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def broker():
    """A FakeBroker that runs."""
    fake = _load("fake_broker").FakeBroker()
    fake.start()
    yield fake
    fake.stop()
