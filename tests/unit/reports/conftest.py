from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.reports.sweep_builder import SweepBuilder, write_grid


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that tests only read."""
    return write_grid(tmp_path_factory.mktemp("runs") / "paper_grid")


@pytest.fixture
def own_grid(tmp_path: Path) -> Path:
    """A results folder of the test's own."""
    return write_grid(tmp_path / "runs" / "paper_grid")


@pytest.fixture
def builder(tmp_path: Path) -> Callable[..., SweepBuilder]:
    """Makes an empty results folder to be filled trial by trial."""

    def make(name: str = "tiny", scale: str = "paper") -> SweepBuilder:
        return SweepBuilder(tmp_path / "runs" / name.replace("/", "_"), name, scale)

    return make
