"""Trials that one worker trains together; each has its own hold, its own end and its own result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.attempts import Attempt, attempt
from orchestrator.errors import first_line, is_disk_full
from orchestrator.memory import forget_peak_memory, hold_to_share, peak_memory_gib
from orchestrator.storage import SweepFolder
from orchestrator.trial import (
    PARTIAL,
    TrialWork,
    driver_watch,
    finish_trial,
    note_cost,
    prepare_training,
    replies_key,
    run_trial,
)
from trainers.errors import StoppedError
from trainers.progress import EpochReport, ShouldStop
from trainers.task import TrainingTask

if TYPE_CHECKING:
    from evaluators.score import StreamingScorer

OnMemberEpoch = Callable[[str, EpochReport], None]
"""Told of a trial's id and its finished epoch."""

OnEnd = Callable[[TrialWork, Exception | None], None]
"""Told how a trial ended; None where its result is in place."""

_WORKERS_TOGETHER = 2
"""Workers that trials may lose together; then each goes on alone, and only one of them is at fault."""


@dataclass(frozen=True)
class _Member:
    """A trial of the group that this worker holds."""

    work: TrialWork
    this: Attempt
    hold: ExitStack


@dataclass(frozen=True)
class _SoFar:
    """What the group has done for a trial."""

    told: bool = False
    """Whether it was trained, and its epochs were told."""
    notes: tuple[str, ...] = ()
    """What could not be done together, and why."""


def outcome(run: Callable[[], object]) -> Exception | None:
    """What went wrong; None where nothing did.

    The boundary of a trial: whatever goes wrong in it is its own, and harms no sibling.

    Args:
        run: the trial, or a part of it.
    """
    try:
        run()
    except Exception as error:
        return error
    return None


def run_together(
    group: Sequence[TrialWork], on_epoch: OnMemberEpoch, on_end: OnEnd, scorer: StreamingScorer
) -> None:
    """Train trials together, then evaluate each; every one ends by itself.

    Where workers died of the group, or one for lack of memory, its trials go on one by one.

    Args:
        group: trials with one `fuse_key` and one base model.
        on_epoch: told of every finished epoch of a trial.
        on_end: told once of every trial.
        scorer: of the trials' metrics.
    """
    should_stop = driver_watch(group[0])
    with ExitStack() as holds:
        members = _hold(group, holds, should_stop, on_end)
        if all(_is_sound(member.this) for member in members):
            trained = _train(members, on_epoch, should_stop, on_end)
            for member in members:
                if member.work.id not in trained:
                    continue
                so_far = trained[member.work.id]
                tell = _unheard if so_far.told else partial(on_epoch, member.work.id)
                run = partial(
                    finish_trial,
                    member.work,
                    member.this,
                    False,
                    tell,
                    scorer,
                    should_stop,
                    so_far.notes,
                )
                on_end(member.work, outcome(run))
                member.hold.close()
            return
    for member in members:
        work = member.work
        on_end(work, outcome(partial(run_trial, work, partial(on_epoch, work.id), scorer)))


def _is_sound(this: Attempt) -> bool:
    return this.lost < _WORKERS_TOGETHER and not this.after_memory_kill


def _unheard(report: EpochReport) -> None:
    """Of what was told before."""


def _hold(
    group: Sequence[TrialWork], holds: ExitStack, should_stop: ShouldStop, on_end: OnEnd
) -> list[_Member]:
    """The trials that are still to be done and that this worker could get hold of."""
    members: list[_Member] = []

    def take(work: TrialWork, hold: ExitStack) -> None:
        this = hold.enter_context(attempt(Path(work.folder), work.token, should_stop))
        members.append(_Member(work, this, hold))

    for work in group:
        hold = holds.enter_context(ExitStack())
        error = outcome(partial(take, work, hold))
        if error is not None:
            on_end(work, error)
        elif SweepFolder(Path(work.folder).parent.parent).result(work.id) is not None:
            # An earlier worker died after its work was done.
            members.pop()
            hold.close()
            on_end(work, None)
    return members


def _train(
    members: Sequence[_Member], on_epoch: OnMemberEpoch, should_stop: ShouldStop, on_end: OnEnd
) -> dict[str, _SoFar]:
    """Train, and decode replies, as far as that can be done together.

    Returns:
        Of the trials that go on, by id; the others have ended.
    """
    from trainers.fused import Ended, train_fused

    tasks: dict[str, TrainingTask] = {}
    by_id = {member.work.id: member for member in members}

    def prepare(work: TrialWork) -> None:
        _, tasks[work.id] = prepare_training(work, partial(on_epoch, work.id), should_stop)

    def end(trial_id: str, error: Exception) -> None:
        by_id[trial_id].hold.close()
        on_end(by_id[trial_id].work, error)

    for member in members:
        error = outcome(partial(prepare, member.work))
        if error is not None:
            end(member.work.id, error)
    if len(tasks) < 2:
        return dict.fromkeys(tasks, _SoFar())
    hold_to_share(members[0].work.gpu_share)
    forget_peak_memory()
    ended: list[Ended] = []
    error = outcome(lambda: ended.extend(train_fused(list(tasks.values()), should_stop)))
    if error is not None and not isinstance(error, StoppedError) and not is_disk_full(error):
        why = f"trained alone, because training together failed: {first_line(error)}"
        return dict.fromkeys(tasks, _SoFar(notes=(why,)))
    if error is not None:
        for trial_id in tasks:
            end(trial_id, error)
        return {}
    peak = peak_memory_gib()
    trained = []
    for (trial_id, task), one in zip(tasks.items(), ended, strict=True):
        if one.error is None:
            note_cost(task.workdir, 0.0, peak)
            trained.append(trial_id)
        else:
            end(trial_id, one.error)
    error = outcome(
        lambda: _decode([by_id[one].work for one in trained], [tasks[one] for one in trained])
    )
    if error is None:
        return dict.fromkeys(trained, _SoFar(told=True))
    if isinstance(error, StoppedError) or is_disk_full(error):
        for trial_id in trained:
            end(trial_id, error)
        return {}
    # Each decodes for itself what it lacks.
    why = f"decoded alone, because decoding together failed: {first_line(error)}"
    return dict.fromkeys(trained, _SoFar(told=True, notes=(why,)))


def _decode(works: Sequence[TrialWork], tasks: Sequence[TrainingTask]) -> None:
    """Decode the replies of trained trials together, into the files in which each looks for its own."""
    from evaluators.together import Member, decode_together
    from trainers.finished import model_folder, read_finished, training_identity

    if len(works) < 2:
        return
    members = []
    for work, task in zip(works, tasks, strict=True):
        identity = training_identity(task.spec, task.source, task.pairs)
        _, digest, _ = read_finished(task.workdir, identity)
        key = replies_key(work, digest)
        folder = model_folder(task.workdir)
        members.append(Member(folder, task.spec, task.pairs, task.workdir / PARTIAL, key))
    forget_peak_memory()
    began = time.monotonic()
    try:
        decode_together(tasks[0].source, members, tasks[0].should_stop)
    finally:
        seconds = (time.monotonic() - began) / len(tasks)
        for task in tasks:
            note_cost(task.workdir, seconds, peak_memory_gib())
