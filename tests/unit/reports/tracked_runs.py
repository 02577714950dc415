"""What MLflow says of a prepared sweep, beside what its folder says."""

import json
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from reports.results import TrialResult, read_sweep
from tests.unit.reports.sweep_builder import trial_id

KEPT = {trial_id(number) for number in (1, 4, 9, 16, 20)}


def keep_few(folder: Path) -> Path:
    """Leave few trials in the plan: done (two stages, one untrained), failed, pending."""
    plan = json.loads((folder / "plan.json").read_text())
    plan["trials"] = [trial for trial in plan["trials"] if trial["id"] in KEPT]
    for stage in plan["stages"]:
        stage["trials"] = [trial for trial in stage["trials"] if trial in KEPT]
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def runs_of(client: MlflowClient, kind: str = "trial", sweep: str = "paper_grid") -> list[Run]:
    experiment = client.get_experiment_by_name(sweep)
    assert experiment is not None
    return list(
        client.search_runs(
            [experiment.experiment_id], f"tags.`sweep.kind` = '{kind}'", max_results=500
        )
    )


def run_of(client: MlflowClient, number: int) -> Run:
    (run,) = [r for r in runs_of(client) if r.data.tags["trial_id"] == trial_id(number)]
    return run


def result_of(folder: Path, number: int) -> TrialResult:
    trial = read_sweep(folder).trials[trial_id(number)]
    assert isinstance(trial, TrialResult)
    return trial


def differences(client: MlflowClient, folder: Path) -> list[str]:
    """Everything in which MLflow and a sweep's folder do not say the same; empty is what we want."""
    sweep = read_sweep(folder)
    found: dict[str, list[Run]] = {}
    for run in runs_of(client, "trial", sweep.name):
        found.setdefault(run.data.tags.get("trial_id", ""), []).append(run)
    wrong = []
    parents = runs_of(client, "parent", sweep.name)
    if [run.info.status for run in parents] not in (["FINISHED"], ["FAILED"], ["KILLED"]):
        wrong.append(f"parents {[run.info.status for run in parents]}")
    for trial_id_, runs in found.items():
        if len(runs) > 1:
            wrong.append(f"{trial_id_}: {len(runs)} runs")
        if any(run.info.status == "RUNNING" for run in runs):
            wrong.append(f"{trial_id_}: RUNNING")
    for failed in sweep.failed:
        if [run.info.status for run in found.get(failed.id, [])] != ["FAILED"]:
            wrong.append(f"{failed.id}: failed, but not in MLflow")
    for done in sweep.done:
        runs = found.get(done.id, [])
        if [run.info.status for run in runs] != ["FINISHED"]:
            wrong.append(f"{done.id}: done, but {[run.info.status for run in runs]}")
            continue
        shown = runs[0].data.metrics
        wrong += [
            f"{done.id}: {key} is {shown.get(key)}, not {value}"
            for key, value in done.scores.items()
            if key not in shown or abs(shown[key] - value) > 1e-9
        ]
        for key in ("train/loss", "valid/loss"):
            points = client.get_metric_history(runs[0].info.run_id, key)
            values = [(point.step, f"{point.value:.9g}") for point in points]
            if len(set(values)) < len(values):
                wrong.append(f"{done.id}: {key} has the same point twice")
    return wrong
