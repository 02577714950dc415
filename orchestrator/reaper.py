"""Ends what Ray leaves behind: after a driver's own end at once, after its sudden death by a guardian.

Most of a local Ray's processes end with their driver; its agents take half a minute, and workers of a raylet
that was killed may go on. The guardian is a process of its own that reads, from a pipe, which processes the
driver has; the pipe's end is the driver's end, however it came.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil

_GRACE_S = 3.0
"""For processes to end by themselves."""

Known = frozenset[tuple[int, float]]
"""Processes by number and by when they began: numbers are used again."""


class Guardian:
    """Outlives this process, and then ends the processes that it was told of.

    Args:
        last_word: what to say, on standard error, in the place of a process that could not.
    """

    def __init__(self, last_word: str = "") -> None:
        self.told: Known = frozenset()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.reaper", last_word],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Not the terminal's: neither Ctrl-C nor its closing ends the guardian.
            start_new_session=True,
            cwd=Path(__file__).parent.parent,
            text=True,
        )

    def tell(self, known: Known) -> None:
        """Say which processes there are now.

        Args:
            known: all of them.
        """
        if known == self.told or self.process.stdin is None:
            return
        self.told = known
        line = " ".join(f"{pid}:{began!r}" for pid, began in sorted(known))
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.told = frozenset()  # The guardian is gone; Ray's own ways are what is left.

    def dismiss(self) -> None:
        """End the guardian: there is nothing left to guard."""
        self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def family(pids: Iterable[int]) -> Known:
    """Processes and all that descends from them.

    Args:
        pids: where to begin; those that have ended are passed over.
    """
    found: set[tuple[int, float]] = set()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            members = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for member in members:
            try:
                found.add((member.pid, member.create_time()))
            except psutil.NoSuchProcess:
                continue  # Ended meanwhile.
    return frozenset(found)


def end_all(known: Known, grace_s: float = _GRACE_S) -> int:
    """Wait a moment for processes to end, then kill those that have not; returns how many.

    Args:
        known: the processes.
        grace_s: how long to wait.
    """
    processes = []
    for pid, began in known:
        try:
            process = psutil.Process(pid)
            if process.create_time() == began:
                processes.append(process)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=grace_s)
    return len(alive)


def _guard() -> None:
    known: Known = frozenset()
    for line in sys.stdin:
        known = frozenset(
            (int(pid), float(began)) for pid, began in (entry.split(":") for entry in line.split())
        )
    with contextlib.suppress(OSError):  # Who was to read it may be gone, too.
        print(*sys.argv[1:], file=sys.stderr, flush=True)
    end_all(known)


if __name__ == "__main__":
    _guard()
