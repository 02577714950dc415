"""`base`: the model as published, untrained; the floor that tuning has to beat."""

from __future__ import annotations

from pathlib import Path

from corpora.dialogue import PairSplits
from search_spaces.spec import TrialSpec
from trainers.errors import StoppedError
from trainers.examples import check_length, encode_splits
from trainers.fingerprint import folder_fingerprint
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.progress import EpochReport, OnEpoch, ShouldStop, StepRow, never, write_steps
from trainers.tuned import TunedModel


def train_base(
    spec: TrialSpec,
    source: Path,
    pairs: PairSplits,
    workdir: Path,
    on_epoch: OnEpoch,
    should_stop: ShouldStop = never,
) -> TunedModel:
    """Load the model and measure its validation loss; nothing is trained, nothing is copied.

    Args:
        spec: the trial.
        source: folder of the model; also the result's folder, because its weights are unchanged.
        pairs: only the validation pairs are read.
        workdir: the trial's folder.
        on_epoch: told once, of epoch 0.
        should_stop: asked at first, and between batches of the validation.

    Raises:
        ModelError: the model cannot be loaded or is too short for `max_length`.
        StoppedError: `should_stop` said so.
    """
    if should_stop():
        raise StoppedError("the trial was asked to stop before it began")
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    model.eval()
    _, valid, _ = encode_splits(tokenizer, pairs, spec)
    loss = mean_token_loss(model, valid, should_stop)
    write_steps(workdir / "train.csv", [StepRow(0, 0.0, valid_loss=loss)])
    on_epoch(EpochReport(0.0, 0, 0, None, loss))
    return TunedModel(
        model=model,
        tokenizer=tokenizer,
        folder=source,
        trainable_parameters=0,
        total_parameters=model.num_parameters(),
        valid_loss=loss,
        digest=folder_fingerprint(source),
    )
