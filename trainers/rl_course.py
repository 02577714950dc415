"""What a loop of reinforcement learning came to, and its log."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_spaces.atomic import write_atomically

RL_FILE = "rl.csv"
"""The log of a loop, in its folder and in that of each trial it belongs to."""


@dataclass(frozen=True)
class RlCourse:
    """What a loop came to."""

    rows: tuple[Mapping[str, float], ...]
    """One an update: `step`, counted from 1, `reward`, `kl`, and whatever else is measured."""
    warnings: tuple[str, ...]
    """What the guards said, each once."""
    notes: tuple[str, ...] = ()
    """Checkpoints that were passed over, and why."""
    seconds: float = 0.0
    """Time of the loop, over all attempts."""
    at_once: int = 0
    """Replies per forward pass at the end; fewer than specified where memory ran out."""


def write_rows(file: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the log of a loop, one line an update; a column for whatever any update measured.

    Args:
        file: `rl.csv`.
        rows: in order.
    """
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(file, text.getvalue())
