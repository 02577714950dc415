"""From a method's settings to its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from corpora.dialogue import PairSplits
from search_spaces.spec import BaseSettings, DeltaSettings, SftSettings, TrialSpec
from trainers.progress import OnEpoch
from trainers.tuned import TunedModel


def train(
    spec: TrialSpec, source: Path, pairs: PairSplits, workdir: Path, on_epoch: OnEpoch
) -> TunedModel:
    """Tune a model as the trial says.

    Args:
        spec: the trial.
        source: folder of the model to start from.
        pairs: the trial's pairs; the test part is not read.
        workdir: the trial's folder, for `train.csv` and `model/`.
        on_epoch: told of every finished epoch.

    Raises:
        ModelError: the model and the settings do not fit.
        DivergedError: the loss became NaN or infinite.
    """
    match spec.method:
        case BaseSettings():
            from trainers.base import train_base

            return train_base(spec, source, pairs, workdir, on_epoch)
        case SftSettings():
            from trainers.sft import train_sft

            return train_sft(spec, source, pairs, workdir, on_epoch)
        case DeltaSettings() as settings:
            from trainers.delta import train_delta

            return train_delta(spec, settings, source, pairs, workdir, on_epoch)
        case _:
            assert_never(spec.method)
