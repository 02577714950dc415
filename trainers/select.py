"""From a method's settings to its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from corpora.dialogue import PairSplits
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    DeltaSettings,
    DialogueActSettings,
    ReaderSettings,
    SftSettings,
    TrialSpec,
)
from trainers.checkpoints import CheckpointSettings
from trainers.progress import OnEpoch, ShouldStop, never
from trainers.task import TrainingTask
from trainers.tuned import TunedModel

_DEFAULT = CheckpointSettings()


def train(
    spec: TrialSpec,
    source: Path,
    pairs: PairSplits,
    workdir: Path,
    on_epoch: OnEpoch,
    *,
    checkpoints: CheckpointSettings = _DEFAULT,
    should_stop: ShouldStop = never,
    phases: Path | None = None,
) -> TunedModel:
    """Tune a model as the trial says, from wherever an earlier attempt in the folder left off.

    Args:
        spec: the trial.
        source: folder of the model to start from.
        pairs: the trial's pairs; the test part is not read.
        workdir: the trial's folder, for `train.csv`, checkpoints and `model/`.
        on_epoch: told of every finished epoch.
        checkpoints: how often to save what an interrupted training continues from.
        should_stop: asked before training, and after every optimiser step.
        phases: folder of what trials have in common; absent: the trial's own.

    Raises:
        ModelError: the model and the settings do not fit.
        CorpusError: the method needs dialogue acts, and the training pairs have none.
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: `should_stop` said so; the next call continues.
        OSError: the disk is full; the last whole checkpoint is kept.
        torch.OutOfMemoryError: one pair at a time does not fit.
    """
    return train_task(
        TrainingTask(spec, source, pairs, workdir, on_epoch, checkpoints, should_stop, phases)
    )


def train_task(task: TrainingTask) -> TunedModel:
    """Tune a model as a task says; see `train`, which makes the task.

    Args:
        task: the trial's, with the place and the words around it.
    """
    match task.spec.method:
        case BaseSettings():
            from trainers.base import train_base

            return train_base(task)
        case SftSettings():
            from trainers.sft import train_sft

            return train_sft(task)
        case DeltaSettings() as settings:
            from trainers.delta import train_delta

            return train_delta(task, settings)
        case DialogueActSettings() as settings:
            from trainers.dialogue_act import train_dialogue_act

            return train_dialogue_act(task, settings)
        case ChatMglSettings() as settings:
            from trainers.chatmgl import train_chatmgl

            return train_chatmgl(task, settings)
        case ReaderSettings() as settings:
            from trainers.reader import train_reader

            return train_reader(task, settings)
        case _:
            assert_never(task.spec.method)
