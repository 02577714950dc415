"""What a driver leaves running ends, however the driver ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil

from orchestrator.reaper import end_all, family

DRIVER = """
import os, signal, subprocess, sys, time
from orchestrator.reaper import Guardian, family
child = subprocess.Popen([sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"], start_new_session=True)
time.sleep(1.5)
guardian = Guardian()
guardian.tell(family([child.pid]))
print(guardian.process.pid, *[pid for pid, _ in family([child.pid])], flush=True)
time.sleep(60)
"""


def test_the_guardian_ends_what_a_killed_driver_left() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pids = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(pids) == 3
    assert all(psutil.pid_exists(pid) for pid in pids)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    deadline = time.monotonic() + 20
    while left := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_what_ends_by_itself_is_not_killed_and_a_number_used_again_is_left_alone() -> None:
    quick = subprocess.Popen(["sleep", "0.3"])
    ours = family([quick.pid])
    stays = subprocess.Popen(["sleep", "30"])
    try:
        stranger = frozenset({(stays.pid, 1.0)})
        assert end_all(ours | stranger, grace_s=5) == 0
        assert stays.poll() is None
        assert end_all(family([stays.pid]), grace_s=0.1) == 1
        assert not psutil.pid_exists(stays.pid)
    finally:
        stays.kill()
        stays.wait()
        quick.wait()


def test_processes_that_are_gone_have_no_family() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert family([done.pid]) == frozenset()
    assert (os.getpid(), psutil.Process().create_time()) in family([os.getpid()])


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
