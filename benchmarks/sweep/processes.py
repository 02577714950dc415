"""What a command and all its descendants take: wall time, CPU time, memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_EVERY_S = 0.2
_MEMORY_EVERY_S = 1.0
"""The kernel walks all pages of a process to tell its share of them: seldom."""
_GRACE_S = 10.0
"""What outlives the command gets this long to end by itself."""

Key = tuple[int, float]
"""A process: its number, and when it began."""


@dataclass(frozen=True)
class Seen:
    """A process as it was last seen."""

    parent: Key | None
    """The process that began it; absent for the command itself."""
    cpu_s: float
    """Its own CPU time, user and system."""
    reaped_s: float
    """CPU time of children that it has waited for, with theirs."""


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    wall_s: float
    """From its start to its end."""
    cpu_s: float
    """Of it and its descendants, wherever they are reaped."""
    peak_gib: float
    """Highest sum over its processes; memory that several share counts once (PSS) where the system
    tells."""
    exit_code: int


def run_measured(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run a command to its end, and end what it leaves.

    Processes are sampled several times a second. What one did after the last sample is missed where
    nobody waits for it, as for Ray's workers.

    Args:
        command: program and arguments.
        environment: all of its environment.
        log: file for what it prints.
    """
    with log.open("wb") as out:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        tree = ProcessTree(process.pid)
        while True:
            tree.look()
            time.sleep(_EVERY_S)
            # Popen would reap it without saying what it has used.
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                break
        wall_s = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    tree.close(used.ru_utime + used.ru_stime)
    end = time.perf_counter() + _GRACE_S
    while tree.look() and time.perf_counter() < end:
        time.sleep(_EVERY_S)
    tree.end()
    return Usage(wall_s, total_cpu_s(tree.seen), tree.peak_bytes / 2**30, process.returncode)


class ProcessTree:
    """A process and its descendants, also those whose parent is gone.

    Args:
        root: number of the process.
    """

    def __init__(self, root: int) -> None:
        self.root = root
        self.seen: dict[Key, Seen] = {}
        self.peak_bytes = 0
        self._alive: dict[int, psutil.Process] = {}
        self._next_memory = 0.0

    def look(self) -> bool:
        """See who is there and what they have used; False where nobody is."""
        self._alive = self._find()
        for number, process in list(self._alive.items()):
            try:
                with process.oneshot():
                    key, parent = (number, process.create_time()), process.ppid()
                    used = process.cpu_times()
            except psutil.NoSuchProcess:
                del self._alive[number]
                continue
            known = self.seen.get(key)
            self.seen[key] = Seen(
                known.parent if known else self._key(parent),
                used.user + used.system,
                used.children_user + used.children_system,
            )
        if time.perf_counter() >= self._next_memory:
            self._next_memory = time.perf_counter() + _MEMORY_EVERY_S
            self.peak_bytes = max(self.peak_bytes, sum(map(_memory, self._alive.values())))
        return bool(self._alive)

    def close(self, cpu_s: float) -> None:
        """Take down what the root had used in all when it was reaped.

        Args:
            cpu_s: CPU time of it and of all that it, and they in turn, had waited for.
        """
        key = self._key(self.root) or (self.root, 0.0)
        own = self.seen[key].cpu_s if key in self.seen else 0.0
        self.seen[key] = Seen(None, own, cpu_s - own)

    def end(self) -> None:
        """Kill whoever is left."""
        for process in self._alive.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def _find(self) -> dict[int, psutil.Process]:
        """Those seen before that still run, and everybody's children."""
        everyone = {process.pid: process for process in psutil.process_iter()}
        children: dict[int, list[int]] = {}
        for number, process in everyone.items():
            try:
                children.setdefault(process.ppid(), []).append(number)
            except psutil.NoSuchProcess:
                continue
        # A number may have gone to another process since.
        known = [n for n, process in self._alive.items() if everyone.get(n) == process]
        waiting = known if self.seen else [self.root]
        found: dict[int, psutil.Process] = {}
        while waiting:
            number = waiting.pop()
            if number not in found and number in everyone and not _is_over(everyone[number]):
                found[number] = everyone[number]
                waiting += children.get(number, [])
        return found

    def _key(self, number: int) -> Key | None:
        return next((key for key in reversed(self.seen) if key[0] == number), None)


def total_cpu_s(seen: Mapping[Key, Seen]) -> float:
    """CPU time of all processes, and of children that came and went between two looks.

    A parent that waits for its children is told their time: what is more than was seen of them is
    added. Where a process lets the system reap its children, what was seen of them is all there is.

    Args:
        seen: every process as it was last seen.
    """
    known: dict[Key, float] = {}
    for one in seen.values():
        if one.parent is not None:
            known[one.parent] = known.get(one.parent, 0.0) + one.cpu_s + one.reaped_s
    return sum(
        one.cpu_s + max(0.0, one.reaped_s - known.get(key, 0.0)) for key, one in seen.items()
    )


def _is_over(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _memory(process: psutil.Process) -> int:
    """Bytes of a process: its proportional share where the system tells, else all that it maps."""
    try:
        used = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(used, "pss", used.rss))
