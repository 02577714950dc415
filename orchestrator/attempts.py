"""Attempts at a trial: one at a time, counted where the worker died, with a pause before the next."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import TrialHeldError, WorkerLostError
from search_spaces.atomic import write_atomically
from search_spaces.locks import try_lock
from trainers.errors import StoppedError
from trainers.phases import current_phase
from trainers.progress import ShouldStop

_FILE = "attempt.json"
_MOST_LOST = 5
"""Workers that may die one after the other without the trial getting any further."""

_LONGEST_PAUSE_S = 30.0
_LONGEST_WAIT_S = 120.0
"""For an earlier worker of the same trial to end."""


@dataclass(frozen=True)
class Attempt:
    """A worker's hold on a trial."""

    token: str
    """Of the driver that the worker was started by."""
    pid: int
    host: str
    lost: int = 0
    """Workers of the same driver that died before this one, since the trial last got further."""
    resumed: int = 0
    """How often the trial was taken up again, whatever ended the attempt before."""
    memory_kills: int = 0
    """Of `lost`, how many were killed because memory ran out."""
    after_memory_kill: bool = False
    """Whether the last one was: the trial should ask for less."""
    reached: str = ""
    """How far the trial was when the attempt began."""
    system_kills: int | None = None
    """What the kernel had killed for memory by then; None where it does not tell."""
    started_at: str = ""
    """When it began, ISO 8601."""
    killed_for_memory: bool = False
    """Written by the driver, where Ray says that it killed this attempt's worker for memory."""


@contextmanager
def attempt(folder: Path, token: str, should_stop: ShouldStop) -> Iterator[Attempt]:
    """Hold a trial: nobody else works on it meanwhile, and a worker's death is seen by the next.

    Args:
        folder: the trial's.
        token: of the driver.
        should_stop: asked while waiting.

    Raises:
        WorkerLostError: too many workers died at the same place.
        StoppedError: the sweep asked to stop before the work began.
        TrialHeldError: another process has held the trial for two minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        _wait_for_lock(lock.fileno(), folder, should_stop)
        before = read_attempt(folder)
        this = Attempt(
            token,
            os.getpid(),
            socket.gethostname(),
            reached=_reached(folder),
            system_kills=_system_kills(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if before is not None:
            this = _after(before, this)
        _write(folder, this)
        if this.lost:
            if this.lost > _MOST_LOST:
                _forget(folder)
                raise WorkerLostError(this.lost, this.memory_kills)
            _pause(min(2.0 ** (this.lost - 1), _LONGEST_PAUSE_S), should_stop)
        try:
            yield this
        finally:
            # Not reached by a killed process: what it leaves tells the next one.
            _forget(folder)


def read_attempt(folder: Path) -> Attempt | None:
    """The attempt that is under way at a trial, or whose worker died; None where there is none.

    Args:
        folder: the trial's.
    """
    try:
        record: Any = json.loads((folder / _FILE).read_bytes())
        return Attempt(**record)
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None


def mark_memory_kill(folder: Path) -> None:
    """Note that Ray killed a trial's worker because memory ran out.

    Args:
        folder: the trial's.
    """
    dead = read_attempt(folder)
    if dead is not None:
        _write(folder, replace(dead, killed_for_memory=True))


def excuse_attempt(folder: Path) -> None:
    """Note that a trial's worker was ended with others, for no fault of the trial.

    Args:
        folder: the trial's.
    """
    ended = read_attempt(folder)
    if ended is not None:
        _write(folder, replace(ended, token=""))


def _after(before: Attempt, this: Attempt) -> Attempt:
    this = replace(this, resumed=before.resumed + 1)
    if before.token != this.token:
        return this  # The driver died with its workers: that says nothing against the trial.
    by_system = (
        before.host == this.host
        and before.system_kills is not None
        and this.system_kills is not None
        and this.system_kills > before.system_kills
    )
    memory = before.killed_for_memory or by_system
    same_place = before.reached == this.reached
    return replace(
        this,
        lost=before.lost * same_place + 1,
        memory_kills=before.memory_kills * same_place + memory,
        after_memory_kill=memory,
    )


def _reached(folder: Path) -> str:
    """How far a trial's files say it is: its newest checkpoint, whether it is trained, its replies.

    Where it is in a phase that it shares with other trials, the phase's files count too.
    """
    phase = current_phase(folder)
    replies = folder / "replies.partial.jsonl"
    size = replies.stat().st_size if replies.exists() else 0
    parts = [_training_reached(folder), str(size)]
    if phase is not None:
        parts += [phase.folder.name, _training_reached(phase.folder)]
    return " ".join(parts)


def _training_reached(folder: Path) -> str:
    steps = [
        int(step)
        for found in folder.glob("checkpoint-*")
        if (step := found.name.removeprefix("checkpoint-")).isdigit()
    ]
    return f"{max(steps, default=0)} {(folder / 'trained.json').exists()}"


def _wait_for_lock(descriptor: int, folder: Path, should_stop: ShouldStop) -> None:
    deadline = time.monotonic() + _LONGEST_WAIT_S
    # Without locks, the driver's token alone keeps an earlier worker from going on.
    while try_lock(descriptor) is False:
        if should_stop():
            raise StoppedError
        if time.monotonic() > deadline:
            holder = read_attempt(folder)
            who = f"process {holder.pid} on {holder.host}" if holder else "another process"
            raise TrialHeldError(f"{who} holds {folder.name} and does not end")
        time.sleep(0.1)


def _pause(seconds: float, should_stop: ShouldStop) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if should_stop():
            raise StoppedError
        time.sleep(0.1)


def _system_kills() -> int | None:
    """Processes that the kernel has killed for memory: in this container, else on this machine."""
    for file in (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue  # No such limit, or not Linux.
        found = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        if found:
            return int(found[0])
    return None


def _write(folder: Path, this: Attempt) -> None:
    write_atomically(folder / _FILE, json.dumps(asdict(this)))


def _forget(folder: Path) -> None:
    (folder / _FILE).unlink(missing_ok=True)
