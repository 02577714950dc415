from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.sweep import processes
from benchmarks.sweep.processes import Seen, run_measured, total_cpu_s

_BURN = "import time\nheld = b'x' * 300_000_000\nwhile time.process_time() < 2: pass\n"
_PARENT = (1, 1.0)
_CHILD = (2, 2.0)


def test_children_that_nobody_saw_count_by_what_their_parent_was_told() -> None:
    seen = {_PARENT: Seen(None, 1.0, 2.5), _CHILD: Seen(_PARENT, 2.0, 0.0)}
    assert total_cpu_s(seen) == pytest.approx(3.5)


def test_children_that_nobody_waits_for_count_by_what_was_seen_of_them() -> None:
    seen = {_PARENT: Seen(None, 1.0, 0.0), _CHILD: Seen(_PARENT, 2.0, 0.0)}
    assert total_cpu_s(seen) == pytest.approx(3.0)


def test_a_command_is_measured_with_its_descendants_each_counted_once(tmp_path: Path) -> None:
    started = (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', sys.argv[1]]))"
    )
    usage = run_measured(
        [sys.executable, "-c", started, _BURN], dict(os.environ), tmp_path / "log.txt"
    )
    assert usage.exit_code == 0
    assert 2.0 <= usage.cpu_s < 3.5
    assert usage.wall_s >= 2.0
    assert 300_000_000 / 2**30 <= usage.peak_gib < 2 * 300_000_000 / 2**30


def test_what_a_command_prints_is_kept_and_its_exit_code_told(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    usage = run_measured(
        [sys.executable, "-c", "print('here'); raise SystemExit(3)"], dict(os.environ), log
    )
    assert (usage.exit_code, log.read_text()) == (3, "here\n")


def test_what_outlives_a_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.5)
    log = tmp_path / "log.txt"
    leaves = (
        "import subprocess, sys, time\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'],"
        " start_new_session=True)\n"
        "print(left.pid, flush=True)\n"
        "time.sleep(1)\n"
    )
    run_measured([sys.executable, "-c", leaves], dict(os.environ), log)
    left = int(log.read_text())
    try:
        gone, _ = psutil.wait_procs([psutil.Process(left)], timeout=5)
        assert gone
    except psutil.NoSuchProcess:
        return
