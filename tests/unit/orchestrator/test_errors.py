"""Full disks: known by every name, and the right one is named."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.errors import DiskFullError, disk_full_message, is_disk_full


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (DiskFullError("x"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("full"), False),
    ],
)
def test_full_disks_are_known_also_as_causes(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full
    outer = ValueError("outer")
    outer.__cause__ = error
    assert is_disk_full(outer) is full


def test_the_fullest_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {Path("runs"): 64 * 2**30, Path("tmp"): 3 * 2**20}
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free[place]))
    message = disk_full_message(Path("runs"), [Path("tmp")], 2.0)
    assert message == "the disk of tmp is full: 3.0 MiB is free"
    free[Path("runs")] = 2**20
    message = disk_full_message(Path("runs"), [Path("tmp")], 2.0)
    assert message == (
        "the disk of runs is full: 1.0 MiB is free; the trials to run write up to 2.0 GiB"
    )
