"""Where a number comes from: code, packages, machine, time."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from search_spaces.secrets import hide_secrets

PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "tokenizers",
    "accelerate",
    "mlflow",
    "bert-score",
    "rouge-score",
    "nltk",
    "numpy",
)
"""Packages whose versions can change a result."""


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result; `missing` where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


@cache
def code_version() -> tuple[str | None, bool]:
    """The git commit of this code and whether files differ from it; (None, False) outside git.

    Asked once a process: what runs is what it has loaded, whatever becomes of the files.
    """
    here = Path(__file__).parent
    commit = _git(here, "rev-parse", "HEAD")
    if commit is None:
        return None, False
    return commit, bool(_git(here, "status", "--porcelain", "--untracked-files=no"))


def environment_text() -> str:
    """What `env.txt` says: interpreter, platform and package versions, a line each."""
    lines = [f"python {platform.python_version()}", f"platform {platform.platform()}"]
    lines += [f"{name} {number}" for name, number in package_versions().items()]
    return hide_secrets("\n".join(lines) + "\n")


def python_and_platform() -> dict[str, str]:
    """Interpreter and platform, for a result's provenance."""
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "platform": platform.platform(),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # No git, or no repository: provenance then names packages only.
    return done.stdout.strip()
