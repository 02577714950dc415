"""`sft`: full supervised fine-tuning; every parameter is trained on the reply's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from corpora.dialogue import PairSplits
from search_spaces.spec import TrialSpec
from trainers.checkpoints import CheckpointSettings
from trainers.examples import check_length
from trainers.loading import load_model
from trainers.progress import OnEpoch, ShouldStop
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_sft(
    spec: TrialSpec,
    source: Path,
    pairs: PairSplits,
    workdir: Path,
    on_epoch: OnEpoch,
    *,
    checkpoints: CheckpointSettings,
    should_stop: ShouldStop,
) -> TunedModel:
    """Fine-tune all of a model's parameters.

    Args:
        spec: the trial.
        source: folder of the model to start from.
        pairs: training and validation pairs.
        workdir: the trial's folder; the model is saved under `model/`.
        on_epoch: told of every finished epoch.
        checkpoints: how often to save.
        should_stop: asked after every optimiser step.

    Raises:
        ModelError: the model cannot be loaded or is too short for `max_length`.
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: `should_stop` said so; the next call continues.
    """
    return tune(
        lambda: _build(spec, source),
        load_model,
        spec,
        source,
        pairs,
        workdir,
        on_epoch,
        checkpoints=checkpoints,
        should_stop=should_stop,
    )


def _build(spec: TrialSpec, source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    return model, tokenizer
