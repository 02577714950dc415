"""Who is stopped early: decided by losses at the end of epochs, across runs, and fair to seeds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.early_stopping import EarlyStopping, Race
from orchestrator.storage import STOPPED_FILE, SweepFolder, write_json
from orchestrator.winner import choose_winner
from search_spaces.early_stop import EarlyStop
from search_spaces.identity import spec_to_dict
from search_spaces.space import WinnerOf
from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine
from tests.unit.orchestrator.trials import planned, spec, write_result

BEST = WinnerOf("first", "valid/loss", "min")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "runs" / "tiny")


def race(folder: SweepFolder, *ids: str, **curves: list[float]) -> EarlyStopping:
    data = spec_to_dict(spec(epochs=4))
    rule = EarlyStop(reduction_factor=2)
    return EarlyStopping(Race(rule, dict.fromkeys(ids, data), 4, curves), folder)


def report(scheduler: EarlyStopping, trial_id: str, epoch: int, loss: float) -> None:
    trial: Any = SimpleNamespace(trial_id=f"tune's own {trial_id}", config={"group": trial_id})
    scheduler.on_trial_add(None, trial)
    result = {"epoch": epoch, "step": 10 * epoch, "total_steps": 40, "valid_loss": loss}
    assert scheduler.on_trial_result(None, trial, result) == "CONTINUE"


def stopped(folder: SweepFolder) -> list[str]:
    return sorted(file.parent.name for file in folder.path.glob(f"trials/*/{STOPPED_FILE}"))


def test_the_worse_half_is_told_to_end(folder: SweepFolder) -> None:
    scheduler = race(folder, "a", "b", "c")
    report(scheduler, "a", 1, 1.0)
    report(scheduler, "b", 1, 2.0)
    report(scheduler, "c", 1, 0.5)
    assert stopped(folder) == ["b"]
    record = json.loads((folder.trial("b") / STOPPED_FILE).read_text())
    assert (record["id"], record["epoch"], record["epochs"]) == ("b", 1, 4)
    assert folder.statuses(["a", "b"]) == {"a": "pending", "b": "stopped_early"}


def test_what_earlier_runs_measured_counts(folder: SweepFolder) -> None:
    scheduler = race(folder, "a", "b", a=[1.0, 0.9])
    report(scheduler, "b", 1, 2.0)
    assert stopped(folder) == ["b"]
    report(scheduler, "a", 1, 9.0)  # measured again by a trial that goes on: it was compared then
    assert stopped(folder) == ["b"]


def test_neither_the_end_of_a_training_nor_another_kind_of_trial_is_an_early_stop(
    folder: SweepFolder,
) -> None:
    scheduler = race(folder, "a", "b", a=[1.0, 0.9, 0.8, 0.7])
    report(scheduler, "b", 4, 2.0)
    report(scheduler, "other", 1, 9.0)
    assert stopped(folder) == []


def test_a_result_counts_more_than_an_early_stop(folder: SweepFolder) -> None:
    write_json(folder.trial("a") / STOPPED_FILE, {"epoch": 1, "epochs": 4})
    assert folder.is_stopped_early("a")
    write_result(folder, "a", loss=1.0)
    assert not folder.is_stopped_early("a")


def test_settings_that_lost_their_worse_seeds_do_not_win_by_it(folder: SweepFolder) -> None:
    trials = [
        planned(f"{rate}{seed}", spec(seed, learning_rate=rate))
        for rate in (1e-3, 1e-4)
        for seed in (0, 1)
    ]
    half, other, whole, second = (trial.id for trial in trials)
    write_result(folder, half, loss=1.0)
    write_json(folder.trial(other) / STOPPED_FILE, {"epoch": 1, "epochs": 4})
    write_result(folder, whole, loss=1.5)
    assert choose_winner(BEST, trials, folder) is None  # one is still to run
    write_result(folder, second, loss=1.7)
    winner = choose_winner(BEST, trials, folder)
    assert winner is not None
    assert winner.trial_id == whole


def test_early_stopping_that_can_stop_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = CommandLine(tmp_path, monkeypatch, capsys)
    write_corpus(tmp_path / "corpus.csv")
    line.write(
        "grid.yaml",
        "name: tiny\n"
        "defaults: {model: medium, max_length: 96, max_new_tokens: 8, bertscore_model: null}\n"
        "early_stop: asha\n"
        "stages:\n"
        "  - {name: first, grid: {learning_rate: [1.0e-3, 1.0e-4]}, methods: [{kind: sft}]}\n",
    )
    command = ("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv", "--json")
    refused = line.run(*command)
    assert refused.code == 2
    assert "early_stop: there must be trials to stop" in refused.err
    asked = line.run(*command, "--set", "epochs=2")
    off = line.run(*command, "--set", "epochs=2", "--set", "early_stop=off")
    assert asked.code == off.code == 0
    assert [trial["id"] for trial in asked.json["trials"]] == [
        trial["id"] for trial in off.json["trials"]
    ]
