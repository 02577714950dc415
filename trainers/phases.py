"""Phases: trainings that several trials have in common, each done once.

A phase has a folder named by what it depends on, and one process at a time works in it. It keeps there
what it came to, and checkpoints meanwhile, as a trial does in its own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search_spaces.atomic import write_atomically
from search_spaces.locks import try_lock
from trainers.errors import StoppedError
from trainers.finished import model_folder
from trainers.task import TrainingTask
from trainers.whole_folders import write_folder

_FILE = "phase.json"
_DIGITS = 16
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
"""What a system says where a file cannot have a second name: other disks, other file systems."""


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


def take_model(
    workdir: Path, phase: Path, finish: Callable[[Path], None] = lambda folder: None
) -> Path:
    """Give a trial the model that a phase came to; its weights are on the disk once.

    Args:
        workdir: the trial's folder; what is under `model/` there is replaced.
        phase: the phase's folder.
        finish: changes the trial's copy before it is in place: any file but the weights.

    Returns:
        The trial's `model/`.

    Raises:
        OSError: the disk is full; nothing half-written is left.
    """

    def fill(aside: Path) -> None:
        for file in sorted(model_folder(phase).iterdir()):
            if file.suffix != ".safetensors" or not _link(file, aside / file.name):
                shutil.copyfile(file, aside / file.name)
        finish(aside)

    folder = model_folder(workdir)
    write_folder(folder, fill)
    return folder


def _link(file: Path, place: Path) -> bool:
    """Whether the file could be given a second name: not on every file system."""
    try:
        os.link(file, place)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True
