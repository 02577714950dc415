"""The micro-batch a trial trains with: the specified one, or a smaller one where memory ran out.

What an optimiser step sees stays the same: the micro-batch divides the specified batch, and
accumulation makes up for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from search_spaces.atomic import write_atomically
from search_spaces.spec import BaseSettings, TrialSpec

_FILE = "micro_batch.json"


@dataclass(frozen=True)
class MicroBatch:
    """How an optimiser step is cut into forward passes."""

    batch_size: int
    """Pairs per forward pass."""
    gradient_accumulation_steps: int
    """Forward passes per optimiser step."""


def micro_batch(spec: TrialSpec, most: int) -> MicroBatch:
    """The largest cut of the specified optimiser step that has at most so many pairs at once.

    Args:
        spec: the trial.
        most: pairs per forward pass, at most; at least 1.
    """
    whole = spec.training.batch_size
    pairs = next(size for size in range(min(most, whole), 0, -1) if whole % size == 0)
    return MicroBatch(pairs, spec.training.gradient_accumulation_steps * (whole // pairs))


def adjustments(spec: TrialSpec, batch: MicroBatch) -> dict[str, int]:
    """What is not as specified, by the specification's own names; empty where all is.

    Args:
        spec: the trial.
        batch: what it is trained with.
    """
    if batch.batch_size == spec.training.batch_size:
        return {}
    return {
        "batch_size": batch.batch_size,
        "gradient_accumulation_steps": batch.gradient_accumulation_steps,
    }


def remembered_micro_batch(workdir: Path, spec: TrialSpec) -> MicroBatch:
    """What the next attempt is to train with, from what earlier ones learnt.

    Args:
        workdir: the trial's folder.
        spec: the trial.
    """
    try:
        remembered = json.loads((workdir / _FILE).read_text(encoding="utf-8"))["batch_size"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        remembered = None  # Nothing was learnt, or nothing that can be read: begin as specified.
    if not isinstance(remembered, int) or remembered < 1:
        remembered = spec.training.batch_size
    return micro_batch(spec, remembered)


def halve_micro_batch(workdir: Path, spec: TrialSpec) -> bool:
    """Have the next attempt train with the next smaller micro-batch: half, where half divides.

    Args:
        workdir: the trial's folder.
        spec: the trial.

    Returns:
        False where there is no smaller one: a single pair, or a model that is not trained.
    """
    now = remembered_micro_batch(workdir, spec).batch_size
    if now == 1 or isinstance(spec.method, BaseSettings):
        return False
    remember_micro_batch(workdir, smaller_micro_batch(spec, now))
    return True


def smaller_micro_batch(spec: TrialSpec, pairs: int) -> MicroBatch:
    """The largest proper divisor: 8 pairs become 4, 6 become 3, 3 become 1.

    Args:
        spec: the trial.
        pairs: pairs per forward pass that were too many; more than 1.
    """
    largest = next(size for size in range(pairs // 2, 0, -1) if pairs % size == 0)
    return micro_batch(spec, largest)


def remember_micro_batch(workdir: Path, batch: MicroBatch) -> None:
    """Write down what the next attempt is to train with.

    Args:
        workdir: the trial's folder.
        batch: for the next attempt.
    """
    write_atomically(workdir / _FILE, json.dumps({"batch_size": batch.batch_size}))


def forget_micro_batch(workdir: Path) -> None:
    """Remove what was written down; training is over.

    Args:
        workdir: the trial's folder.
    """
    (workdir / _FILE).unlink(missing_ok=True)
