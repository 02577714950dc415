"""Environment of the driver and its workers: set before Ray is imported, which reads it then."""

from __future__ import annotations

import os

_SETTINGS = {
    # Result files are ours: Tune's own CSV, JSON and TensorBoard copies would only cost time.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is ours: it has to end the sweep with its own message and exit code.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Only processes with this machine's token may use the Ray that a sweep starts.
    "RAY_AUTH_MODE": "token",
    # Ray's switch for clusters, which it defines for Windows and macOS: off, every port of the Ray
    # that a sweep starts is bound to the loopback address, also on Linux.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # MLflow would tell its makers about each use, and wait for them at the end.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A link for each run that ends is no help in a table of progress.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
}
"""Set where the user has not set them; workers inherit them."""


_OF_THE_CLUSTER = ("RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
"""What the owner of a cluster has decided, where `RAY_ADDRESS` names one."""


def set_environment() -> None:
    """Set what the user has not set."""
    for name, value in _SETTINGS.items():
        if not (name in _OF_THE_CLUSTER and os.environ.get("RAY_ADDRESS")):
            os.environ.setdefault(name, value)
