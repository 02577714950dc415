"""A sweep from plan to report: stage by stage, only what is missing, nothing lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.display import Display, Progress
from orchestrator.environment import set_environment
from orchestrator.events import TrialEvent
from orchestrator.floors import Floors
from orchestrator.plan import (
    Plan,
    PlannedStage,
    PlannedTrial,
    Planner,
    metric_versions,
    plan_to_dict,
)
from orchestrator.provenance import environment_text
from orchestrator.resources import TrialResources, estimate_memory_gib, read_shape, trial_resources
from orchestrator.scale import Gpu
from orchestrator.storage import SweepFolder
from orchestrator.tracking_thread import TrackingThread
from orchestrator.trial import TrialWork
from reports.status import sweep_status
from reports.write import write_report
from search_spaces.atomic import write_atomically
from search_spaces.identity import spec_to_dict
from trainers.laptop_models import LAPTOP_MODELS


@dataclass(frozen=True)
class SweepOptions:
    """How to run, not what."""

    cpus: int | None = None
    """Trials at once on a machine without a GPU; all cores where absent."""
    retry_failed: bool = False
    """Run again the trials that failed before; else they stay as they are."""


def run_sweep(
    planner: Planner,
    folder: SweepFolder,
    gpus: tuple[Gpu, ...],
    options: SweepOptions,
    display: Display,
) -> dict[str, Any]:
    """Run what is missing of a sweep and write its report.

    Args:
        planner: makes the plan, and makes it again after each stage, because a stage may wait for
            the winner of an earlier one.
        folder: the sweep's.
        gpus: of this machine.
        options: how to run.
        display: told what happens.

    Returns:
        The sweep's status at the end, as `status` prints it.

    Raises:
        InputError: before any work starts, with everything that is wrong.
        KeyboardInterrupt: after Ray was shut down; what is finished is kept.
    """
    plan = planner.plan(folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.path / "env.txt", environment_text())
    _publish_plan(plan, folder)
    folder.write_json("status.json", sweep_status(folder.path))
    with closing(TrackingThread(folder, plan, display)) as tracking:
        try:
            with _Workers(options) as workers:
                floors = Floors(folder, workers)
                for number in range(len(plan.stages)):
                    # Earlier results decide a later stage's trials: the plan is made anew.
                    plan = planner.plan(folder)
                    _publish_plan(plan, folder)
                    tracking.plan_changed(plan)
                    _run_stage(
                        plan,
                        plan.stages[number],
                        folder,
                        gpus,
                        options,
                        workers,
                        floors,
                        tracking,
                        display,
                    )
                plan = planner.plan(folder)
                _publish_plan(plan, folder)
                floors.write(plan)
        except BaseException:
            # Ray is shut down by now: no trial runs any more, and MLflow and status say so.
            tracking.interrupt()
            folder.write_json("status.json", sweep_status(folder.path))
            raise
        display.say("writing the report")
        tracking.finish(write_report(folder.path))
    status = sweep_status(folder.path)
    folder.write_json("status.json", status)
    return status


class _Workers:
    """Ray, started when the first thing needs it: a sweep that is done takes no seconds."""

    def __init__(self, options: SweepOptions) -> None:
        self.options = options
        self.context: Any = None
        self.cluster: Any = None

    def __enter__(self) -> _Workers:
        return self

    def start(self) -> Any:
        """The running Ray, started on first use."""
        if self.cluster is None:
            set_environment()
            from orchestrator.execution import ray_cluster

            self.context = ray_cluster(self.options.cpus)
            self.cluster = self.context.__enter__()
        return self.cluster

    def begin(self, function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Begin to call a function once per tuple of arguments, beside the trials."""
        self.start()
        from orchestrator.execution import start_on_workers

        return start_on_workers(function, arguments)

    def wait(self, calls: Sequence[Any]) -> list[Any]:
        """The calls' results, in order."""
        if not calls:
            return []
        from orchestrator.execution import wait_for

        return wait_for(calls)

    def __exit__(self, *error: object) -> None:
        if self.context is not None:
            self.context.__exit__(*error)


def _run_stage(
    plan: Plan,
    stage: PlannedStage,
    folder: SweepFolder,
    gpus: tuple[Gpu, ...],
    options: SweepOptions,
    workers: _Workers,
    floors: Floors,
    tracking: TrackingThread,
    display: Display,
) -> None:
    name = stage.stage.name
    if stage.waits:
        source = stage.stage.winner_of
        display.say(
            f"stage {name} cannot run: no trial of stage {source.stage if source else '?'} "
            "succeeded, so there is no winner to build on"
        )
        return
    if stage.winner is not None and stage.stage.winner_of is not None:
        rule = stage.stage.winner_of
        winner = next(t for t in plan.trials if t.id == stage.winner.trial_id)
        display.say(
            f"stage {name} builds on {winner.name} "
            f"({rule.best} {stage.winner.score:.4g}, the {rule.mode} of stage {rule.stage}"
            + (
                f"; {stage.winner.ties} others tie, the first is taken)"
                if stage.winner.ties
                else ")"
            )
        )
    missing = [trial for trial in stage.trials if _is_missing(trial, folder, options)]
    before = len(stage.trials) - len(missing)
    display.say(
        f"stage {name}: {len(stage.trials)} trials, {before} from before, {len(missing)} to run"
    )
    if not missing:
        return
    cluster = workers.start()
    missing_ids = _make_laptop_models(missing, workers, display)
    gpu_memory = min((gpu.memory_gib for gpu in gpus), default=None) if cluster.gpus else None
    work = [_work(trial, folder, missing_ids) for trial in missing]
    resources = {
        one.id: _resources(trial, one, gpu_memory) for trial, one in zip(missing, work, strict=True)
    }
    work = [replace(one, gpu_share=resources[one.id].gpus) for one in work]
    share = min(need.gpus for need in resources.values())
    slots = int(cluster.gpus / share) if share else int(cluster.cpus)
    progress = Progress(
        name, {t.id: t.name for t in missing}, done_before=before, slots=max(slots, 1)
    )
    display.stage(progress)
    floors.begin(plan)

    def on_event(event: TrialEvent) -> None:
        progress.take(event)
        display.changed(event)
        tracking.take(event)

    from orchestrator.execution import run_trials

    run_trials(work, resources, folder, on_event)


def _is_missing(trial: PlannedTrial, folder: SweepFolder, options: SweepOptions) -> bool:
    if folder.result(trial.id) is not None or folder.adopt(trial.id):
        return False
    return options.retry_failed or folder.failure(trial.id) is None


def _make_laptop_models(
    trials: Sequence[PlannedTrial], workers: _Workers, display: Display
) -> dict[str, Path]:
    """Make the laptop models that trials need and that are not there, side by side."""
    from trainers.laptop_models import make_laptop_model

    needed = {
        trial.model.fingerprint: (trial.spec.model, trial.spec.split)
        for trial in trials
        if trial.model.folder is None and trial.spec.model in LAPTOP_MODELS
    }
    if not needed:
        return {}
    names = ", ".join(sorted({name for name, _ in needed.values()}))
    display.say(f"making {names} from the bundled corpus (once; about two minutes)")
    folders = workers.wait(workers.begin(make_laptop_model, list(needed.values())))
    return dict(zip(needed, folders, strict=True))


def _work(trial: PlannedTrial, folder: SweepFolder, made: dict[str, Path]) -> TrialWork:
    source = trial.model.folder or made.get(trial.model.fingerprint)
    spec = spec_to_dict(trial.spec)
    if os.path.exists(spec["corpus"]["corpus"]):
        spec["corpus"]["corpus"] = os.path.abspath(spec["corpus"]["corpus"])
    return TrialWork(
        id=trial.id,
        name=trial.name,
        spec=spec,
        model_folder=None if source is None else str(source),
        model_fingerprint=trial.model.fingerprint,
        metric_versions=metric_versions(trial.spec.metrics),
        folder=str(folder.trial(trial.id).resolve()),
    )


def _resources(
    trial: PlannedTrial, work: TrialWork, gpu_memory_gib: float | None
) -> TrialResources:
    if work.model_folder is None:
        # A model that is yet to be fetched has no known size: it gets a GPU of its own.
        return TrialResources(cpus=1, gpus=0 if gpu_memory_gib is None else 1)
    shape = read_shape(Path(work.model_folder))
    need = estimate_memory_gib(trial.spec, shape, on_gpu=gpu_memory_gib is not None)
    return trial_resources(need, gpu_memory_gib)


def _publish_plan(plan: Plan, folder: SweepFolder) -> None:
    folder.write_json("plan.json", plan_to_dict(plan, folder))
