"""MLflow gets texts past the privacy gate only, and a stricter setting takes back what it got."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from corpora import privacy as privacy_module
from reports.results import read_sweep
from reports.tracking import Tracker
from reports.tracking_records import replies_table, trial_params
from tests.unit.reports.sweep_builder import make_spec, trial_id
from tests.unit.reports.test_write import set_privacy
from tests.unit.reports.tracked_runs import keep_few, run_of


@pytest.fixture
def own_grid(own_grid: Path) -> Path:
    return keep_few(own_grid)


def logged(client: MlflowClient, folder: Path) -> pd.DataFrame:
    run_id = run_of(client, 20).info.run_id
    return pd.read_json(
        client.download_artifacts(run_id, "replies.json", str(folder)), orient="split"
    )


def test_a_stricter_setting_takes_back_what_was_logged(
    own_grid: Path, tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    set_privacy(own_grid, "off")
    tracker.reconcile(own_grid)
    open_run = run_of(client, 20)
    assert logged(client, tmp_path)["prompt"].str.contains("jane.doe@example.com").any()
    assert open_run.data.tags["privacy"] == "off"

    set_privacy(own_grid, "drop")
    assert Tracker(tracker.store, "paper_grid").reconcile(own_grid).logged == 3
    table, run = logged(client, tmp_path), run_of(client, 20)
    assert not table["prompt"].str.contains("example.com|EMAIL").any()
    assert run.data.tags["replies_left_out"] == f"{72 - len(table)} of 72"
    assert run.info.run_id == open_run.info.run_id  # The one with the raw table is not left behind.

    set_privacy(own_grid, "redact")
    assert Tracker(tracker.store, "paper_grid").reconcile(own_grid).logged == 3
    table = logged(client, tmp_path)
    assert len(table) == 72
    assert table["prompt"].str.contains(r"\[EMAIL\]").any()
    assert run_of(client, 20).data.tags["replies_left_out"] == "none"
    assert Tracker(tracker.store, "paper_grid").reconcile(own_grid).logged == 0


def test_other_rules_log_again(
    own_grid: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracker.reconcile(own_grid).logged == 3
    monkeypatch.setattr(privacy_module, "RULES", 99)
    assert Tracker(tracker.store, "paper_grid").reconcile(own_grid).logged == 3


def test_a_setting_is_a_tag_and_no_parameter(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    set_privacy(own_grid, "drop")
    tracker.reconcile(own_grid)
    run = run_of(client, 20)
    assert "privacy" not in run.data.params
    assert run.data.tags["privacy"].startswith("drop, rules ")


def test_a_table_of_which_nothing_is_left_is_still_a_table(tmp_path: Path) -> None:
    reply = {"part": "test", "beam": 1, "pair_id": "1:1", "prompt": "a@b.co", "reply": "hm"}
    (tmp_path / "replies.jsonl").write_text(json.dumps(reply) + "\n", encoding="utf-8")
    dropped = replies_table(tmp_path, "drop")
    assert (dropped.rows, dropped.left_out) == (0, 1)
    assert json.loads(dropped.text)["data"] == []
    (tmp_path / "replies.jsonl").unlink()
    assert replies_table(tmp_path, "drop").text == ""


def test_sessions_and_paths_pass_the_gate_too(tmp_path: Path) -> None:
    reply = {"part": "test", "beam": 1, "pair_id": "jo@x.org:4", "prompt": "hm", "reply": "hm"}
    (tmp_path / "replies.jsonl").write_text(json.dumps(reply) + "\n", encoding="utf-8")
    assert "jo@x.org" not in replies_table(tmp_path, "redact").text
    assert "jo@x.org" in replies_table(tmp_path, "off").text
    spec = make_spec() | {"corpus": {"corpus": "/data/jo@x.org/a.csv"}}
    assert trial_params(spec)["corpus"] == "/data/[EMAIL]/a.csv"


def test_an_adopted_result_follows_the_plan(own_grid: Path) -> None:
    file = own_grid / "trials" / trial_id(20) / "result.json"
    result = json.loads(file.read_text(encoding="utf-8"))
    result["spec"]["corpus"] = {**result["spec"].get("corpus", {}), "privacy": "off"}
    file.write_text(json.dumps(result), encoding="utf-8")
    for privacy in ("drop", "redact"):
        set_privacy(own_grid, privacy)
        sweep = read_sweep(own_grid)
        assert sweep.privacy == privacy
        assert sweep.trials[trial_id(20)].spec["corpus"]["privacy"] == privacy
