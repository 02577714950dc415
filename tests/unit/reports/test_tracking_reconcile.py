"""Whatever happened to the runs meanwhile, reconciling makes MLflow say what the results say."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from reports.delivery import Delivery, read_delivery, write_delivery
from reports.results import TrialResult, read_sweep
from reports.status import sweep_status
from reports.tracking import Tracker
from reports.tracking_pulse import GivenUpError, Pulse
from reports.tracking_store import TrackingError
from tests.unit.reports.sweep_builder import trial_id
from tests.unit.reports.tracked_runs import (
    differences,
    keep_few,
    result_of,
    run_of,
    runs_of,
)


@pytest.fixture
def own_grid(own_grid: Path) -> Path:
    return keep_few(own_grid)


def reconcile(tracker: Tracker, folder: Path) -> None:
    """As a sweep does at its end."""
    again = Tracker(tracker.store, "paper_grid")
    again.reconcile(folder)
    again.finish_sweep(read_sweep(folder))


def start(tracker: Tracker, folder: Path, number: int) -> str:
    trial = read_sweep(folder).trials[trial_id(number)]
    return tracker.start_trial(trial.id, trial.name, trial.spec, trial.stages)


def test_a_run_that_someone_deleted_is_made_again(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    reconcile(tracker, own_grid)
    client.delete_run(run_of(client, 1).info.run_id)
    (parent,) = runs_of(client, "parent")
    client.delete_run(parent.info.run_id)
    reconcile(tracker, own_grid)
    assert differences(client, own_grid) == []
    (parent,) = runs_of(client, "parent")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs_of(client)} == {parent.info.run_id}


@pytest.mark.parametrize("edit", ["metric", "status", "digest", "trial_id", "parameter"])
def test_what_someone_changed_in_a_run_is_put_right(
    own_grid: Path, tracker: Tracker, client: MlflowClient, edit: str
) -> None:
    reconcile(tracker, own_grid)
    run_id = run_of(client, 1).info.run_id
    match edit:
        case "metric":
            client.log_metric(run_id, "test/rouge1_beam1", 99.0, step=10_000)
        case "status":
            client.update_run(run_id, status="FAILED")
        case "digest":
            client.set_tag(run_id, "result_sha256", "0" * 64)
        case "trial_id":
            client.delete_tag(run_id, "trial_id")
        case "parameter":
            client.delete_run(run_id)
            other = client.create_run(
                run_of(client, 9).info.experiment_id,
                tags={"sweep.kind": "trial", "trial_id": trial_id(1)},
            )
            client.log_batch(other.info.run_id, params=[Param("seed", "77")])
    reconcile(tracker, own_grid)
    assert [line for line in differences(client, own_grid) if not line.startswith(":")] == []
    assert run_of_trial_count(client, 1) == 1


def run_of_trial_count(client: MlflowClient, number: int) -> int:
    return sum(run.data.tags.get("trial_id") == trial_id(number) for run in runs_of(client))


def test_a_deleted_experiment_comes_back_while_a_sweep_runs(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    tracker.reconcile(own_grid)
    client.delete_experiment(tracker.ensure_store())
    with pytest.raises(TrackingError):
        start(tracker, own_grid, 16)
    tracker.reconcile(own_grid)  # the same tracker: it must not believe what it knew
    tracker.finish_sweep(read_sweep(own_grid))
    assert differences(client, own_grid) == []


def test_a_database_that_is_gone_is_an_error_and_the_next_process_fills_a_new_one(
    own_grid: Path, tracker: Tracker
) -> None:
    tracker.reconcile(own_grid)
    (own_grid.parent / "mlflow.db").unlink()
    with pytest.raises(TrackingError, match="deleted while the sweep ran"):
        tracker.reconcile(own_grid)


def test_running_trials_are_running_and_others_are_not(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    start(tracker, own_grid, 16)  # by a driver that was killed
    first = Tracker(tracker.store, "paper_grid")
    assert first.reconcile(own_grid).closed == 1
    assert run_of(client, 16).info.status == "KILLED"
    # A failed trial is run again, and its failure is still there; the pending one runs too.
    running = {trial_id(4), trial_id(16)}
    assert first.reconcile(own_grid, running).closed == 0
    assert run_of(client, 16).info.status == "RUNNING"
    again = run_of(client, 4)
    assert again.info.status == "RUNNING"
    assert "failure_reason" not in again.data.tags
    first.reconcile(own_grid)
    assert run_of(client, 4).info.status == "FAILED"
    assert run_of(client, 16).info.status == "KILLED"


def test_a_result_that_is_gone_leaves_no_finished_run(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    tracker.reconcile(own_grid)
    file = own_grid / "trials" / trial_id(1) / "result.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])  # cut short: the trial is pending again
    tracker.reconcile(own_grid)
    run = run_of(client, 1)
    assert run.info.status == "KILLED"
    assert "result_sha256" not in run.data.tags
    file.write_bytes(whole)
    reconcile(tracker, own_grid)
    assert run_of(client, 1).info.run_id == run.info.run_id
    assert differences(client, own_grid) == []


def test_a_stopped_trial_that_goes_on_logs_no_point_twice(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    run_id = start(tracker, own_grid, 1)
    result = result_of(own_grid, 1)
    losses = [line.split(",") for line in train_lines(own_grid) if line.split(",")[2]]
    for row in losses[:3]:
        tracker.log_progress(result.id, {"train/loss": float(row[2])}, int(row[0]))
    tracker.stop_trial(result.id)
    assert run_of(client, 1).info.status == "KILLED"
    later = Tracker(tracker.store, "paper_grid")
    assert start(later, own_grid, 1) == run_id
    assert run_of(client, 1).info.status == "RUNNING"
    for row in losses[1:5]:
        later.log_progress(result.id, {"train/loss": float(row[2])}, int(row[0]))
    history = client.get_metric_history(run_id, "train/loss")
    assert sorted(m.step for m in history) == [1, 2, 3, 4, 5]
    later.log_progress(result.id, {"train/loss": 77.0}, 3)  # another value: not hidden
    assert len(client.get_metric_history(run_id, "train/loss")) == 6
    reconcile(tracker, own_grid)
    assert differences(client, own_grid) == []


def train_lines(folder: Path) -> list[str]:
    return (folder / "trials" / trial_id(1) / "train.csv").read_text().splitlines()[1:]


def test_two_writers_of_one_trial_leave_one_run(
    own_grid: Path, tracker: Tracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = result_of(own_grid, 1), own_grid / "trials" / trial_id(1)
    with monkeypatch.context() as patched:
        # Both look before either has made its run.
        patched.setattr("reports.tracking_runs.SweepRuns.search", lambda *_: [])
        one, two = Tracker(tracker.store, "paper_grid"), Tracker(tracker.store, "paper_grid")
        one.start_trial(result.id, result.name, result.spec, result.stages)
        two.start_trial(result.id, result.name, result.spec, result.stages)
        two.finish_trial(result, folder)
    assert (len(runs_of(client)), len(runs_of(client, "parent"))) == (2, 2)
    assert Tracker(tracker.store, "paper_grid").reconcile(own_grid).deleted == 1
    reconcile(tracker, own_grid)
    assert differences(client, own_grid) == []


def test_a_tracker_that_was_given_up_makes_no_further_request(
    own_grid: Path, tracker: Tracker, client: MlflowClient
) -> None:
    pulse = Pulse()
    given_up = Tracker(tracker.store, "paper_grid", pulse)
    given_up.ensure_store()
    pulse.give_up()
    with pytest.raises(GivenUpError):
        given_up.reconcile(own_grid)
    assert not pulse.pause(60)
    assert runs_of(client) == []


def test_what_tracker_knows_as_delivered(own_grid: Path, tracker: Tracker) -> None:
    done = {trial.id for trial in read_sweep(own_grid).done}
    tracker.reconcile(own_grid)
    assert tracker.delivered == done
    again = Tracker(tracker.store, "paper_grid")
    result = read_sweep(own_grid).trials[trial_id(1)]
    assert isinstance(result, TrialResult)
    again.finish_trial(result, own_grid / "trials" / result.id)
    assert again.delivered == {result.id}


def test_status_says_whether_mlflow_has_it(own_grid: Path, monkeypatch) -> None:
    assert sweep_status(own_grid)["tracking"] is None
    write_delivery(own_grid, Delivery("http://host", False, "nobody answered"))
    assert sweep_status(own_grid)["tracking"] == {
        "uri": "http://host",
        "delivered": False,
        "reason": "nobody answered",
    }
    (own_grid / "tracking.json").write_text('{"uri": "x"')
    assert read_delivery(own_grid) is None
    (own_grid / "tracking.json").write_text('{"url": "x"}')
    assert read_delivery(own_grid) is None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_delivery(own_grid, Delivery("http://host", True))
    monkeypatch.setattr("reports.delivery.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        write_delivery(own_grid, Delivery("http://host", False, "full"))
    assert read_delivery(own_grid) is None  # rather than the old word, which is wrong now


def test_nan_is_never_a_point(own_grid: Path, tracker: Tracker, client: MlflowClient) -> None:
    run_id = start(tracker, own_grid, 16)
    client.log_batch(run_id, metrics=[Metric("train/loss", 1.0, 0, 5)])
    tracker.log_progress(trial_id(16), {"train/loss": float("nan"), "valid/loss": 2.0}, 5)
    assert run_of(client, 16).data.metrics == {"train/loss": 1.0, "valid/loss": 2.0}
