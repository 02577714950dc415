"""A sweep's folder: where each trial's truth lies, and that it is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.json_files import UnusableError
from reports.results import read_failure, read_result
from search_spaces.atomic import write_atomically

STOPPED_FILE = "stopped.json"
"""In the folder of a trial that was stopped early, and that has no result."""

_OF_AN_ATTEMPT = (
    STOPPED_FILE,
    ".*",
    "attempt.json",
    "checkpoint-*",
    "replies.partial.jsonl",
    "spent.json",
)
"""What a trial's folder holds besides its results while the trial runs."""


@dataclass(frozen=True)
class SweepFolder:
    """Paths under `runs/<sweep>/`, and the one way results are written and read."""

    path: Path

    def trial(self, trial_id: str) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / trial_id

    def result(self, trial_id: str) -> dict[str, Any] | None:
        """A finished trial's result; None where there is none, or only half of one."""
        return _usable_result(self.trial(trial_id) / "result.json", trial_id)

    def failure(self, trial_id: str) -> dict[str, Any] | None:
        """A failed trial's failure, where it has no result."""
        if self.result(trial_id) is not None:
            return None
        try:
            return dict(read_failure(self.trial(trial_id) / "failure.json", trial_id))
        except UnusableError:
            return None

    def is_stopped_early(self, trial_id: str) -> bool:
        """Whether a trial ended early because it fell behind, and has no result."""
        return self.result(trial_id) is None and (self.trial(trial_id) / STOPPED_FILE).exists()

    def statuses(self, trial_ids: Iterable[str]) -> dict[str, str]:
        """Whether each of these trials is `done`, `failed`, `stopped_early` or `pending`.

        What has no folder is known from one listing, however many trials there are.

        Args:
            trial_ids: of the sweep's trials.
        """
        try:
            begun = set(os.listdir(self.path / "trials"))
        except FileNotFoundError:
            begun = set()
        return {one: self._status(one) if one in begun else "pending" for one in trial_ids}

    def _status(self, trial_id: str) -> str:
        if self.result(trial_id) is not None:
            return "done"
        if self.failure(trial_id) is not None:
            return "failed"
        return "stopped_early" if self.is_stopped_early(trial_id) else "pending"

    def write_json(self, name: str, data: Any) -> None:
        """Write one of the sweep's own files, whole or not at all."""
        write_json(self.path / name, data)

    def adopt(self, trial_id: str) -> bool:
        """Take over a trial that another sweep under the same folder has finished.

        Files are linked where the file system can, else copied; the result comes last, so that
        an interrupted adoption is no result.
        """
        for result in sorted(self.path.parent.glob(f"*/trials/{trial_id}/result.json")):
            source = result.parent
            if source == self.trial(trial_id) or _usable_result(result, trial_id) is None:
                continue
            target = self.trial(trial_id)
            shutil.copytree(
                source,
                target,
                copy_function=_link_or_copy,
                ignore=shutil.ignore_patterns("result.json", "failure.json", *_OF_AN_ATTEMPT),
                dirs_exist_ok=True,
            )
            write_atomically(target / "result.json", result.read_bytes())
            return True
        return False


def write_json(file: Path, data: Any) -> None:
    """Write JSON that is whole or not there.

    Args:
        file: where it goes.
        data: plain JSON data; NaN and infinity are refused.
    """
    write_atomically(file, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _usable_result(file: Path, trial_id: str) -> dict[str, Any] | None:
    try:
        return dict(read_result(file, trial_id))
    except UnusableError:
        return None


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
