"""Phases that trials share: one process at a time, released however it ends, known to the trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from search_spaces.spec import SftSettings
from tests.tiny import tiny_pairs, tiny_spec
from trainers import phases as module
from trainers.errors import StoppedError
from trainers.phases import Phase, current_phase, hold_phase
from trainers.progress import EpochReport, ShouldStop, never
from trainers.task import TrainingTask

HOLD = """
import sys, time
from pathlib import Path
from tests.unit.trainers.test_phases import task
from trainers.phases import hold_phase
with hold_phase(task(Path(sys.argv[1]), Path(sys.argv[2])), "sft", "abc", 4):
    print("held", flush=True)
    time.sleep(60)
"""


def unheard(report: EpochReport) -> None:
    pass


def task(workdir: Path, phases: Path | None, should_stop: ShouldStop = never) -> TrainingTask:
    workdir.mkdir(parents=True, exist_ok=True)
    return TrainingTask(
        tiny_spec(method=SftSettings()),
        workdir,
        tiny_pairs(),
        workdir,
        unheard,
        should_stop=should_stop,
        phases=phases,
    )


def test_a_phase_is_where_its_identity_says(tmp_path: Path) -> None:
    trial = task(tmp_path / "trial", tmp_path / "phases")
    with hold_phase(trial, "sft", "0123456789abcdef0123", 4) as folder:
        assert folder == tmp_path / "phases" / "sft-0123456789abcdef"
        assert current_phase(trial.workdir) == Phase(folder, 4)
    assert current_phase(trial.workdir) is None
    with hold_phase(task(tmp_path / "alone", None), "sft", "0123", 4) as folder:
        assert folder == tmp_path / "alone" / "phases" / "sft-0123"


def test_what_went_wrong_in_a_phase_is_known_to_be_of_it(tmp_path: Path) -> None:
    trial = task(tmp_path / "trial", tmp_path / "phases")
    with pytest.raises(ValueError, match="mine"), hold_phase(trial, "ppo", "1", 2):
        raise ValueError("mine")
    assert current_phase(trial.workdir) == Phase(tmp_path / "phases" / "ppo-1", 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"folder": 1}', '{"folder": "a", "at_once": "b"}']
)
def test_a_note_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "phase.json").write_text(text)
    assert current_phase(tmp_path) is None


def test_one_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    """The second waits, may be told to stop meanwhile, and has the phase once the first is killed."""
    phases = tmp_path / "phases"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a"), str(phases)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        asked = iter([False, False, True])
        waiting = task(tmp_path / "b", phases, lambda: next(asked))
        with (
            pytest.raises(StoppedError, match="waited for sft-abc"),
            hold_phase(waiting, "sft", "abc", 4),
        ):
            pytest.fail("held twice")
        with hold_phase(waiting, "sft", "other", 4):
            pass  # Another phase is nobody's.
        killer = threading.Timer(0.3, os.kill, (first.pid, signal.SIGKILL))
        killer.start()
        with hold_phase(task(tmp_path / "b", phases), "sft", "abc", 4) as folder:
            assert first.wait(5) == -signal.SIGKILL
            assert folder.parent == phases
    assert json.loads((tmp_path / "a" / "phase.json").read_text())["at_once"] == 4


def test_without_locks_phases_are_the_trials_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "try_lock", lambda descriptor: None)
    trial = task(tmp_path / "trial", tmp_path / "phases")
    with hold_phase(trial, "sft", "abc", 4) as folder:
        assert folder == tmp_path / "trial" / "phases" / "sft-abc"
        assert folder.is_dir()
