"""A trial's longer records: losses by step, rewards by update, and every reply with its scores."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainers.rl_course import RL_FILE

_MOST_STEPS = 1 << 53
"""More is no count of steps, and more than MLflow's store can hold."""

_LARGEST = 1e100
"""Nothing that is measured is as large; figures overflow on sums of what is larger."""

_MEASURED = ("train_loss", "valid_loss", "learning_rate", "grad_norm", "seconds")


@dataclass(frozen=True)
class Step:
    """What was measured at one optimiser step; absent where nothing was."""

    step: int
    train_loss: float | None = None
    valid_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    seconds: float | None = None
    """Since training began."""


@dataclass(frozen=True)
class Update:
    """What was measured at one update of reinforcement learning."""

    step: int
    """Updates done."""
    measured: Mapping[str, float]
    """By column: `reward`, `kl`, and whatever else is a number at this update."""
    seconds: float | None = None
    """Since training began; absent where the log has no times."""


@dataclass(frozen=True)
class ReplyRecord:
    """One generated reply beside its prompt and its reference."""

    part: str
    """`test` or `valid`."""
    beam: int
    pair_id: str
    prompt: str
    reference: str
    reply: str
    act: str | None
    rouge1: float | None
    meteor: float | None
    bertscore_f1: float | None


def leads_out(file: Path, folder: Path) -> bool:
    """Whether a file is a link to outside its folder: a folder given to us must not make us read it.

    Args:
        file: in the folder, or below.
        folder: may be a link itself.
    """
    return not file.resolve().is_relative_to(folder.resolve())


def read_steps(trial_folder: Path) -> tuple[Step, ...]:
    """Losses by step, in step order; empty where the trial did not train.

    A step's rows (its training loss in one, the epoch's validation loss in another) become one; what
    was measured twice counts as it was the last time. Rows without a step number, such as the last
    row of a file cut short, are passed over.
    """
    steps: dict[int, Step] = {}
    for number, row in _rows_by_step(trial_folder, "train.csv"):
        known: dict[str, Any] = {name: row[name] for name in _MEASURED if name in row}
        steps[number] = replace(steps.get(number, Step(number)), **known)
    return tuple(steps[number] for number in sorted(steps))


def read_updates(trial_folder: Path) -> tuple[Update, ...]:
    """Rewards and what belongs to them by update, in order; empty where there was no such training.

    As in `read_steps`, what was measured twice counts as it was the last time, and rows without a
    step number are passed over.
    """
    updates: dict[int, dict[str, float]] = {}
    for number, row in _rows_by_step(trial_folder, RL_FILE):
        updates.setdefault(number, {}).update(row)
    return tuple(
        Update(number, {k: v for k, v in row.items() if k != "seconds"}, row.get("seconds"))
        for number, row in sorted(updates.items())
    )


def _rows_by_step(trial_folder: Path, name: str) -> Iterator[tuple[int, dict[str, float]]]:
    """The step and the other numbers of each row, up to where the file is no CSV."""
    file = trial_folder / name
    if not file.is_file() or leads_out(file, trial_folder):
        return
    with file.open(newline="", encoding="utf-8", errors="replace") as lines:
        rows = csv.DictReader(lines)
        try:
            for row in rows:
                numbers = {
                    column: number
                    for column, cell in row.items()
                    if isinstance(column, str)
                    and (number := _number(cell)) is not None
                    and abs(number) <= _LARGEST
                }
                step = numbers.pop("step", -1.0)
                if 0 <= step < _MOST_STEPS:
                    yield int(step), numbers
        except csv.Error:
            return


def read_replies(trial_folder: Path) -> Iterator[ReplyRecord]:
    """Replies in the order they were written; lines that are not whole are passed over."""
    file = trial_folder / "replies.jsonl"
    if not file.exists() or leads_out(file, trial_folder):
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("beam"), int):
                yield _reply(record)


def _reply(record: dict[str, Any]) -> ReplyRecord:
    act = record.get("act")
    return ReplyRecord(
        str(record.get("part") or "test"),
        record["beam"],
        str(record.get("pair_id") or ""),
        str(record.get("prompt") or ""),
        str(record.get("reference") or ""),
        str(record.get("reply") or ""),
        None if act is None else str(act),
        _number(record.get("rouge1")),
        _number(record.get("meteor")),
        _number(record.get("bertscore_f1")),
    )


def _number(value: object) -> float | None:
    """A finite number, or nothing."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
