"""One stack of real servers for the whole session, started by the first test that asks for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from triax_backend.stack import Stack


def pytest_addoption(parser: pytest.Parser) -> None:
    """Figures that stand in a README are written by the test that measures them, when it is asked to."""
    parser.addoption("--write-crash-table", action="store_true", help="put what the crash points showed into sim/README.md")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All five servers with empty data and the topics made. A test must not stop them for the others; `Stack` is cheap enough (5 s)
    for a test that kills servers to start its own."""
    directory: Path = tmp_path_factory.mktemp("stack")
    with Stack(directory) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start servers first: the short ones fill up the end of a run in which two files go side by side."""
    items.sort(key=lambda item: item.get_closest_marker("servers") is None)
