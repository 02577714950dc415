"""What ends a trial or a sweep that is nobody's mistake: lost workers, a lost Ray, a full disk."""

from __future__ import annotations

import errno
import shutil
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


class DiskFullError(RuntimeError):
    """The disk is full: no trial can save anything, so the sweep stops; it can be continued.

    Args:
        message: where, and what is needed.
    """


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


def disk_full_message(folder: Path, need_gib: float) -> str:
    """What a person should know about a full disk.

    Args:
        folder: where the sweep writes.
        need_gib: what its trials still have to write at most; 0 where that is not known.
    """
    free = shutil.disk_usage(folder).free / 2**30
    need = f"; the trials to run write up to {_size(need_gib)}" if need_gib else ""
    return f"the disk of {folder} is full: {_size(free)} is free{need}"


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.1f} MiB"
