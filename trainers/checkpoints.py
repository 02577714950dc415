"""How often a checkpoint is written: what a user asks for, and when it is due."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from search_spaces.errors import InputError, nearest_choice, one_problem

if TYPE_CHECKING:
    import torch

Unit = Literal["auto", "steps", "minutes", "epochs"]

_SHARE_OF_TIME = 0.03
"""`auto` spends at most about this share of training time on saving."""
_SHORTEST_S, _LONGEST_S = 5.0, 600.0
_ASSUMED_BYTES_PER_S = 100e6
"""Writing, syncing and hashing on a slow disk; counts only until the first save is measured."""

_TIMES_TRAINED = 3
"""What a checkpoint holds of every trained parameter: itself, and Adam's two moments."""

_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")
_UNITS: dict[str, Unit] = {
    "step": "steps",
    "steps": "steps",
    "min": "minutes",
    "mins": "minutes",
    "minute": "minutes",
    "minutes": "minutes",
    "epoch": "epochs",
    "epochs": "epochs",
}


@dataclass(frozen=True)
class CheckpointSettings:
    """How often a checkpoint is written."""

    every: float | None = None
    """How many units; absent for `auto`."""
    unit: Unit = "auto"


def parse_checkpoint_settings(text: str, option: str = "--checkpoints") -> CheckpointSettings:
    """What a user asked for: `auto`, `200 steps`, `10 minutes`, `10min`, `1 epoch`.

    Args:
        text: as it was written.
        option: the command-line option it was written for; named in the error.

    Raises:
        InputError: the text is none of these.
    """
    words = text.strip().lower()
    if words == "auto":
        return CheckpointSettings()
    match = _PATTERN.fullmatch(words)
    number = float(match[1]) if match else 0.0
    unit = _UNITS.get(match[2]) if match else None
    if unit is None or not 0 < number < math.inf or (unit == "steps" and number % 1):
        raise InputError(
            one_problem(
                option,
                "",
                "must be `auto`, or a number above 0 (whole for steps) of steps, minutes or epochs",
                text,
                _nearest(words, number, match[2] if match else ""),
            )
        )
    return CheckpointSettings(number, unit)


def _nearest(words: str, number: float, unit: str) -> str:
    if not unit or not math.isfinite(number):
        return nearest_choice(words, ("auto",)) or "10 minutes"
    choice = _UNITS.get(unit) or nearest_choice(unit, get_args(Unit)[1:]) or "minutes"
    if choice == "steps":
        number = max(1, round(number))
    return f"{number or 1:g} {choice}"


class CheckpointClock:
    """Says when the next checkpoint is due.

    Args:
        settings: what the user asked for.
        bytes_to_write: size of a checkpoint, about; what `auto` goes by before the first save.
        step: optimiser steps already done.
        epoch: epochs already done.
        seconds: training time so far.
    """

    def __init__(
        self,
        settings: CheckpointSettings,
        bytes_to_write: int,
        *,
        step: int = 0,
        epoch: float = 0.0,
        seconds: float = 0.0,
    ) -> None:
        self._settings = settings
        self._save_s = bytes_to_write / _ASSUMED_BYTES_PER_S
        self._last = (step, epoch, seconds)

    def is_due(self, step: int, epoch: float, seconds: float) -> bool:
        """Whether to save now.

        Args:
            step: optimiser steps done.
            epoch: epochs done.
            seconds: training time so far.
        """
        last_step, last_epoch, last_seconds = self._last
        every = self._settings.every or 1.0
        match self._settings.unit:
            case "steps":
                return step // every > last_step // every
            case "epochs":
                # Epochs are counted in fractions of a float: the last step's is not quite whole.
                return math.floor(epoch / every + 1e-6) > math.floor(last_epoch / every + 1e-6)
            case "minutes":
                return seconds - last_seconds >= 60 * every
            case "auto":
                return seconds - last_seconds >= auto_interval_s(self._save_s)

    def saved(self, step: int, epoch: float, seconds: float, save_s: float) -> None:
        """A checkpoint was written.

        Args:
            step: optimiser steps done.
            epoch: epochs done.
            seconds: training time when the save was done.
            save_s: how long it took.
        """
        self._save_s = save_s
        self._last = (step, epoch, seconds)


def checkpoint_bytes(trained: Iterable[torch.nn.Parameter]) -> int:
    """Size of a checkpoint, about.

    Args:
        trained: the parameters that are trained.
    """
    return _TIMES_TRAINED * sum(p.numel() * p.element_size() for p in trained)


def auto_interval_s(save_s: float) -> float:
    """Seconds between checkpoints of which one takes `save_s`.

    Args:
        save_s: seconds that one takes.
    """
    return min(max(save_s / _SHARE_OF_TIME, _SHORTEST_S), _LONGEST_S)
