"""Folders of models: where hand-put ones are looked for, and where made ones are kept."""

from __future__ import annotations

import os
from pathlib import Path


def models_folder() -> Path:
    """Folder in which a model put by hand is found by its name.

    `ORCHESTRATOR_MODELS` where set, else `models/` under the working directory.
    """
    return Path(os.environ.get("ORCHESTRATOR_MODELS") or "models")


def cache_folder() -> Path:
    """Folder for what the program makes once and keeps: laptop models, fingerprints.

    `ORCHESTRATOR_CACHE` where set, else `sweep-orchestrator/` in the user's cache folder.
    """
    if named := os.environ.get("ORCHESTRATOR_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sweep-orchestrator"
