"""What happens to trials while a sweep runs, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialStarted:
    """A worker has taken the trial."""

    trial_id: str
    together: int = 1
    """Trials that it has taken at once."""


@dataclass(frozen=True)
class TrialProgressed:
    """An epoch of the trial is over."""

    trial_id: str
    epoch: float
    step: int
    total_steps: int
    train_loss: float | None
    valid_loss: float


@dataclass(frozen=True)
class TrialDone:
    """The trial's result is in place."""

    trial_id: str
    result: dict[str, Any]


@dataclass(frozen=True)
class TrialFailed:
    """The trial ended without a result."""

    trial_id: str
    reason: str
    message: str


@dataclass(frozen=True)
class TrialStopped:
    """The trial stopped because it was asked to; the next run of the sweep continues it."""

    trial_id: str


@dataclass(frozen=True)
class TrialStoppedEarly:
    """The trial fell behind its siblings and ended; it runs on where early stopping is off."""

    trial_id: str


@dataclass(frozen=True)
class WorkerDied:
    """The trial's worker died; the trial goes on in another one."""

    trial_id: str


TrialEvent = (
    TrialStarted
    | TrialProgressed
    | TrialDone
    | TrialFailed
    | TrialStopped
    | TrialStoppedEarly
    | WorkerDied
)
OnEvent = Callable[[TrialEvent], None]
