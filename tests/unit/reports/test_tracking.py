import json
import math
import os
import pickle
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from reports.dashboard import dashboard_command, dashboard_environment, is_loopback
from reports.results import ReportError, read_sweep
from reports.tracking import Tracker
from reports.tracking_records import safe_key, shortened, trial_params
from reports.tracking_store import TrackingError, TrackingStore, mask_credentials, tracking_store
from reports.write import write_report
from tests.unit.reports.sweep_builder import make_scores, make_spec, trial_id, write_updates
from tests.unit.reports.tracked_runs import keep_few, result_of, run_of, runs_of

DONE = 3
FAILED = 1


@pytest.fixture
def own_grid(own_grid: Path) -> Path:
    return keep_few(own_grid)


def test_reconcile_gives_every_finished_trial_one_run(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    done = tracker.reconcile(own_grid)
    assert (done.logged, done.unchanged, done.failed, done.deleted) == (DONE, 0, FAILED, 0)
    before = {run.info.run_id: run.to_dictionary() for run in runs_of(client)}
    assert len(before) == DONE + FAILED
    (parent,) = runs_of(client, "parent")
    assert all(
        run["data"]["tags"]["mlflow.parentRunId"] == parent.info.run_id for run in before.values()
    )
    again = Tracker(tracker.store, "paper_grid").reconcile(own_grid)
    assert (again.logged, again.unchanged, again.closed, again.deleted) == (0, DONE, 0, 0)
    assert {run.info.run_id: run.to_dictionary() for run in runs_of(client)} == before
    assert len(runs_of(client, "parent")) == 1


def test_a_run_holds_all_of_a_result(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    tracker.reconcile(own_grid)
    run, result = run_of(client, 9), result_of(own_grid, 9)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == result.name
    assert run.info.end_time == 1740823920000 + 1000 * (int(trial_id(9)[:4], 16) % 60)
    for key, value in result.scores.items():
        assert run.data.metrics[key] == pytest.approx(value), key
    assert run.data.metrics["cost/total_parameters"] == 354_823_168
    assert run.data.params["learning_rate"] == "0.0001"
    assert run.data.params["method"] == "sft"
    assert run.data.params["beams"] == "[1, 2, 4]"
    tags = run.data.tags
    assert tags["stage"] == "parameters,methods"
    assert (tags["method"], tags["loader"], tags["model"]) == ("sft", "v1", "laptop-large")
    assert tags["git_commit"].startswith("0123")
    assert tags["corpus_hash"] == result.data["corpus_hash"]
    train = client.get_metric_history(run.info.run_id, "train/loss")
    assert len({metric.step for metric in train}) == 40
    valid = [m.step for m in client.get_metric_history(run.info.run_id, "valid/loss")]
    assert sorted(set(valid)) == [10, 20, 30, 40]
    inputs = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert set(inputs) == {"train", "valid", "test"}
    assert result.data["corpus_hash"].startswith(inputs["test"].digest)
    assert json.loads(inputs["train"].profile) == {"num_rows": 180}


def test_replies_are_a_table_without_personal_data(
    own_grid: Path, tracker: Tracker, client: MlflowClient, tmp_path: Path
) -> None:
    tracker.reconcile(own_grid)
    run = run_of(client, 20)
    file = client.download_artifacts(run.info.run_id, "replies.json", str(tmp_path))
    table = pd.read_json(file, orient="split")  # as `load_table` reads it
    assert len(table) == 24 * 3
    assert {"prompt", "reference", "reply", "rouge1"} <= set(table.columns)
    assert not table["prompt"].str.contains("example.com").any()
    assert table["prompt"].str.contains(r"\[EMAIL\]").any()
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "replies.json", "type": "table"}
    ]


def test_a_trial_that_was_watched_ends_with_the_same_run(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    result = result_of(own_grid, 1)
    tracker.ensure_store()
    assert tracker.start_sweep({"scale": "laptop"}) == tracker.start_sweep()
    run_id = tracker.start_trial(result.id, result.name, result.spec, ["parameters"])
    assert tracker.start_trial(result.id, result.name, result.spec, ["parameters"]) == run_id
    lines = (own_grid / "trials" / result.id / "train.csv").read_text().splitlines()[1:4]
    for line in lines:
        step, _, loss = line.split(",")[:3]
        progress = {"train/loss": float(loss), "odd key <&>": float("nan"), "GPU %": 3.0}
        tracker.log_progress(result.id, progress, int(step))
    assert run_of(client, 1).info.status == "RUNNING"
    assert tracker.finish_trial(result, own_grid / "trials" / result.id) == run_id
    run = run_of(client, 1)
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted(m.step for m in history) == [*range(1, 41), 40]  # the curve, and the result's own
    assert run.data.metrics["train/loss"] == pytest.approx(result.scores["train/loss"])
    assert "GPU _" in run.data.metrics
    assert tracker.finish_trial(result, own_grid / "trials" / result.id) == run_id
    assert len(client.get_metric_history(run_id, "train/loss")) == 41


def test_rewards_by_update_are_curves_of_their_own(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    result, folder = result_of(own_grid, 1), own_grid / "trials" / trial_id(1)
    write_updates(folder / "rl.csv", 0.1)
    run_id = tracker.finish_trial(result, folder)
    run = run_of(client, 1)
    logged = {key for key in run.data.metrics if key.startswith("rl/")}
    assert logged == {"rl/reward", "rl/kl", "rl/value_loss"}
    kl = client.get_metric_history(run_id, "rl/kl")
    assert [(m.step, m.value) for m in kl] == [(n, pytest.approx(0.2 * n)) for n in range(1, 51)]
    assert {m.timestamp for m in kl} == {run.info.start_time}
    assert [m.step for m in client.get_metric_history(run_id, "rl/value_loss")] == [
        *range(2, 51, 2)
    ]
    # Updates are no optimiser steps of the losses: the result's own loss stands at theirs.
    assert max(m.step for m in client.get_metric_history(run_id, "train/loss")) == 40
    assert tracker.finish_trial(result, folder) == run_id
    client.delete_tag(run_id, "result_sha256")  # As where a driver was killed before the end.
    again = Tracker(tracker.store, "paper_grid")
    assert again.finish_trial(result, folder) == run_id
    assert len(client.get_metric_history(run_id, "rl/kl")) == 50
    client.delete_tag(run_id, "result_sha256")
    write_updates(folder / "rl.csv", 0.3)
    assert again.finish_trial(result, folder) != run_id, "what is logged cannot be taken back"
    assert run_of(client, 1).data.metrics["rl/reward"] == pytest.approx(0.3 + 0.5 * math.tanh(2.5))


def test_times_that_no_store_holds(own_grid: Path, tracker: Tracker, client: MlflowClient) -> None:
    result, folder = result_of(own_grid, 1), own_grid / "trials" / trial_id(1)
    (folder / "rl.csv").write_text("step,reward,seconds\n1,0.5,2.5\n2,0.5,1e99\n3,0.5,-1e99\n")
    run_id = tracker.finish_trial(result, folder)
    began = run_of(client, 1).info.start_time
    times = [m.timestamp - began for m in client.get_metric_history(run_id, "rl/reward")]
    assert sorted(times) == [0, 2500, 10**12]


def test_a_finish_that_was_cut_short_is_completed_without_doubles(
    own_grid: Path, tracker: Tracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = result_of(own_grid, 1), own_grid / "trials" / trial_id(1)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_inputs", stop)
        with pytest.raises(KeyboardInterrupt):
            tracker.finish_trial(result, folder)
    before = run_of(client, 1)
    assert before.info.status == "RUNNING"
    count = len(client.get_metric_history(before.info.run_id, "train/loss"))
    Tracker(tracker.store, "paper_grid").reconcile(own_grid)
    after = run_of(client, 1)
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED")
    assert len(client.get_metric_history(after.info.run_id, "train/loss")) == count


def test_what_a_killed_driver_left_behind_is_mended(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    sweep = read_sweep(own_grid)
    for number in (1, 4, 16):  # done, failed and pending in the folder; all RUNNING in the store
        trial = sweep.trials[trial_id(number)]
        tracker.start_trial(trial.id, trial.name, trial.spec, trial.stages)
    original = run_of(client, 1)
    second = client.create_run(
        original.info.experiment_id,
        run_name="second",
        tags={"sweep.kind": "trial", "trial_id": trial_id(1), "mlflow.parentRunId": "gone"},
    )
    done = Tracker(tracker.store, "paper_grid").reconcile(own_grid)
    assert (done.closed, done.deleted) == (1, 1)
    assert run_of(client, 1).info.status == "FINISHED"
    assert client.get_run(second.info.run_id).info.lifecycle_stage == "deleted"
    failed = run_of(client, 4)
    assert (failed.info.status, failed.data.tags["failure_reason"]) == ("FAILED", "diverged")
    assert run_of(client, 16).info.status == "KILLED"
    assert not [run for run in runs_of(client) if run.info.status == "RUNNING"]


def test_a_failed_trial_that_is_done_later_is_finished(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    result = result_of(own_grid, 1)
    tracker.start_trial(result.id, result.name, result.spec, result.stages)
    tracker.fail_trial(result.id, "worker_lost", "node went away")
    assert run_of(client, 1).info.status == "FAILED"
    assert run_of(client, 1).data.tags["failure_reason"] == "worker_lost"
    tracker.reconcile(own_grid)
    run = run_of(client, 1)
    assert run.info.status == "FINISHED"
    assert "failure_reason" not in run.data.tags


def test_a_result_that_changed_replaces_its_run(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    tracker.reconcile(own_grid)
    before = run_of(client, 1)
    file = own_grid / "trials" / trial_id(1) / "result.json"
    record = json.loads(file.read_text())
    record["scores"]["test/rouge1"] = 0.0
    file.write_text(json.dumps(record))
    assert tracker.reconcile(own_grid).logged == 1
    after = run_of(client, 1)
    assert after.info.run_id != before.info.run_id
    assert after.data.metrics["test/rouge1"] == 0.0
    assert tracker.reconcile(own_grid).logged == 0


def test_a_parameter_that_differs_does_not_stop_a_trial(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    result = result_of(own_grid, 1)
    tracker.start_trial(result.id, result.name, {**result.spec, "seed": 77}, result.stages)
    tracker.finish_trial(result, own_grid / "trials" / result.id)
    assert run_of(client, 1).data.params["seed"] == str(result.spec["seed"])


def test_the_parent_holds_the_report(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    parent = tracker.start_sweep()
    sweep = read_sweep(own_grid)
    for _ in range(2):
        tracker.log_report(write_report(own_grid), sweep)
    tracker.finish_sweep(sweep)
    run = client.get_run(parent)
    assert run.info.status == "FAILED"  # one of its trials did
    assert run.data.metrics["trials/done"] == DONE
    assert len(client.get_metric_history(parent, "trials/done")) == 1
    assert run.data.tags["scale"] == "laptop"
    assert "ROUGE-1 beam 1" in run.data.tags["mlflow.note.content"]
    files = {file.path for file in client.list_artifacts(parent, "report")}
    assert {"report/index.html", "report/table1.tex", "report/figures"} <= files
    assert (own_grid.parent / "mlartifacts").is_dir()


def test_an_experiment_that_was_deleted_is_taken_back(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    experiment = tracker.ensure_store()
    client.delete_experiment(experiment)
    assert Tracker(tracker.store, "paper_grid").ensure_store() == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_the_environment_names_the_store(tmp_path: Path) -> None:
    named = tracking_store(tmp_path, {"MLFLOW_TRACKING_URI": "http://me:pw@host:5000"})
    assert named.artifact_location is None
    assert "pw" not in repr(named)
    default = tracking_store(tmp_path, {})
    assert default.uri == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    assert default.artifact_location == (tmp_path.resolve() / "mlartifacts").as_uri()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:secret@host/x", "http://***@host/x"),
        ("postgresql+psycopg2://u:p@ss@db:5432/m", "postgresql+psycopg2://***@db:5432/m"),
        ("x?password=abc&token=def ok", "x?password=***&token=*** ok"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("a@b.c and http://host", "a@b.c and http://host"),
    ],
)
def test_credentials_are_masked(text: str, masked: str) -> None:
    assert mask_credentials(text) == masked


def test_a_store_that_cannot_be_used_is_named_without_credentials(tmp_path: Path) -> None:
    tracker = Tracker(TrackingStore("nosuchdialect://me:hunter2@host/db"), "s")
    with pytest.raises(TrackingError) as caught:
        tracker.ensure_store()
    error = pickle.loads(pickle.dumps(caught.value))
    assert "hunter2" not in str(error)
    assert "nosuchdialect://***@host/db" in str(error)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_keys_and_values_fit_mlflow() -> None:
    assert safe_key("test/rouge1_beam4") == "test/rouge1_beam4"
    assert safe_key("GPU %<é>") == "GPU ____"
    assert safe_key("/../a//b/") == "a/b"
    assert len(safe_key("x" * 400)) == 250
    assert shortened("x" * 7000, 6000).endswith("…")
    assert len(shortened("x" * 7000, 6000)) == 6000
    params = trial_params(make_spec(model="m" * 7000))
    assert len(params["model"]) == 6000
    assert params["columns"] == ""


def test_the_dashboard_serves_this_machine_alone(tmp_path: Path) -> None:
    store = tracking_store(tmp_path, {})
    command = dashboard_command(store, 5001)
    assert command[:6] == [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    assert command[-4:] == ["--host", "127.0.0.1", "--port", "5001"]
    assert dashboard_environment(store) == {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    assert "0.0.0.0" in dashboard_command(store, 5001, "0.0.0.0")
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "host")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip
    database = TrackingStore("postgresql://me:pw@host/db")
    assert "pw" not in " ".join(dashboard_command(database))
    assert dashboard_environment(database)["MLFLOW_BACKEND_STORE_URI"] == database.uri
    with pytest.raises(ReportError, match="open its address"):
        dashboard_command(TrackingStore("http://host:5000"))


def test_scores_of_zero_are_logged(builder, empty_database: Path) -> None:
    made = builder("paper_grid")
    made.stage("only", None)
    made.done(trial_id(1), "zero", make_spec(), make_scores(0.0, bertscore=False))
    folder = made.finish()
    shutil.copy(empty_database, folder.parent / "mlflow.db")
    store = tracking_store(
        folder.parent, {k: v for k, v in os.environ.items() if "MLFLOW" not in k}
    )
    Tracker(store, "paper_grid").reconcile(folder)
    run = run_of(MlflowClient(tracking_uri=store.uri), 1)
    assert run.data.metrics["test/rouge1_beam4"] == 0.0
    assert "test/bertscore_f1" not in run.data.metrics
