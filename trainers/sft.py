"""`sft`: full supervised fine-tuning; every parameter is trained on the reply's tokens."""

from __future__ import annotations

from pathlib import Path

from corpora.dialogue import PairSplits
from search_spaces.spec import TrialSpec
from trainers.examples import check_length
from trainers.loading import load_model
from trainers.progress import OnEpoch
from trainers.supervised import tune
from trainers.tuned import TunedModel


def train_sft(
    spec: TrialSpec, source: Path, pairs: PairSplits, workdir: Path, on_epoch: OnEpoch
) -> TunedModel:
    """Fine-tune all of a model's parameters.

    Args:
        spec: the trial.
        source: folder of the model to start from.
        pairs: training and validation pairs.
        workdir: the trial's folder; the model is saved under `model/`.
        on_epoch: told of every finished epoch.

    Raises:
        ModelError: the model cannot be loaded or is too short for `max_length`.
        DivergedError: the loss became NaN or infinite.
    """
    from transformers import set_seed

    set_seed(spec.seed)
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    return tune(model, tokenizer, spec, pairs, workdir, on_epoch)
