"""How to open MLflow's own pages on the runs."""

from __future__ import annotations

import sys
from pathlib import Path

from reports.results import ReportError
from reports.tracking_store import TrackingStore, mask_credentials
from search_spaces.errors import one_problem

_STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"


def dashboard_command(store: TrackingStore, port: int = 5000) -> list[str]:
    """The command that serves the store's pages to this machine alone.

    An address that holds credentials stays out of the command, where every user of the machine
    would see it: `dashboard_environment` has it.

    Args:
        store: a database; a server has pages of its own, at its address.
        port: where to listen.

    Raises:
        ReportError: the store is a server.
    """
    if store.uri.startswith(("http://", "https://")):
        raise ReportError(
            one_problem(
                "MLflow", store.shown, "a tracking server has its own pages: open its address"
            )
        )
    command = [sys.executable, "-m", "mlflow", "ui"]
    if not _has_credentials(store):
        command += ["--backend-store-uri", store.uri]
    if store.artifact_location is not None:
        command += ["--default-artifact-root", store.artifact_location]
    return [*command, "--host", "127.0.0.1", "--port", str(port)]


def dashboard_environment(store: TrackingStore) -> dict[str, str]:
    """What the command needs in its environment, to be added to the present one."""
    # Without the job runner MLflow starts two processes rather than ten.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if _has_credentials(store):
        environment[_STORE_VARIABLE] = store.uri
    return environment


def database_file(store: TrackingStore) -> Path | None:
    """The store's SQLite file; nothing for any other store."""
    if not store.uri.startswith("sqlite:///"):
        return None
    return Path(store.uri.removeprefix("sqlite:///"))


def _has_credentials(store: TrackingStore) -> bool:
    return mask_credentials(store.uri) != store.uri
