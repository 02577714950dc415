"""A training task: what every trainer is asked to do, and whom it tells and asks meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpora.dialogue import PairSplits
from search_spaces.spec import TrialSpec
from trainers.checkpoints import CheckpointSettings
from trainers.progress import OnEpoch, ShouldStop, never

_DEFAULT = CheckpointSettings()


@dataclass(frozen=True)
class TrainingTask:
    """One model to tune."""

    spec: TrialSpec
    source: Path
    """Folder of the model to start from."""
    pairs: PairSplits
    """The trial's; the test part is not read."""
    workdir: Path
    """The trial's folder, for `train.csv`, checkpoints and `model/`."""
    on_epoch: OnEpoch
    """Told of every finished epoch."""
    checkpoints: CheckpointSettings = _DEFAULT
    """How often to save what an interrupted training continues from."""
    should_stop: ShouldStop = never
    """Asked before training, and after every optimiser step."""
    phases: Path | None = None
    """Folder of what trials have in common; absent: the trial's own."""
