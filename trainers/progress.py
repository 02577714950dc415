"""What a trainer says while it works: one report an epoch, and a log of its steps."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class EpochReport:
    """Where training stands at the end of an epoch."""

    epoch: float
    step: int
    """Optimiser steps done."""
    total_steps: int
    train_loss: float | None
    """Mean loss per counted token since the last log; absent where nothing was trained."""
    valid_loss: float
    """Mean loss per counted token over the validation pairs."""


OnEpoch = Callable[[EpochReport], None]
"""The one signal that goes up: the sweep hears of an epoch, the trainer does not know from whom."""

ShouldStop = Callable[[], bool]
"""Asked between steps: whether the sweep wants the trial to stop at the next safe point."""


def never() -> bool:
    """Never stop; what holds outside a sweep."""
    return False


@dataclass(frozen=True)
class StepRow:
    """One line of `train.csv`."""

    step: int
    epoch: float
    train_loss: float | None = None
    valid_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    seconds: float | None = None
    """Since training began."""


def write_steps(file: Path, rows: list[StepRow]) -> None:
    """Write the log of a training run; an empty cell was not measured at that step.

    Args:
        file: `train.csv` in the trial's folder.
        rows: in the order they were logged.
    """
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(
            stream, [field.name for field in fields(StepRow)], lineterminator="\n"
        )
        writer.writeheader()
        for row in rows:
            writer.writerow({k: "" if v is None else v for k, v in asdict(row).items()})
