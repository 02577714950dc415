"""`sft`: full supervised fine-tuning; every parameter is trained on the reply's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.spec import TrialSpec
from trainers.examples import check_length
from trainers.loading import load_model
from trainers.task import TrainingTask
from trainers.tune import tune
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def train_sft(task: TrainingTask) -> TunedModel:
    """Fine-tune all of a model's parameters.

    Args:
        task: the model is saved under `model/` in its folder.

    Raises:
        ModelError: the model cannot be loaded or is too short for `max_length`.
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
    """
    return tune(task, lambda: _build(task.spec, task.source), load_model)


def _build(spec: TrialSpec, source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import set_seed

    set_seed(spec.seed)
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    return model, tokenizer
