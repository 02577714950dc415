import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from reports.tracking import Tracker
from reports.tracking_store import TrackingStore, tracking_store
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


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without runs: making one takes seconds, copying it none."""
    runs = tmp_path_factory.mktemp("empty")
    Tracker(tracking_store(runs, {}), "unused").ensure_store()
    return runs / "mlflow.db"


@pytest.fixture
def store(own_grid: Path, empty_database: Path) -> TrackingStore:
    shutil.copy(empty_database, own_grid.parent / "mlflow.db")
    return tracking_store(own_grid.parent, {})


@pytest.fixture
def client(store: TrackingStore) -> MlflowClient:
    return MlflowClient(tracking_uri=store.uri)


@pytest.fixture
def tracker(store: TrackingStore) -> Tracker:
    return Tracker(store, "paper_grid")
