"""What a trainer says while it works: one report an epoch, and a log of its steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from search_spaces.atomic import write_atomically


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


def each_step_once(on_epoch: OnEpoch) -> OnEpoch:
    """A signal that passes on what is new: steps may be repeated, the word of them is not.

    Args:
        on_epoch: told of what is new.
    """
    told = 0

    def tell(report: EpochReport) -> None:
        nonlocal told
        if report.step > told:
            told = report.step
            on_epoch(report)

    return tell


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
    """Training time so far, over all attempts."""


def write_steps(file: Path, rows: Sequence[StepRow]) -> None:
    """Write the log of a training run; an empty cell was not measured at that step.

    A reader never sees half of it, so it can be written again and again while training runs.

    Args:
        file: `train.csv` in the trial's folder.
        rows: in the order they were logged.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(StepRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if v is None else v for k, v in asdict(row).items()})
    write_atomically(file, text.getvalue())
