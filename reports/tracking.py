"""MLflow's view of a sweep: an experiment, a parent run, and exactly one run for each trial.

The results folder is the truth. The driver is the only writer: while a trial runs it passes its
progress on, and `reconcile` mends whatever a killed driver left behind.
"""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric, Run

from corpora.privacy import gate_mark, privacy_of
from reports.json_files import Json
from reports.render_markdown import render_markdown
from reports.results import (
    FailedTrial,
    PendingTrial,
    StoppedTrial,
    SweepResults,
    TrialResult,
    read_sweep,
)
from reports.tables import report_tables
from reports.tracking_compare import contradicts, holds_result, missing_metrics
from reports.tracking_pulse import Pulse
from reports.tracking_records import (
    PRIVACY,
    REPLIES_FILE,
    RESULT_DIGEST,
    TABLES_TAG,
    dataset_inputs,
    loss_metrics,
    milliseconds,
    planned_tags,
    privacy_tags,
    replies_table,
    result_digest,
    result_tags,
    safe_key,
    trial_params,
    update_metrics,
)
from reports.tracking_runs import SweepRuns
from reports.tracking_store import TrackingStore, masked
from reports.trial_files import read_steps, read_updates
from reports.write import ReportPaths

_FAILURE_TAGS = ("failure_reason", "failure_message")
_STOPPED_EARLY = "stopped_early"
"""Tag of a trial's run that ended because the trial fell behind its siblings."""

_END_TAGS = (*_FAILURE_TAGS, _STOPPED_EARLY, RESULT_DIGEST)


@dataclass(frozen=True)
class Reconciliation:
    """What `reconcile` found and did, in trials."""

    logged: int
    """Finished trials whose run was made or completed."""
    unchanged: int
    """Finished trials whose run already held all of the result."""
    failed: int
    """Failed trials, now with a FAILED run."""
    closed: int
    """Runs of trials that neither run nor have ended, now KILLED."""
    deleted: int
    """Second runs of the same trial, deleted."""


class Tracker:
    """Writes one sweep to one tracking store.

    Args:
        store: where.
        sweep: the sweep's name, which becomes the experiment's.
        pulse: told of each request.
    """

    def __init__(self, store: TrackingStore, sweep: str, pulse: Pulse | None = None) -> None:
        self.store = store
        self.sweep = sweep
        self.delivered: set[str] = set()
        """Finished trials whose runs are known to hold all of their results."""
        self._runs = SweepRuns(store, sweep, pulse)
        self._run_ids: dict[str, str] = {}
        self._points: dict[str, dict[str, dict[int, float]]] = {}
        self._complete = False
        """Whether `_run_ids` has every trial's run that there is: nobody else makes any."""

    @masked
    def ensure_store(self) -> str:
        """Make the database and the experiment where they are missing; returns the experiment's id.

        Runs before anything else writes, so that no two processes make the same database.
        """
        return self._runs.experiment()

    @masked
    def start_sweep(self, tags: Mapping[str, str] | None = None) -> str:
        """The parent run's id: the one that is there, else a new one; its status becomes RUNNING.

        Args:
            tags: what to record about the sweep (`scale`, `corpus_hash`).
        """
        parent = self._runs.parent()
        self._runs.client.update_run(parent, status="RUNNING")
        self._runs.log(parent, tags=tags or {})
        return parent

    @masked
    def start_trial(self, trial_id: str, name: str, spec: Json, stages: Iterable[str]) -> str:
        """The trial's run, found by its identity or made; its status becomes RUNNING.

        Args:
            trial_id: the trial's identity.
            name: as shown in lists of runs.
            spec: the nested specification.
            stages: every stage that the trial stands in.
        """
        run, is_new = self._run_of(trial_id, name, spec, stages, started_ms=None)
        run_id = str(run.info.run_id)
        if not is_new:
            self._runs.client.update_run(run_id, status="RUNNING")
            self._take_away(run, _END_TAGS)
        return run_id

    @masked
    def log_progress(self, trial_id: str, metrics: Mapping[str, float], step: int) -> None:
        """Pass on what a running trial measured, in one request.

        Values that are not finite are left out, and so is what the run has at this step already: a
        trial that is continued measures its last epoch again.

        Args:
            trial_id: a trial that `start_trial` has seen.
            metrics: values by name, such as `train/loss`.
            step: optimiser step.
        """
        run_id = self._find(trial_id)
        if run_id is None:
            return
        finite = {safe_key(key): float(v) for key, v in metrics.items() if math.isfinite(v)}
        logged = {key: self._logged(run_id, key) for key in finite}
        now = int(time.time() * 1000)
        batch = [
            Metric(key, value, now, step)
            for key, value in finite.items()
            if logged[key].get(step) != value
        ]
        if batch:
            self._runs.client.log_batch(run_id, metrics=batch, synchronous=True)
            for metric in batch:
                logged[metric.key][step] = metric.value

    @masked
    def finish_trial(self, result: TrialResult, trial_folder: Path) -> str:
        """Put all of a result into the trial's run and end it as FINISHED; safe to repeat.

        Args:
            result: as `read_sweep` has it.
            trial_folder: `trials/<id>`, for losses, rewards and replies.
        """
        digest = result_digest(trial_folder)
        started = milliseconds(result.provenance, "started_at")
        run, _ = self._run_of(result.id, result.name, result.spec, result.stages, started)
        if self._is_complete([run], result, trial_folder):
            self.delivered.add(result.id)
            return str(run.info.run_id)
        began = started or run.info.start_time
        curves = loss_metrics(read_steps(trial_folder), began)
        curves += update_metrics(read_updates(trial_folder), began)
        histories = self._histories(run, curves)
        if contradicts(run, histories, result, curves, digest):
            # Parameters and metrics cannot be taken back: what says something else has to go.
            self._delete(result.id, str(run.info.run_id))
            run, _ = self._run_of(result.id, result.name, result.spec, result.stages, started)
            histories = {}
        run_id = str(run.info.run_id)
        now = int(time.time() * 1000)
        ended = milliseconds(result.provenance, "finished_at") or now
        metrics = missing_metrics(run, histories, result, curves, ended, now)
        self._runs.log(run_id, metrics, tags=result_tags(result))
        corpus = str((result.spec.get("corpus") or {}).get("corpus") or "sample")
        self._runs.client.log_inputs(run_id, datasets=dataset_inputs(result, corpus))
        privacy = privacy_of(result.spec)
        replies = replies_table(trial_folder, privacy)
        tags = privacy_tags(privacy, replies) | {RESULT_DIGEST: digest}
        if replies.text:
            self._runs.client.log_text(run_id, replies.text, REPLIES_FILE)
            tags[TABLES_TAG] = json.dumps([{"path": REPLIES_FILE, "type": "table"}])
        self._take_away(run, (*_FAILURE_TAGS, _STOPPED_EARLY))
        self._runs.client.set_terminated(run_id, "FINISHED", end_time=ended)
        self._runs.log(run_id, tags=tags)
        self.delivered.add(result.id)
        return run_id

    @masked
    def fail_trial(self, trial_id: str, reason: str, message: str = "") -> None:
        """End the trial's run as FAILED, with the reason as a tag.

        Args:
            trial_id: a trial that has a run.
            reason: `diverged`, `out_of_memory`, `worker_lost` or `error`.
            message: what was said.
        """
        run_id = self._find(trial_id)
        if run_id is not None:
            self._runs.log(run_id, tags={"failure_reason": reason, "failure_message": message})
            self._runs.client.set_terminated(run_id, "FAILED")
            self._take_away(self._runs.client.get_run(run_id), (RESULT_DIGEST,))

    @masked
    def stop_trial(self, trial_id: str, *, early: bool = False) -> None:
        """End the trial's run as KILLED: it neither runs nor has ended; `start_trial` continues it.

        Args:
            trial_id: a trial that has a run.
            early: whether it was stopped because it fell behind its siblings, which a tag then says.
        """
        run_id = self._find(trial_id)
        if run_id is not None:
            self._close(run_id)
            if early:
                self._runs.client.set_tag(run_id, _STOPPED_EARLY, "true")

    @masked
    def reconcile(self, sweep_folder: Path, running: Collection[str] = ()) -> Reconciliation:
        """Make the store say what the results folder says; changes nothing the second time.

        Afterwards every finished trial has exactly one run, FINISHED, with its result; every failed
        trial one that FAILED; every one stopped early one that is KILLED and tagged; every
        running trial one that is RUNNING; and every other run there is
        of a planned trial is KILLED.

        Args:
            sweep_folder: `runs/<sweep>`.
            running: trials that run now.

        Raises:
            ReportError: there is no readable plan.
            TrackingError: the store cannot be reached.
        """
        sweep = read_sweep(sweep_folder)
        self.delivered.clear()
        self._points.clear()
        self._runs.forget()
        runs = self._runs.by_trial()
        deleted = sum(self._runs.keep_one(found) for found in runs.values())
        self._run_ids = {trial_id: found[0].info.run_id for trial_id, found in runs.items()}
        self._complete = True
        logged = unchanged = closed = 0
        for trial in sweep.done:
            folder = sweep_folder / "trials" / trial.id
            if self._is_complete(runs.get(trial.id), trial, folder):
                self.delivered.add(trial.id)
                unchanged += 1
            else:
                self.finish_trial(trial, folder)
                logged += 1
        # What a trial that runs again left as its failure is out of date.
        failed = [trial for trial in sweep.failed if trial.id not in running]
        for failure in failed:
            self._reconcile_failure(runs.get(failure.id), failure)
        stopped = [trial for trial in sweep.stopped_early if trial.id not in running]
        for early in stopped:
            self._reconcile_early_stop(runs.get(early.id), early)
        settled = {trial.id for trial in sweep.done}
        settled |= {trial.id for trial in failed} | {trial.id for trial in stopped}
        for trial_id, found in runs.items():
            run, planned = found[0], sweep.trials.get(trial_id)
            if trial_id in settled or trial_id in running:
                continue
            if run.info.status in ("RUNNING", "SCHEDULED") or (
                # Its result or its failure is gone: the run must not say that it is there.
                isinstance(planned, PendingTrial) and run.info.status != "KILLED"
            ):
                self._close(str(run.info.run_id))
                closed += 1
        for planned in sweep.trials.values():
            if planned.id in running and planned.id not in settled:
                self.start_trial(planned.id, planned.name, planned.spec, planned.stages)
        return Reconciliation(logged, unchanged, len(failed), closed, deleted)

    @masked
    def log_report(self, paths: ReportPaths, sweep: SweepResults) -> None:
        """Put the report, its tables and a summary at the parent run.

        Args:
            paths: the report's files.
            sweep: what it was made of.
        """
        parent = self._runs.parent()
        for file in paths.files:
            folder = "report/figures" if file in paths.figures else "report"
            self._runs.client.log_artifact(parent, str(file), folder)
        counts = {
            "trials/total": len(sweep.trials),
            "trials/done": len(sweep.done),
            "trials/failed": len(sweep.failed),
            "trials/pending": len(sweep.pending),
            "trials/stopped_early": len(sweep.stopped_early),
        }
        known = self._runs.client.get_run(parent).data.metrics
        now = int(time.time() * 1000)
        changed = [Metric(k, float(v), now, 0) for k, v in counts.items() if known.get(k) != v]
        note = "\n".join(render_markdown(table) for table in report_tables(sweep))
        tags = {
            "scale": sweep.scale,
            "corpus": sweep.corpus.source,
            "corpus_hash": sweep.corpus.content_hash,
            "mlflow.note.content": note,
        }
        self._runs.log(parent, metrics=changed, tags=tags)

    @masked
    def finish_sweep(self, sweep: SweepResults) -> None:
        """End the parent run: FINISHED where all trials are done, FAILED where one failed, else KILLED.

        Args:
            sweep: the results.
        """
        status = "FAILED" if sweep.failed else "KILLED" if sweep.pending else "FINISHED"
        self._runs.client.set_terminated(self._runs.parent(), status)

    def _find(self, trial_id: str) -> str | None:
        """The id of a trial's run, remembered from the first time it was asked for."""
        if trial_id not in self._run_ids:
            run = None if self._complete else self._runs.of_trial(trial_id)
            if run is None:
                return None
            self._run_ids[trial_id] = str(run.info.run_id)
        return self._run_ids[trial_id]

    def _run_of(
        self, trial_id: str, name: str, spec: Json, stages: Iterable[str], started_ms: int | None
    ) -> tuple[Run, bool]:
        """The trial's run under the parent, with its parameters, and whether it was made now."""
        parent = self._runs.parent()
        tags = {**planned_tags(self.sweep, trial_id, stages, spec), "mlflow.parentRunId": parent}
        params = trial_params(spec)
        run_id = self._find(trial_id)
        if run_id is not None:
            run = self._runs.client.get_run(run_id)
            if all(run.data.params.get(key, value) == value for key, value in params.items()):
                missing = {k: v for k, v in params.items() if k not in run.data.params}
                changed = {k: v for k, v in tags.items() if run.data.tags.get(k) != v}
                self._runs.log(run_id, params=missing, tags=changed)
                return run, False
            # A parameter cannot be changed once it is logged.
            self._delete(trial_id, run_id)
        experiment = self._runs.experiment()
        run = self._runs.client.create_run(
            experiment, start_time=started_ms, tags=tags, run_name=name
        )
        run_id = self._run_ids[trial_id] = str(run.info.run_id)
        self._points[run_id] = defaultdict(dict)
        self._runs.log(run_id, params=params)
        return run, True

    def _delete(self, trial_id: str, run_id: str) -> None:
        self._runs.client.delete_run(run_id)
        self._run_ids.pop(trial_id, None)

    def _histories(self, run: Run, curves: Iterable[Metric]) -> dict[str, list[Metric]]:
        """What a run has logged so far of the trial's curves."""
        return {
            key: self._runs.client.get_metric_history(run.info.run_id, key)
            for key in sorted({metric.key for metric in curves} & run.data.metrics.keys())
        }

    def _logged(self, run_id: str, key: str) -> dict[int, float]:
        """What a run has logged under a key, by step; the store is asked once."""
        points = self._points.setdefault(run_id, {})
        if key not in points:
            history = self._runs.client.get_metric_history(run_id, key)
            points[key] = {metric.step: metric.value for metric in history}
        return points[key]

    def _is_complete(self, runs: Sequence[Run] | None, trial: TrialResult, folder: Path) -> bool:
        """Whether a trial's run already says all that its result says."""
        if not runs:
            return False
        run = runs[0]
        return bool(
            run.info.status == "FINISHED"
            and run.data.tags.get(RESULT_DIGEST) == result_digest(folder)
            and run.data.tags.get(PRIVACY) == gate_mark(privacy_of(trial.spec))
            and run.data.tags.get("stage") == ",".join(trial.stages)
            and run.data.tags.get("mlflow.parentRunId") == self._runs.parent()
            and holds_result(run, trial)
        )

    def _reconcile_failure(self, runs: Sequence[Run] | None, trial: FailedTrial) -> None:
        """Make a failed trial's run, where it is missing, and end it as FAILED, where it is not."""
        tags = runs[0].data.tags if runs else {}
        if (
            not runs
            or runs[0].info.status != "FAILED"
            or RESULT_DIGEST in tags
            or tags.get("failure_reason") != trial.reason
            or tags.get("stage") != ",".join(trial.stages)
            or tags.get("mlflow.parentRunId") != self._runs.parent()
        ):
            self._run_of(trial.id, trial.name, trial.spec, trial.stages, None)
            self.fail_trial(trial.id, trial.reason, trial.message)

    def _reconcile_early_stop(self, runs: Sequence[Run] | None, trial: StoppedTrial) -> None:
        """Make the run of a trial that was stopped early say so."""
        run = runs[0] if runs else None
        if (
            run is None
            or run.info.status != "KILLED"
            or _STOPPED_EARLY not in run.data.tags
            or run.data.tags.get("stage") != ",".join(trial.stages)
            or run.data.tags.get("mlflow.parentRunId") != self._runs.parent()
        ):
            self._run_of(trial.id, trial.name, trial.spec, trial.stages, None)
            self.stop_trial(trial.id, early=True)

    def _close(self, run_id: str) -> None:
        """End as KILLED the run of a trial that neither runs nor has ended."""
        self._runs.client.set_terminated(run_id, "KILLED")
        self._take_away(self._runs.client.get_run(run_id), _END_TAGS)

    def _take_away(self, run: Run, keys: Iterable[str]) -> None:
        """Remove tags by which an earlier attempt told its end."""
        for key in keys:
            if key in run.data.tags:
                self._runs.client.delete_tag(run.info.run_id, key)
