"""Where MLflow keeps its runs: a SQLite file beside the results, or a server of the user's choice."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from reports.results import ReportError
from search_spaces.errors import one_problem
from search_spaces.secrets import hide_secrets

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"
_KIND_TAG = "mlflow.experimentKind"
"""Tag by which MLflow's pages open on runs and metrics rather than on chat traces."""

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
"""MLflow reads these at each request. Its own defaults wait for minutes in each; here what fails is
tried again as a whole. One retry, because a server that was restarted drops the connection."""

P = ParamSpec("P")
R = TypeVar("R")


class TrackingError(ReportError):
    """The tracking store cannot be reached or refused a request; never holds credentials."""


@dataclass(frozen=True)
class TrackingStore:
    """A tracking store's address."""

    uri: str
    artifact_location: str | None = None
    """Where new experiments keep artifacts; absent: the server decides."""

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return mask_credentials(self.uri)

    def __repr__(self) -> str:
        return f"TrackingStore({self.shown!r})"


def tracking_store(runs: Path, environ: Mapping[str, str] = os.environ) -> TrackingStore:
    """The store that the environment names, else a SQLite file in the runs' folder.

    Args:
        runs: folder that holds the sweeps' folders.
        environ: where `MLFLOW_TRACKING_URI` is looked up.
    """
    uri = environ.get("MLFLOW_TRACKING_URI", "").strip()
    if uri:
        return TrackingStore(uri)
    folder = runs.resolve()
    return TrackingStore(f"sqlite:///{folder / DATABASE_NAME}", (folder / ARTIFACTS_NAME).as_uri())


def mask_credentials(text: str) -> str:
    """The text with user names, passwords and tokens taken out; see `hide_secrets`."""
    return hide_secrets(text)


class HasStore(Protocol):
    """What talks to a store."""

    store: TrackingStore


S = TypeVar("S", bound=HasStore)


def masked(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method whose tracking failures become `TrackingError`, without credentials.

    The original exception is not chained: its text may hold the address as it was given.
    """

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            message = mask_credentials(" ".join(str(error).split()))
        raise TrackingError(
            one_problem("MLflow", self.store.shown, f"the tracking store must answer: {message}")
        )

    return call


def database_file(store: TrackingStore) -> Path | None:
    """The store's SQLite file; nothing for any other store."""
    if not store.uri.startswith("sqlite:///"):
        return None
    return Path(store.uri.removeprefix("sqlite:///"))


def open_client(store: TrackingStore) -> MlflowClient:
    """A client for the store; a SQLite file and its folder are made where they are missing."""
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    database = database_file(store)
    with _quiet("mlflow", "alembic"):
        if database is not None and not database.exists():
            _make_database(database)
        return MlflowClient(tracking_uri=store.uri)


def _make_database(file: Path) -> None:
    """A database with MLflow's tables and nothing in them, whole or not there.

    MLflow makes its tables in many steps, and never completes what a killed process left half made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
        made = Path(folder) / file.name
        MlflowClient(tracking_uri=f"sqlite:///{made}")
        try:
            os.link(made, file)
        except FileExistsError:
            return  # another process was quicker, and may have written to its own by now
        except OSError:  # a file system without links
            os.replace(made, file)


def ensure_experiment(client: MlflowClient, store: TrackingStore, name: str) -> str:
    """The experiment's identity; it is made where it is missing, and taken back where it was deleted.

    Args:
        client: for the store.
        store: where.
        name: the sweep's name.
    """
    with _quiet("mlflow", "alembic"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            made = client.create_experiment(
                name,
                store.artifact_location,
                tags={_KIND_TAG: "custom_model_development"},
            )
            return str(made)
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without the hundred lines that making a database otherwise logs."""
    before: dict[str, Any] = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
