"""Attempts at a trial: one at a time, and the dead counted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator import attempts as module
from orchestrator.attempts import attempt, mark_memory_kill, read_attempt
from orchestrator.errors import TrialHeldError, WorkerLostError
from orchestrator.failure import reason_of
from trainers.errors import StoppedError
from trainers.progress import never

DIE = """
import os, signal, sys
from pathlib import Path
from orchestrator.attempts import attempt
with attempt(Path(sys.argv[1]), sys.argv[2], lambda: False):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.0)


def die(folder: Path, token: str = "t") -> None:
    code = DIE.replace(
        "from orchestrator.attempts",
        "import orchestrator.attempts as m\nm._LONGEST_PAUSE_S = 0\nfrom orchestrator.attempts",
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), token], check=False)
    assert done.returncode == -9


def test_an_attempt_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    with attempt(tmp_path / "a", "t", never) as this:
        assert read_attempt(tmp_path / "a") == this
        assert (this.lost, this.resumed) == (0, 0)
    assert read_attempt(tmp_path / "a") is None
    with pytest.raises(ValueError, match="mine"), attempt(tmp_path / "a", "t", never):
        raise ValueError("mine")
    assert read_attempt(tmp_path / "a") is None


def test_dead_workers_are_counted_until_the_trial_gets_further(tmp_path: Path) -> None:
    die(tmp_path)
    die(tmp_path)
    with attempt(tmp_path, "t", never) as this:
        assert (this.lost, this.memory_kills, this.after_memory_kill) == (2, 0, False)
    die(tmp_path)
    (tmp_path / "checkpoint-12").mkdir()
    die(tmp_path)
    (tmp_path / "checkpoint-24").mkdir()
    with attempt(tmp_path, "t", never) as this:
        assert this.lost == 1


def test_getting_further_in_a_phase_counts(tmp_path: Path) -> None:
    """Its files are not the trial's, and are what a phase's progress is seen by."""
    trial, phase = tmp_path / "trial", tmp_path / "phases" / "ppo-1"
    phase.mkdir(parents=True)
    trial.mkdir()
    (trial / "phase.json").write_text(json.dumps({"folder": str(phase), "at_once": 4}))
    die(trial)
    die(trial)
    (phase / "checkpoint-12").mkdir()
    die(trial)  # Found it further than the two before.
    die(trial)
    with attempt(trial, "t", never) as this:
        assert this.lost == 3
    die(trial)
    (phase / "trained.json").touch()
    with attempt(trial, "t", never) as this:
        assert this.lost == 1


def test_the_deaths_of_another_drivers_workers_say_nothing(tmp_path: Path) -> None:
    die(tmp_path, "first")
    with attempt(tmp_path, "second", never) as this:
        assert (this.lost, this.resumed) == (0, 1)


def test_a_trial_that_kills_every_worker_at_the_same_place_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOST", 1)
    die(tmp_path)
    with attempt(tmp_path, "t", never):
        pass
    die(tmp_path)
    die(tmp_path)
    with pytest.raises(WorkerLostError, match="2 times in a row") as lost:
        attempt(tmp_path, "t", never).__enter__()
    assert reason_of(lost.value) == "worker_lost"
    with attempt(tmp_path, "t", never) as this:  # A retry that was asked for begins anew.
        assert this.lost == 0


def test_a_worker_that_ray_killed_for_memory_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOST", 1)
    die(tmp_path)
    mark_memory_kill(tmp_path)
    with attempt(tmp_path, "t", never) as this:
        assert this.after_memory_kill
        assert this.memory_kills == 1
    for _ in range(2):
        die(tmp_path)
        mark_memory_kill(tmp_path)
    with pytest.raises(WorkerLostError, match="because memory ran out") as lost:
        attempt(tmp_path, "t", never).__enter__()
    assert reason_of(lost.value) == "out_of_memory"


def test_a_worker_that_the_kernel_killed_for_memory_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(tmp_path)
    before = read_attempt(tmp_path)
    assert before is not None
    counted = before.system_kills
    assert counted is not None
    monkeypatch.setattr(module, "_system_kills", lambda: counted + 1)
    with attempt(tmp_path, "t", never) as this:
        assert this.after_memory_kill


def test_a_second_worker_waits_for_the_first_to_end(tmp_path: Path) -> None:
    ended: list[str] = []

    def second() -> None:
        with attempt(tmp_path, "t", never):
            ended.append("second")

    with attempt(tmp_path, "t", never):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.4)
        ended.append("first")
    thread.join(timeout=10)
    assert ended == ["first", "second"]


def test_waiting_and_pausing_end_when_the_sweep_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        attempt(tmp_path, "t", never),
        pytest.raises(StoppedError),
        attempt(tmp_path, "t", lambda: True),
    ):
        pass
    die(tmp_path)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 30.0)
    with pytest.raises(StoppedError), attempt(tmp_path, "t", lambda: True):
        pass


def test_a_trial_that_is_held_too_long_says_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_WAIT_S", 0.1)
    with (
        attempt(tmp_path, "t", never),
        pytest.raises(TrialHeldError, match=r"process [0-9]+ on .* holds"),
        attempt(tmp_path, "t", never),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"token": 1}', b'{"who": "else"}'])
def test_a_broken_record_is_no_attempt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "attempt.json").write_bytes(content)
    assert read_attempt(tmp_path) is None
    with attempt(tmp_path, "t", never) as this:
        assert this.lost == 0
