"""From an open model to a tuned one in its folder, whatever interrupts it.

What sft and delta do alike around the loop of `supervised.py`: an earlier attempt is continued or
taken as it is, and where memory runs out, less is tried at once.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.spec import TrialSpec
from trainers.checkpoint_files import newest_checkpoint, remove_checkpoints
from trainers.course import Course
from trainers.encoding import EncodedPair
from trainers.errors import StoppedError, is_out_of_memory
from trainers.examples import encode_splits
from trainers.finished import (
    Finished,
    model_folder,
    read_finished,
    training_identity,
    write_finished,
)
from trainers.loss import free_memory
from trainers.micro_batch import (
    adjustments,
    forget_micro_batch,
    micro_batch,
    remember_at_once,
    remembered_at_once,
    smaller_cut,
)
from trainers.progress import OnEpoch, each_step_once, write_steps
from trainers.supervised import Attempt, train_supervised, trainer_folder
from trainers.task import TrainingTask
from trainers.tuned import TunedModel
from trainers.whole_folders import discard_leftovers

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Build = Callable[[], "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]"]
Load = Callable[[Path], "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]"]


def tune(task: TrainingTask, build: Build, load: Load) -> TunedModel:
    """Train a model's open parameters on pairs and save it under `model/`.

    What an earlier attempt finished is not repeated; what it left in the middle is continued, with
    the bits that an undisturbed training would have.

    Args:
        task: what is trained, and where.
        build: gives the model to train, parameters with `requires_grad` open, and its tokenizer;
            called again where memory ran out.
        load: gives the tuned model from its folder.

    Raises:
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: the task was to stop; the next call continues.
        torch.OutOfMemoryError: one pair at a time does not fit.
        OSError: the disk is full; the last whole checkpoint is kept.
    """
    spec, workdir = task.spec, task.workdir
    if task.should_stop():
        raise StoppedError("training was asked to stop before it began")
    discard_leftovers(workdir)
    identity = training_identity(spec, task.source, task.pairs)
    finished, digest, why = read_finished(workdir, identity)
    notes = [why] if why else []
    if finished is not None:
        model, tokenizer = _load_as_saved(load, model_folder(workdir))
        write_steps(workdir / "train.csv", finished.rows)
        task.on_epoch(finished.report)
    else:
        model, tokenizer, finished, passed_over = _train_until_it_fits(task, build, identity)
        notes += passed_over
        digest = write_finished(workdir, identity, spec, model, tokenizer, finished)
    clear_attempts(workdir)
    return TunedModel(
        model=model,
        tokenizer=tokenizer,
        folder=model_folder(workdir),
        trainable_parameters=finished.trainable_parameters,
        total_parameters=finished.total_parameters,
        train_loss=finished.train_loss,
        valid_loss=finished.valid_loss,
        truncated_references=finished.truncated_references,
        seconds=finished.seconds,
        seconds_per_step=finished.seconds_per_step,
        fused_with=finished.fused_with,
        digest=digest,
        adjusted=finished.adjusted,
        rows=finished.rows,
        notes=tuple(notes),
    )


def clear_attempts(workdir: Path) -> None:
    """Remove what only an unfinished training needs.

    Args:
        workdir: the trial's folder.
    """
    remove_checkpoints(workdir)
    forget_micro_batch(workdir)
    shutil.rmtree(trainer_folder(workdir), ignore_errors=True)


def begin_attempt(
    task: TrainingTask, identity: str, shapes: Mapping[str, tuple[int, ...]], most: int
) -> tuple[Attempt, tuple[str, ...]]:
    """Where to go on from and with how much at once, and why newer checkpoints were passed over.

    Args:
        task: what is trained.
        identity: of the training.
        shapes: of the trained parameters, by name.
        most: pairs per forward pass, at most.
    """
    batch = micro_batch(task.spec, most)
    checkpoint, notes = newest_checkpoint(task.workdir, identity, shapes)
    if checkpoint is not None:
        earlier = int(checkpoint.state["batch_size"])
        batch = micro_batch(task.spec, min(batch.batch_size, earlier))
    return Attempt(batch, identity, checkpoint, task.checkpoints, task.should_stop), notes


def finish_course(
    course: Course,
    spec: TrialSpec,
    attempt: Attempt,
    *,
    trainable_parameters: int,
    total_parameters: int,
    truncated_references: int,
) -> Finished:
    """What a training came to that has gone its course.

    Args:
        course: with at least one finished epoch.
        spec: the trial.
        attempt: the last one.
        trainable_parameters: that training could change.
        total_parameters: the trainable ones included.
        truncated_references: training replies that were cut short.
    """
    if course.report is None or course.valid_loss is None:
        raise RuntimeError("training ended without a finished epoch")
    return Finished(
        rows=tuple(course.rows),
        report=course.report,
        train_loss=course.train_loss,
        valid_loss=course.valid_loss,
        trainable_parameters=trainable_parameters,
        total_parameters=total_parameters,
        truncated_references=truncated_references,
        seconds=course.seconds,
        seconds_per_step=course.seconds_per_step,
        adjusted=adjustments(spec, attempt.batch),
        fused_with=course.fused_with,
    )


def _load_as_saved(
    load: Load, folder: Path
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """A tuned model that decodes as it did in memory, where saving set how."""
    from transformers import GenerationConfig

    model, tokenizer = load(folder)
    # An adapter's base brings its own.
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model, tokenizer


def _train_until_it_fits(
    task: TrainingTask, build: Build, identity: str
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase, Finished, tuple[str, ...]]:
    """A trained model; each time memory runs out, from the last checkpoint with a smaller batch."""
    spec, workdir = task.spec, task.workdir
    most = remembered_at_once(workdir, spec.training.batch_size)
    tell = each_step_once(task.on_epoch)
    while True:
        model, tokenizer = build()
        train, valid, truncated = encode_splits(tokenizer, task.pairs, spec)
        shapes = {n: tuple(p.shape) for n, p in model.named_parameters() if p.requires_grad}
        attempt, notes = begin_attempt(task, identity, shapes, most)
        course = _train_if_it_fits(model, tokenizer, spec, train, valid, workdir, tell, attempt)
        if course is not None:
            break
        most = smaller_cut(attempt.batch.batch_size)
        remember_at_once(workdir, most)
        del model
        free_memory()
    finished = finish_course(
        course,
        spec,
        attempt,
        trainable_parameters=sum(math.prod(shape) for shape in shapes.values()),
        total_parameters=sum(p.numel() for p in model.parameters()),
        truncated_references=truncated,
    )
    return model, tokenizer, finished, notes


def _train_if_it_fits(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    train: Sequence[EncodedPair],
    valid: Sequence[EncodedPair],
    workdir: Path,
    on_epoch: OnEpoch,
    attempt: Attempt,
) -> Course | None:
    """The course of the training; None where memory ran out and a smaller batch can be tried."""
    try:
        return train_supervised(model, tokenizer, spec, train, valid, workdir, on_epoch, attempt)
    except (RuntimeError, MemoryError) as error:
        if attempt.batch.batch_size == 1 or not is_out_of_memory(error):
            raise
    # Only here, past the error, is what its traceback held free.
    return None
