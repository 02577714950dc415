"""What ends a trial or a sweep that is nobody's mistake: lost workers, a lost Ray, a full disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path


class WorkerLostError(RuntimeError):
    """The trial's workers died again and again, each without getting further than the last.

    Args:
        lost: how many.
        memory_kills: how many of them were killed because memory ran out.
    """

    def __init__(self, lost: int, memory_kills: int) -> None:
        self.lost, self.memory_kills = lost, memory_kills
        killed = f" ({memory_kills} killed because memory ran out)" if memory_kills else ""
        super().__init__(
            f"the worker died {lost} times in a row{killed} without the trial getting further; the "
            "system's log, or Ray's under /tmp/ray/session_latest/logs, may say why"
        )

    def __reduce__(self) -> tuple[type[WorkerLostError], tuple[int, int]]:
        """Pickle by arguments."""
        return (type(self), (self.lost, self.memory_kills))


class TrialHeldError(RuntimeError):
    """Another process holds the trial and does not end."""


class RayLostError(RuntimeError):
    """Ray itself has died; what its trials have saved is kept, and it can be started again."""


class DriverGoneError(RuntimeError):
    """The file that trials run by was taken away: none of them would go on."""


class DiskFullError(RuntimeError):
    """The disk is full: no trial can save anything, so the sweep stops; it can be continued.

    Args:
        message: where, and what is needed.
    """


def first_line(error: BaseException) -> str:
    """The first useful line of what an error says; its class, where it says nothing.

    Args:
        error: what was raised.
    """
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a disk or a quota is full.

    Args:
        error: what was raised.
    """
    while error is not None:
        if isinstance(error, DiskFullError):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # Not every library hands the system's error on.
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full_message(folder: Path, others: Sequence[Path], need_gib: float) -> str:
    """What a person should know about a full disk.

    Args:
        folder: where the sweep writes its results.
        others: where else things are written on its behalf.
        need_gib: what its trials still have to write at most; 0 where that is not known.
    """
    free = {place: shutil.disk_usage(place).free / 2**30 for place in (folder, *others)}
    fullest = min(free, key=lambda place: free[place])
    need = f"; the trials to run write up to {_size(need_gib)}" if fullest == folder else ""
    return f"the disk of {fullest} is full: {_size(free[fullest])} is free{need}"


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"
