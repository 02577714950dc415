"""Folders of models: where hand-put ones are looked for, and where made ones are kept."""

from __future__ import annotations

import os
from pathlib import Path

from search_spaces.errors import nearest_choice


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


def nearest_folder(path: Path) -> str:
    """The folder beside `path` whose name is most like it; empty where none is.

    Args:
        path: a folder that is not there.
    """
    if not path.parent.is_dir():
        return ""
    near = nearest_choice(path.name, [p.name for p in path.parent.iterdir() if p.is_dir()])
    return str(path.parent / near) if near else ""
