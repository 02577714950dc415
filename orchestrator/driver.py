"""Who drives a sweep: one process at a time, named in a file that its trials run by.

`runs/<sweep>/.driver` is locked by the process that drives the sweep and holds its token. A trial runs
for as long as it finds that token there, so that one write stops all trials, on every node that
sees the folder, and trials of a driver that was killed stop when another takes over. To stop, the
file is emptied: that needs no room on a disk that may be full.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from search_spaces.errors import SearchSpaceError, one_problem
from search_spaces.locks import try_lock
from search_spaces.secrets import hide_secrets
from trainers.progress import ShouldStop

_LOOK_EVERY_S = 0.5


@dataclass
class Driver:
    """This process's right to drive a sweep."""

    file: Path
    command: str
    descriptor: int
    token: str = ""
    stopping: str = field(default="", init=False)
    """Why the trials were asked to stop; empty while they were not."""

    def begin(self) -> str:
        """Let trials run under a new token, and those of an earlier one stop; returns the token."""
        self.token, self.stopping = secrets.token_hex(8), ""
        record = {
            "token": self.token,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": hide_secrets(self.command),
        }
        self._write(json.dumps(record))
        return self.token

    def stop(self, reason: str) -> None:
        """Ask every trial to stop at its next safe point; may be called by a signal's handler.

        Args:
            reason: kept for who asks why; the first one counts.
        """
        self.stopping = self.stopping or reason
        os.ftruncate(self.descriptor, 0)

    def in_place(self) -> bool:
        """Whether the file is still the one that this process has locked."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(self.file))
        except FileNotFoundError:
            return False

    def _write(self, text: str) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)
        # Other hosts that share the folder see what has left this one's memory.
        os.fsync(self.descriptor)


@contextmanager
def drive(folder: Path, command: str) -> Iterator[Driver]:
    """The right to drive the sweep in a folder, until the end of the block or of the process.

    Args:
        folder: `runs/<sweep>`, which is there.
        command: what the user typed, for whoever is refused.

    Raises:
        SearchSpaceError: another process drives it; the error names that process.
    """
    file = folder / ".driver"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # Without locks, trials still run by the newest token alone.
        if try_lock(descriptor) is False:
            raise SearchSpaceError(
                one_problem(str(folder), "", f"must not be driven twice, but {_named(file)}")
            )
        driver = Driver(file, command, descriptor)
        driver.begin()
        try:
            yield driver
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def watch_driver(file: Path, token: str) -> ShouldStop:
    """What a trial asks between its steps: whether its driver no longer wants it to run.

    Args:
        file: the driver's.
        token: that the trial was started under.
    """
    looked, stop = 0.0, False

    def should_stop() -> bool:
        nonlocal looked, stop
        now = time.monotonic()
        if not stop and now - looked >= _LOOK_EVERY_S:
            looked = now
            try:
                stop = token_in(file) != token
            except OSError:
                return False  # A network file system that stumbles says nothing; ask again.
        return stop

    return should_stop


def token_in(file: Path) -> str | None:
    """The token that trials may run under now; None where they should stop."""
    record = _read(file)
    return None if record is None else str(record.get("token"))


def _named(file: Path) -> str:
    try:
        record = _read(file)
    except OSError:
        record = None
    if record is None:
        return "a process that is just ending does; try again in a moment"
    return (
        f"process {record.get('pid')} on {record.get('host')} does since {record.get('since')} "
        f"({record.get('command')})"
    )


def _read(file: Path) -> dict[str, object] | None:
    try:
        record = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None  # Emptied, or being written.
    return record if isinstance(record, dict) else None
