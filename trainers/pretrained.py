"""From a model's name to its files: what is here, what can be fetched, what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from search_spaces.errors import nearest_choice, one_problem
from search_spaces.spec import SplitSpec
from trainers.errors import ModelError
from trainers.fingerprint import folder_fingerprint
from trainers.hub import HubError, cached_snapshot, describe, download, missing_weights
from trainers.laptop_models import LAPTOP_MODELS, laptop_folder, laptop_recipe
from trainers.storage import models_folder, nearest_folder

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")


@dataclass(frozen=True)
class Pretrained:
    """A causal language model's files, before any tuning."""

    name: str
    """As the trial's specification calls it."""
    folder: Path | None
    """Where its files are; absent while they have to be fetched or made first."""
    fingerprint: str
    """Equal for equal weights: a content hash, a hub commit, or a laptop model's recipe."""


def find_model(name: str, split: SplitSpec) -> Pretrained:
    """What is known of a model without fetching or making it.

    Looked for, in this order: a laptop model; a folder of that path; a folder of that name under
    `models/` (or `ORCHESTRATOR_MODELS`); the Hugging Face cache; the hub.

    Args:
        name: Hugging Face name, folder, or laptop model name.
        split: division of the bundled corpus, because a laptop model reads its training part.

    Raises:
        ModelError: nowhere to be had, or a folder that lacks files; says which and where to put them.
    """
    if name in LAPTOP_MODELS:
        folder = laptop_folder(name, split)
        ready = (folder / "config.json").is_file()
        return Pretrained(name, folder if ready else None, laptop_recipe(name, split))
    for folder in (_as_path(name), models_folder() / name):
        if _is_folder(folder):
            check_model_folder(name, folder)
            return Pretrained(name, folder.resolve(), folder_fingerprint(folder))
    if name.startswith((".", "/", "~")):
        raise ModelError(
            one_problem("model", "", "the folder must exist", name, nearest_folder(_as_path(name)))
        )
    cached = cached_snapshot(name)
    if cached is not None and not _missing_files(cached):
        return Pretrained(name, cached, f"hub:{cached.name}")
    try:
        return Pretrained(name, None, f"hub:{describe(name).commit}")
    except HubError as error:
        if cached is not None:
            check_model_folder(name, cached)
        raise _missing(name, str(error)) from error


def fetch_model(name: str, split: SplitSpec) -> Pretrained:
    """A model whose files are here afterwards: fetched from the hub where needed.

    Laptop models are not made here (see `trainers/laptop_models.py`): making them takes minutes
    and belongs to the sweep's schedule.

    Args:
        name: Hugging Face name, folder, or laptop model name.
        split: as for `find_model`.

    Raises:
        ModelError: nowhere to be had.
    """
    found = find_model(name, split)
    if found.folder is not None:
        return found
    if name in LAPTOP_MODELS:
        raise ModelError(one_problem("model", "", "the laptop model must be made first", name))
    try:
        folder = download(name)
    except HubError as error:
        raise _missing(name, str(error)) from error
    check_model_folder(name, folder)
    return Pretrained(name, folder, f"hub:{folder.name}")


def check_model_folder(name: str, folder: Path) -> None:
    """See that a folder holds what a causal language model needs.

    Args:
        name: as the user wrote it, for the message.
        folder: the folder to look into.

    Raises:
        ModelError: lists every kind of file that is missing.
    """
    if missing := _missing_files(folder):
        raise ModelError(
            one_problem("model", str(folder), f"the folder must hold {', '.join(missing)}", name)
        )


def _missing_files(folder: Path) -> list[str]:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    missing += missing_weights(folder)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        missing.append("tokenizer.json (or vocab.json and merges.txt)")
    return missing


def _as_path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # `~name` of nobody here
        return Path(name)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # Unlike Path's own, takes any text.


def _missing(name: str, why: str) -> ModelError:
    place = models_folder() / name
    return ModelError(
        one_problem(
            "model",
            "",
            "model files are needed (config.json, generation_config.json, model.safetensors, "
            f"tokenizer.json or vocab.json and merges.txt) and are not here: {why}. "
            f"Put them into {place}, or pass the folder that holds them as the model, "
            f"or fetch them where the hub can be reached with `hf download {name}`, "
            "or use --scale laptop, which needs no download",
            name,
            nearest_choice(name, [*LAPTOP_MODELS, "gpt2-medium", "gpt2-large"])
            if name not in ("gpt2-medium", "gpt2-large")
            else "",
        )
    )
