"""`base`: the model as published, untrained; the floor that tuning has to beat."""

from __future__ import annotations

from trainers.errors import StoppedError
from trainers.examples import check_length, encode_splits
from trainers.fingerprint import folder_fingerprint
from trainers.loading import load_model
from trainers.loss import mean_token_loss
from trainers.progress import EpochReport, StepRow, write_steps
from trainers.task import TrainingTask
from trainers.tuned import TunedModel


def train_base(task: TrainingTask) -> TunedModel:
    """Load the model and measure its validation loss; nothing is trained, nothing is copied.

    Args:
        task: of its pairs only the validation pairs are read; its source is also the result's
            folder, because the weights are unchanged.

    Raises:
        ModelError: the model cannot be loaded or is too short for `max_length`.
        StoppedError: the task was to stop.
    """
    spec, source = task.spec, task.source
    if task.should_stop():
        raise StoppedError("the trial was asked to stop before it began")
    model, tokenizer = load_model(source)
    check_length(model.config, spec)
    model.eval()
    _, valid, _ = encode_splits(tokenizer, task.pairs, spec)
    loss = mean_token_loss(model, valid, task.should_stop)
    write_steps(task.workdir / "train.csv", [StepRow(0, 0.0, valid_loss=loss)])
    task.on_epoch(EpochReport(0.0, 0, 0, None, loss))
    return TunedModel(
        model=model,
        tokenizer=tokenizer,
        folder=source,
        trainable_parameters=0,
        total_parameters=model.num_parameters(),
        valid_loss=loss,
        digest=folder_fingerprint(source),
    )
