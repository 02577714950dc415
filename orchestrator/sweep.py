"""A sweep from plan to report: stage by stage, only what is missing, nothing lost."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.display import Display, Progress
from orchestrator.driver import Driver, drive
from orchestrator.errors import DiskFullError, RayLostError, disk_full_message, is_disk_full
from orchestrator.events import TrialEvent, TrialFailed
from orchestrator.floors import Floors
from orchestrator.groups import MOST_MEMBERS, Group, group_trials
from orchestrator.interrupts import Interrupts, interrupts
from orchestrator.plan import (
    Plan,
    PlannedStage,
    PlannedTrial,
    Planner,
    metric_versions,
)
from orchestrator.plan_file import plan_lines
from orchestrator.provenance import environment_text
from orchestrator.resources import (
    TrialResources,
    estimate_disk_gib,
    estimate_memory_gib,
    read_shape,
    trial_resources,
)
from orchestrator.scale import Gpu
from orchestrator.storage import STOPPED_FILE, SweepFolder
from orchestrator.tracking_thread import TrackingThread
from orchestrator.trial import TrialWork
from orchestrator.workers import Workers
from reports.status import sweep_status
from reports.trial_files import read_steps
from reports.write import write_report
from search_spaces.atomic import write_atomically
from search_spaces.early_stop import can_be_stopped
from search_spaces.identity import spec_from_dict, spec_to_dict
from search_spaces.secrets import hide_secrets
from search_spaces.space import Stage
from trainers.checkpoints import CheckpointSettings
from trainers.laptop_models import LAPTOP_MODELS
from trainers.storage import cache_folder

if TYPE_CHECKING:
    from orchestrator.early_stopping import Race
    from orchestrator.ray_process import RayCluster

_MOST_LOSSES = 3
"""Times that Ray may die, one after the other, without a trial finished between them."""


@dataclass(frozen=True)
class SweepOptions:
    """How to run, not what."""

    cpus: int | None = None
    """Trials at once on a machine without a GPU; all cores where absent."""
    retry_failed: bool = False
    """Run again the trials that failed before; else they stay as they are."""
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    """How often a trial in training saves where it is."""
    fuse: bool = True
    """Whether trials that share a frozen base train together."""


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
        SearchSpaceError: another process drives this sweep.
        KeyboardInterrupt: after trials stopped and Ray was shut down; what is finished is kept.
        DiskFullError: trials had to stop because nothing can be saved.
        DriverGoneError: the file that names this process as the sweep's driver was removed.
        RayLostError: Ray died again and again.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with drive(folder.path, planner.command) as driver, interrupts() as answer:
        return _Sweep(planner, folder, gpus, options, display, driver, answer).run()


@dataclass
class _Sweep:
    """What the parts of one run of a sweep share."""

    planner: Planner
    folder: SweepFolder
    gpus: tuple[Gpu, ...]
    options: SweepOptions
    display: Display
    driver: Driver
    answer: Interrupts
    disk_gib: float = 0.0
    """What the trials of the stage write at most."""
    failed_now: set[str] = field(default_factory=set)
    """Trials that failed in this run: `--retry-failed` does not mean them."""

    def run(self) -> dict[str, Any]:
        folder = self.folder
        plan = self.planner.plan(folder)
        write_atomically(folder.path / "env.txt", environment_text())
        self.publish(plan)
        folder.write_json("status.json", sweep_status(folder.path))
        with closing(TrackingThread(folder, plan, self.display)) as tracking:
            try:
                self.run_stages(plan, tracking)
                self.display.say("writing the report")
                tracking.finish(write_report(folder.path))
            except BaseException as ended:
                with self.answer.ignored():
                    # Ray is shut down by now: no trial runs any more, and MLflow and status say so.
                    tracking.interrupt()
                    self.write_last_status()
                if is_disk_full(ended):
                    elsewhere = [Path(tempfile.gettempdir()), cache_folder()]
                    others = [place for place in elsewhere if place.is_dir()]
                    message = disk_full_message(folder.path, others, self.disk_gib)
                    raise DiskFullError(message) from ended
                raise
        status = sweep_status(folder.path)
        folder.write_json("status.json", status)
        return status

    def write_last_status(self) -> None:
        """Write `status.json`, if there is room for it: `status` computes it anew in any case."""
        try:
            self.folder.write_json("status.json", sweep_status(self.folder.path))
        except OSError as error:
            if not is_disk_full(error):
                raise
            self.display.say(f"note: status.json could not be written: {error}")

    def run_stages(self, plan: Plan, tracking: TrackingThread) -> None:
        """Run every stage; where Ray itself dies, start it again and run what is missing."""
        last_word = hide_secrets(
            "the sweep ended without a word: its process or its Ray was killed; what is finished is "
            f"kept; to continue: {self.planner.command}"
        )
        losses, done = 0, -1
        while True:
            try:
                with Workers(self.options.cpus, self.answer, last_word) as workers:
                    floors = Floors(self.folder, workers)
                    for number in range(len(plan.stages)):
                        # Earlier results decide a later stage's trials: the plan is made anew.
                        plan = self.planner.plan(self.folder)
                        self.publish(plan)
                        tracking.plan_changed(plan)
                        self.run_stage(plan, plan.stages[number], workers, floors, tracking)
                    plan = self.planner.plan(self.folder)
                    self.publish(plan)
                    floors.write(plan)
                return
            except RayLostError as error:
                if self.driver.stopping:
                    # Whatever asked the trials to stop ended Ray, too.
                    raise KeyboardInterrupt from None
                ended = sum(self.folder.result(trial.id) is not None for trial in plan.trials)
                losses, done = (losses + 1, done) if ended == done else (1, ended)
                if losses > _MOST_LOSSES:
                    raise
                pause = 2.0 ** (losses - 1)
                self.display.say(f"{error}; what is finished is kept, going on in {pause:.0f} s")
                time.sleep(pause)
                # Workers that outlived their Ray stop at this, should there be any.
                self.driver.begin()

    def run_stage(
        self,
        plan: Plan,
        stage: PlannedStage,
        workers: Workers,
        floors: Floors,
        tracking: TrackingThread,
    ) -> None:
        """Run what is missing of a stage."""
        name = stage.stage.name
        if stage.waits:
            source = stage.stage.winner_of
            self.display.say(
                f"stage {name} cannot run: no trial of stage {source.stage if source else '?'} "
                "succeeded, so there is no winner to build on"
            )
            return
        self.say_winner(plan, stage)
        missing = [trial for trial in stage.trials if self.is_missing(trial, stage.stage)]
        before = len(stage.trials) - len(missing)
        self.display.say(
            f"stage {name}: {len(stage.trials)} trials, {before} from before, {len(missing)} to run"
        )
        if not missing:
            return
        cluster = workers.start()
        made = _make_laptop_models(missing, workers, self.display)
        gpu_memory = (
            min((gpu.memory_gib for gpu in self.gpus), default=None) if cluster.gpus else None
        )
        need = partial(_resources, gpu_memory_gib=gpu_memory, has_gpus=bool(cluster.gpus))
        work = [self.work_of(trial, made) for trial in missing]
        share = min(need((one,)).gpus for one in work)
        slots = int(cluster.gpus / share) if share else int(cluster.cpus)
        groups = self.group(stage, work, cluster, gpu_memory)
        resources = {group[0].id: need(group) for group in groups}
        groups = [
            tuple(replace(one, gpu_share=resources[group[0].id].gpus) for one in group)
            for group in groups
        ]
        self.check_disk(work, missing, slots)
        progress = Progress(
            name, {t.id: t.name for t in missing}, done_before=before, slots=max(slots, 1)
        )
        self.display.stage(progress)
        floors.begin(plan)

        def on_event(event: TrialEvent) -> None:
            if isinstance(event, TrialFailed):
                self.failed_now.add(event.trial_id)
            progress.take(event)
            self.display.changed(event)
            tracking.take(event)

        from orchestrator.execution import run_trials

        for one in work:
            (self.folder.trial(one.id) / STOPPED_FILE).unlink(missing_ok=True)
        with self.answer.asking(self.ask_to_stop):
            race = self.race_of(stage)
            run_trials(groups, resources, self.folder, self.driver, on_event, race)
        if self.driver.stopping:
            raise KeyboardInterrupt

    def group(
        self,
        stage: PlannedStage,
        work: Sequence[TrialWork],
        cluster: RayCluster,
        gpu_memory_gib: float | None,
    ) -> list[Group]:
        """The trials, those together that train together; says which.

        Where trials are stopped early, each trains alone: it ends at an epoch of its own.
        """
        slots = max(int(cluster.gpus or cluster.cpus), 1)
        room = cluster.memory_gib / slots if gpu_memory_gib is None else gpu_memory_gib

        def fits(group: Group) -> bool:
            return (needed := _memory_gib(group, cluster.gpus > 0)) is not None and needed <= room

        alone = not self.options.fuse or stage.stage.early_stop is not None
        most_members = 1 if alone else MOST_MEMBERS
        groups = group_trials(work, slots, fits, most_members)
        together = [group for group in groups if len(group) > 1]
        if together:
            self.display.say(
                f"{sum(map(len, together))} trials train together, in {len(together)} groups"
            )
        return groups

    def race_of(self, stage: PlannedStage) -> Race | None:
        """How the stage's trials are compared while they train; None where all run to their end."""
        from orchestrator.early_stopping import Race

        rule = stage.stage.early_stop
        if rule is None:
            return None
        compared = [trial for trial in stage.trials if can_be_stopped(trial.spec, rule)]
        if not compared:
            return None
        steps = {trial.id: read_steps(self.folder.trial(trial.id)) for trial in compared}
        return Race(
            rule,
            {trial.id: spec_to_dict(trial.spec) for trial in compared},
            max(trial.spec.training.epochs for trial in compared),
            {
                trial: [step.valid_loss for step in known if step.valid_loss is not None]
                for trial, known in steps.items()
                if known
            },
        )

    def check_disk(
        self, work: Sequence[TrialWork], trials: Sequence[PlannedTrial], at_once: int
    ) -> None:
        """Say now what would otherwise be found out in hours."""
        needs = [
            estimate_disk_gib(trial.spec, read_shape(Path(one.model_folder)))
            for one, trial in zip(work, trials, strict=True)
            if one.model_folder is not None
        ]
        besides = sorted((passing for _, passing in needs), reverse=True)[:at_once]
        self.disk_gib = sum(kept for kept, _ in needs) + sum(besides)
        free = shutil.disk_usage(self.folder.path).free / 2**30
        if self.disk_gib > free:
            self.display.say(
                f"note: the trials to run write up to {self.disk_gib:.1f} GiB, and {free:.1f} GiB is "
                f"free at {self.folder.path}; the sweep stops where that is not enough, and can go on"
            )

    def ask_to_stop(self) -> None:
        """Let trials stop where they can be continued; called by the first signal."""
        self.driver.stop("interrupted")
        # A thread of its own, because the signal may have come while the display was at work.
        line = "stopping: running trials save where they are; once more (Ctrl-C) stops at once"
        threading.Thread(target=self.display.say, args=(line,), daemon=True).start()

    def say_winner(self, plan: Plan, stage: PlannedStage) -> None:
        """Say which trial a stage takes its settings from."""
        if stage.winner is None or stage.stage.winner_of is None:
            return
        rule = stage.stage.winner_of
        winner = plan.by_id[stage.winner.trial_id]
        ties = stage.winner.ties
        self.display.say(
            f"stage {stage.stage.name} builds on {winner.name} "
            f"({rule.best} {stage.winner.score:.4g}, the {rule.mode} of stage {rule.stage}"
            + (f"; {ties} others tie, the first is taken)" if ties else ")")
        )

    def is_missing(self, trial: PlannedTrial, stage: Stage) -> bool:
        """Whether a trial is to be run."""
        if self.folder.result(trial.id) is not None or self.folder.adopt(trial.id):
            return False
        if stage.early_stop is not None and self.folder.is_stopped_early(trial.id):
            return False
        if self.folder.failure(trial.id) is None:
            return True
        return self.options.retry_failed and trial.id not in self.failed_now

    def work_of(self, trial: PlannedTrial, made: dict[str, Path]) -> TrialWork:
        """What a worker is told of a trial."""
        source = trial.model.folder or made.get(trial.model.fingerprint)
        spec = spec_to_dict(trial.spec)
        for part, name in (
            ("corpus", "corpus"),
            ("method", "qa_data"),
            ("method", "preference_data"),
        ):
            if os.path.exists(path := os.path.expanduser(spec[part].get(name, ""))):
                spec[part][name] = os.path.abspath(path)
        return TrialWork(
            id=trial.id,
            name=trial.name,
            spec=spec,
            model_folder=None if source is None else str(source),
            model_fingerprint=trial.model.fingerprint,
            corpus_hash=self.planner.corpus(trial.spec.corpus).content_hash,
            metric_versions=metric_versions(trial.spec),
            inputs=trial.inputs,
            folder=str(self.folder.trial(trial.id).resolve()),
            checkpoints=self.options.checkpoints,
            driver_file=str(self.driver.file.resolve()),
            token=self.driver.token,
        )

    def publish(self, plan: Plan) -> None:
        """Write down what is planned, and what is done of it."""
        write_atomically(self.folder.path / "plan.json", plan_lines(plan, self.folder))


def _make_laptop_models(
    trials: Sequence[PlannedTrial], workers: Workers, display: Display
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


def _memory_gib(group: Sequence[TrialWork], on_gpu: bool) -> float | None:
    """What trials need that train together; None where their model is yet to be fetched."""
    folder = group[0].model_folder
    if folder is None:
        return None
    specs = [spec_from_dict(one.spec) for one in group]
    return estimate_memory_gib(specs, read_shape(Path(folder)), on_gpu)


def _resources(
    group: Sequence[TrialWork], gpu_memory_gib: float | None, has_gpus: bool
) -> TrialResources:
    need = _memory_gib(group, on_gpu=gpu_memory_gib is not None)
    if has_gpus and (need is None or gpu_memory_gib is None):
        # A model that is yet to be fetched has no known size, and a GPU of another machine neither:
        # the trial gets one of its own.
        return TrialResources(cpus=1, gpus=1)
    if need is None:
        return TrialResources(cpus=1, gpus=0)
    return trial_resources(need, gpu_memory_gib)
