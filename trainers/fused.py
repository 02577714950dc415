"""LoRA trainings on one frozen base, together: one forward and backward pass for all of them.

Each has its own pairs, learning rate, rank, batch size, schedule, clipping and end, and comes to the
weights that it would have alone, up to rounding. Its checkpoints are those of training alone, so that
any grouping continues what another began.

After a stop, the same grouping comes to the bits of an undisturbed one on the CPU. After a kill it
does where no member was half saved; else, as in another grouping, it comes to them up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from search_spaces.spec import DeltaSettings
from trainers.delta import train_delta
from trainers.errors import DivergedError, ModelError, StoppedError, is_out_of_memory
from trainers.finished import read_finished, training_identity
from trainers.fused_group import FusedGroup
from trainers.fused_member import Member, why_not_adapted
from trainers.fused_model import why_not_fused
from trainers.fusing import fuse_key
from trainers.loading import load_model
from trainers.loss import free_memory
from trainers.progress import ShouldStop, each_step_once, never
from trainers.task import TrainingTask
from trainers.whole_folders import discard_leftovers


@dataclass(frozen=True)
class Ended:
    """How one member's training ended."""

    task: TrainingTask
    error: Exception | None = None
    """None: `model/` and `trained.json` are in place, as training alone leaves them."""


def train_fused(tasks: Sequence[TrainingTask], should_stop: ShouldStop = never) -> list[Ended]:
    """Train every task to what `train_delta` would leave in its folder.

    Tasks that are finished already are left alone; where the model cannot be shared, or memory has
    room for one only, tasks train one after another.

    Args:
        tasks: of one base folder and one `fuse_key`, each with a folder of its own; their own
            `should_stop` is not asked.
        should_stop: asked before training, and between steps.

    Returns:
        One for each task, in their order.

    Raises:
        ValueError: the tasks cannot train together.
        StoppedError: `should_stop` said so; every member has a checkpoint, the next call continues.
        OSError: the disk is full; the last whole checkpoints are kept.
    """
    keys = {(task.source, fuse_key(task.spec)) for task in tasks}
    if len(keys) > 1 or any(key is None for _, key in keys):
        raise ValueError(f"tasks must have one base and one `fuse_key`, but got {keys}")
    if should_stop():
        raise StoppedError("training was asked to stop before it began")
    asked = [
        replace(task, on_epoch=each_step_once(task.on_epoch), should_stop=should_stop)
        for task in tasks
    ]
    ended: dict[int, Exception | None] = {}
    _train(dict(enumerate(asked)), ended)
    return [Ended(task, ended[number]) for number, task in enumerate(tasks)]


def _train(tasks: dict[int, TrainingTask], ended: dict[int, Exception | None]) -> None:
    """Train tasks by their numbers, together while memory has room."""
    for number, task in tasks.items():
        identity = training_identity(task.spec, task.source, task.pairs)
        if number not in ended and read_finished(task.workdir, identity)[0] is not None:
            ended[number] = None
    left = {number: task for number, task in tasks.items() if number not in ended}
    if len(left) > 1 and not _train_if_it_fits(left, ended):
        free_memory()
        open_now = [number for number in left if number not in ended]
        half = (len(open_now) + 1) // 2
        for part in (open_now[:half], open_now[half:]):
            _train({number: left[number] for number in part}, ended)
    for number, task in left.items():
        if number not in ended:
            ended[number] = _train_alone(task)


def _train_alone(task: TrainingTask) -> Exception | None:
    """What ended a training that is a task's own affair."""
    settings = task.spec.method
    if not isinstance(settings, DeltaSettings):
        raise TypeError(f"a fused training must be delta tuning, but got {settings.kind!r}")
    try:
        train_delta(task, settings)
    except (DivergedError, ModelError) as error:
        return error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return error
    return None


def _train_if_it_fits(tasks: dict[int, TrainingTask], ended: dict[int, Exception | None]) -> bool:
    """False where memory ran out; those that ended before are in `ended` all the same."""
    try:
        _train_together(tasks, ended)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Only past the error is what its traceback held free.
        return False
    return True


def _train_together(tasks: dict[int, TrainingTask], ended: dict[int, Exception | None]) -> None:
    """Train what can share the base; the rest is in `ended` with an error, or not at all."""
    first = next(iter(tasks.values()))
    base, tokenizer = load_model(first.source)
    if why_not_fused(base):
        return
    members: dict[int, Member] = {}
    for number, task in tasks.items():
        discard_leftovers(task.workdir)
        identity = training_identity(task.spec, task.source, task.pairs)
        try:
            member = Member(task, identity, base, tokenizer, len(tasks) - 1)
        except ModelError as error:
            ended[number] = error
            continue
        if not why_not_adapted(member, base):
            members[number] = member
    if members:
        group = FusedGroup(members, base, tokenizer, first.spec.training.precision)
        group.run(first.should_stop, ended.__setitem__)
