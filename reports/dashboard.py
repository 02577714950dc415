"""How to open MLflow's own pages on the runs."""

from __future__ import annotations

import sys
from ipaddress import ip_address

from reports.results import ReportError
from reports.tracking_store import TrackingStore, mask_credentials
from search_spaces.errors import one_problem

LOOPBACK = "127.0.0.1"
_STORE_VARIABLE = "MLFLOW_BACKEND_STORE_URI"


def dashboard_command(store: TrackingStore, port: int = 5000, host: str = LOOPBACK) -> list[str]:
    """The command that serves the store's pages, to this machine alone unless asked otherwise.

    An address that holds credentials stays out of the command, where every user of the machine
    would see it: `dashboard_environment` has it.

    Args:
        store: a database; a server has pages of its own, at its address.
        port: where to listen.
        host: the address to listen at.

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
    return [*command, "--host", host, "--port", str(port)]


def dashboard_environment(store: TrackingStore) -> dict[str, str]:
    """What the command needs in its environment, to be added to the present one."""
    # Without the job runner MLflow starts two processes rather than ten.
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    if _has_credentials(store):
        environment[_STORE_VARIABLE] = store.uri
    return environment


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens at an address.

    Args:
        host: an IP address or a name.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _has_credentials(store: TrackingStore) -> bool:
    return mask_credentials(store.uri) != store.uri
