"""Trials that fall behind end early, for good where that is asked for, and go on where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.flow.sweeps import SMALL, results, run, write_corpus

pytestmark = pytest.mark.timeout(400)

SWEEP = (
    "sweep",
    "race.yaml",
    "--corpus",
    "corpus.csv",
    "--scale",
    "laptop",
    "--cpus",
    "1",
    "--json",
)
RATES = [1e-2, 1e-7, 2e-7]
"""The first learns; by the end of an epoch the others have not, and are told so one by one."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Path:
    folder = tmp_path_factory.mktemp("race")
    write_corpus(folder / "corpus.csv")
    defaults = {"model": str(tiny_gpt2), **SMALL, "epochs": 3, "batch_size": 4}
    del defaults["learning_rate"]
    stage = {"name": "rates", "grid": {"learning_rate": RATES}, "methods": [{"kind": "sft"}]}
    best = {"stage": "rates", "best": "valid/loss", "mode": "min"}
    final = {"name": "final", "from": best, "early_stop": "off", "methods": [{"kind": "sft"}]}
    space = {
        "name": "race",
        "defaults": defaults,
        "early_stop": {"kind": "asha", "reduction_factor": 2},
        "stages": [stage, final],
    }
    (folder / "race.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def raced(place: Path) -> dict[str, Any]:
    done = run(SWEEP, place)
    assert done.code == 0, done.err
    return dict(done.json)


def by_rate(folder: Path) -> dict[float, dict[str, Any]]:
    files = folder.glob("runs/race/trials/*/stopped.json")
    stops = [json.loads(file.read_text()) for file in files]
    return {stop["spec"]["training"]["learning_rate"]: stop for stop in stops}


def mlflow_runs(folder: Path) -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{folder / 'runs/mlflow.db'}")
    experiment = client.get_experiment_by_name("race")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.`sweep.kind` = 'trial'")
    return {one.data.tags["trial_id"]: one for one in found}


def test_those_that_fall_behind_end_early_and_say_so(place: Path, raced: dict[str, Any]) -> None:
    assert raced["trials"] == {
        "total": 3,
        "done": 1,
        "failed": 0,
        "stopped_early": 2,
        "pending": 0,
    }
    stops = by_rate(place)
    assert set(stops) == set(RATES[1:])
    for stop in stops.values():
        assert (stop["epoch"], stop["epochs"]) == (1.0, 3)
    (winner,) = results(place / "runs" / "race").values()
    assert winner["spec"]["training"]["learning_rate"] == RATES[0]


def test_tables_and_mlflow_keep_them_apart(place: Path, raced: dict[str, Any]) -> None:
    table = (place / "runs/race/report/table1.md").read_text()
    assert "Stopped early: 2 of the sweep's 3 trials" in table
    assert "1e-7" not in table
    runs = mlflow_runs(place)
    early = [one for one in runs.values() if one.data.tags.get("stopped_early") == "true"]
    assert len(runs) == 3
    assert [one.info.status for one in early] == ["KILLED", "KILLED"]


@pytest.mark.slow
def test_a_rerun_leaves_them_and_one_without_early_stopping_completes_them(
    place: Path, raced: dict[str, Any]
) -> None:
    before = by_rate(place)
    again = run(SWEEP, place)
    assert again.code == 0, again.err
    assert again.json["trials"] == raced["trials"]
    assert by_rate(place) == before
    full = run([*SWEEP, "--set", "early_stop=off"], place)
    assert full.code == 0, full.err
    assert (full.json["trials"]["done"], full.json["trials"]["stopped_early"]) == (3, 0)
    done = results(place / "runs" / "race")
    assert {stop["id"] for stop in before.values()} < set(done)
    for stop in before.values():
        # The loss at the end of the first epoch was measured once: training went on from there.
        rows = (place / f"runs/race/trials/{stop['id']}/train.csv").read_text()
        assert rows.count(f",{stop['valid_loss']},") == 1
        assert not (place / f"runs/race/trials/{stop['id']}/stopped.json").exists()
    assert {one.info.status for one in mlflow_runs(place).values()} == {"FINISHED"}
