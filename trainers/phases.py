"""Phases: trainings that several trials have in common, each done once.

A phase has a folder named by what it depends on, and one process at a time works in it. It keeps there
what it came to, and checkpoints meanwhile, as a trial does in its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search_spaces.atomic import write_atomically
from search_spaces.locks import try_lock
from trainers.errors import StoppedError
from trainers.task import TrainingTask

_FILE = "phase.json"
_DIGITS = 16


@dataclass(frozen=True)
class Phase:
    """What a trial is working at."""

    folder: Path
    at_once: int
    """Examples that it takes at once, as specified: what can be halved where memory runs out."""


@contextmanager
def hold_phase(task: TrainingTask, name: str, identity: str, at_once: int) -> Iterator[Path]:
    """Hold a phase's folder: nobody else works in it meanwhile; who comes later finds it done.

    Args:
        task: the trial's; where it has no folder for phases, and on a file system without locks,
            they are in its own.
        name: what the phase is, e.g. `reward`.
        identity: hexadecimal digits; equal for phases that come to the same.
        at_once: examples that it takes at once, as specified.

    Raises:
        StoppedError: the task was to stop while another process held the phase.
    """
    parent = task.phases or task.workdir / "phases"
    folder = parent / f"{name}-{identity[:_DIGITS]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        while (held := try_lock(lock.fileno())) is False:
            if task.should_stop():
                raise StoppedError(f"the trial was asked to stop while it waited for {folder.name}")
            time.sleep(0.1)
        if held is None:
            folder = task.workdir / "phases" / folder.name
            folder.mkdir(parents=True, exist_ok=True)
        note = {"folder": str(folder), "at_once": at_once}
        write_atomically(task.workdir / _FILE, json.dumps(note))
        yield folder
        # Not after an error: what follows it is about this phase.
        forget_phase(task.workdir)


def current_phase(workdir: Path) -> Phase | None:
    """The phase that a trial is in, or was in when its worker died; None where it is in none.

    Args:
        workdir: the trial's folder.
    """
    try:
        note = json.loads((workdir / _FILE).read_bytes())
        return Phase(Path(note["folder"]), int(note["at_once"]))
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        return None


def forget_phase(workdir: Path) -> None:
    """Note that a trial is in no phase.

    Args:
        workdir: the trial's folder.
    """
    (workdir / _FILE).unlink(missing_ok=True)
