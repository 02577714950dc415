"""One driver a sweep, and trials that run only while it wants them to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator import driver as module
from orchestrator.driver import drive, token_in, watch_driver
from search_spaces.errors import SearchSpaceError

HOLD = """
import sys, time
from pathlib import Path
from orchestrator.driver import drive
with drive(Path(sys.argv[1]), "python -m orchestrator sweep first"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _no_throttle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.0)


def test_the_second_driver_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    try:
        with (
            pytest.raises(SearchSpaceError, match=rf"process {first.pid} .*sweep first"),
            drive(tmp_path, "second"),
        ):
            pytest.fail("two drivers")
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    # Killed: its lock is gone with it, its token is not.
    stale = token_in(tmp_path / ".driver")
    assert stale is not None
    with drive(tmp_path, "second") as now:
        assert now.token != stale
        assert watch_driver(now.file, stale)()
        assert not watch_driver(now.file, now.token)()


def test_trials_stop_when_asked_and_run_again_under_a_new_token(tmp_path: Path) -> None:
    with drive(tmp_path, "c") as driver:
        should_stop = watch_driver(driver.file, driver.token)
        assert not should_stop()
        driver.stop("interrupted")
        assert should_stop()
        assert driver.stopping == "interrupted"
        first = driver.token
        driver.begin()
        assert driver.token != first
        assert not driver.stopping
        assert should_stop()  # Whoever was told to stop does not start again.
        assert watch_driver(driver.file, first)()
        assert not watch_driver(driver.file, driver.token)()


def test_trials_stop_at_the_end_of_the_driver_and_when_the_folder_is_gone(tmp_path: Path) -> None:
    with drive(tmp_path, "c") as driver:
        ends, goes = (watch_driver(driver.file, driver.token) for _ in range(2))
        assert not ends()
        assert not goes()
    assert ends()
    driver.file.unlink()
    assert goes()


def test_the_file_is_looked_at_twice_a_second_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.5)
    with drive(tmp_path, "c") as driver:
        should_stop = watch_driver(driver.file, driver.token)
        assert not should_stop()
        driver.stop("now")
        assert not should_stop()
        time.sleep(0.6)
        assert should_stop()


def test_the_lock_does_not_pass_to_children(tmp_path: Path) -> None:
    with drive(tmp_path, "c"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with drive(tmp_path, "again"):
            pass
    finally:
        child.kill()
        child.wait()


def test_stopping_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with drive(tmp_path, "c") as driver:

        def full(*arguments: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        driver.stop("disk full")
        assert token_in(driver.file) is None


def test_a_file_that_was_removed_or_replaced_is_not_in_place(tmp_path: Path) -> None:
    with drive(tmp_path, "c") as driver:
        assert driver.in_place()
        driver.file.unlink()
        assert not driver.in_place()
        driver.file.write_text("")
        assert not driver.in_place()


def test_a_file_that_cannot_be_read_for_a_moment_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drive(tmp_path, "c") as driver:
        should_stop = watch_driver(driver.file, driver.token)

        def stale(file: Path) -> bytes:
            raise OSError(116, "Stale file handle")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", stale)
            assert not should_stop()
        driver.stop("now")
        assert should_stop()
