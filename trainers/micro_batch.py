"""The micro-batch a trial trains with: the specified one, or a smaller one where memory ran out.

What an optimiser step sees stays the same: the micro-batch divides the specified batch, and
accumulation makes up for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from search_spaces.atomic import write_atomically
from search_spaces.spec import TrialSpec

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
    pairs = largest_cut(whole, most)
    return MicroBatch(pairs, spec.training.gradient_accumulation_steps * (whole // pairs))


def largest_cut(whole: int, most: int) -> int:
    """The largest divisor of a batch that is at most so much; at least 1.

    Args:
        whole: the batch.
        most: at least 1.
    """
    return next(size for size in range(min(most, whole), 0, -1) if whole % size == 0)


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


def remembered_at_once(workdir: Path, whole: int) -> int:
    """How much the next attempt is to take at once, from what earlier ones learnt.

    Args:
        workdir: the training's folder.
        whole: what is specified; the answer divides it.
    """
    try:
        remembered = json.loads((workdir / _FILE).read_text(encoding="utf-8"))["batch_size"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return whole  # Nothing was learnt, or nothing that can be read: begin as specified.
    if not isinstance(remembered, int) or remembered < 1:
        return whole
    return largest_cut(whole, remembered)


def halve_at_once(workdir: Path, whole: int) -> bool:
    """Have the next attempt take the next smaller cut at once: half, where half divides.

    Args:
        workdir: the training's folder.
        whole: what is specified.

    Returns:
        False where there is no smaller one.
    """
    now = remembered_at_once(workdir, whole)
    if now == 1:
        return False
    remember_at_once(workdir, smaller_cut(now))
    return True


def smaller_cut(at_once: int) -> int:
    """The largest proper divisor: 8 become 4, 6 become 3, 3 become 1.

    Args:
        at_once: what was too much; more than 1.
    """
    return next(size for size in range(at_once // 2, 0, -1) if at_once % size == 0)


def remember_at_once(workdir: Path, at_once: int) -> None:
    """Write down what the next attempt is to take at once.

    Args:
        workdir: the training's folder.
        at_once: for the next attempt.
    """
    write_atomically(workdir / _FILE, json.dumps({"batch_size": at_once}))


def forget_micro_batch(workdir: Path) -> None:
    """Remove what was written down; training is over.

    Args:
        workdir: the training's folder.
    """
    (workdir / _FILE).unlink(missing_ok=True)
