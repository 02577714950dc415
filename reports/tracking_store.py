"""Where MLflow keeps its runs: a SQLite file beside the results, or a server of the user's choice."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from reports.results import ReportError
from search_spaces.errors import one_problem

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"
_KIND_TAG = "mlflow.experimentKind"
"""Tag by which MLflow's pages open on runs and metrics rather than on chat traces."""

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
    """The text with user names and passwords in addresses, and secret query values, taken out."""
    text = re.sub(r"://[^\s/'\"]*@", "://***@", text)
    return re.sub(
        r"(?i)\b((?:\w*password|passwd|pwd|\w*token|\w*secret|api_?key)=)[^&\s'\"]+", r"\1***", text
    )


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


def open_client(store: TrackingStore) -> MlflowClient:
    """A client for the store; a SQLite file and its folder are made where they are missing."""
    if store.uri.startswith("sqlite:///"):
        Path(store.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    with _quiet("mlflow", "alembic"):
        return MlflowClient(tracking_uri=store.uri)


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
