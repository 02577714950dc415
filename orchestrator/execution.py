"""Ray Tune runs trials: the only file that talks to Ray about them."""

from __future__ import annotations

import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray import tune

from orchestrator.attempts import excuse_attempt, mark_memory_kill, read_attempt
from orchestrator.driver import Driver
from orchestrator.early_stopping import EarlyStopping, Race
from orchestrator.errors import (
    DiskFullError,
    DriverGoneError,
    RayLostError,
    TrialHeldError,
    WorkerLostError,
    is_disk_full,
)
from orchestrator.events import (
    OnEvent,
    TrialDone,
    TrialFailed,
    TrialProgressed,
    TrialStarted,
    TrialStopped,
    TrialStoppedEarly,
    WorkerDied,
)
from orchestrator.failure import record_error
from orchestrator.groups import Group
from orchestrator.resources import TrialResources
from orchestrator.storage import STOPPED_FILE, SweepFolder
from orchestrator.together import outcome, run_together
from orchestrator.trial import TrialWork, run_trial
from search_spaces.identity import spec_from_dict
from search_spaces.spec import MetricsSpec
from trainers.errors import StoppedError
from trainers.progress import EpochReport

if TYPE_CHECKING:
    from evaluators.score import StreamingScorer

_MOST_RESTARTS = 100
"""Workers that a trial may lose in all; far fewer where it gets no further between them."""

_SCRATCH = "sweep-tune-"

_FRUITLESS = 3
"""Tuners that may end, one after the other, without a trial done or failed."""

_MEMORY_STEP_GIB = 2.0


def run_trials(
    groups: Sequence[Group],
    resources: Mapping[str, TrialResources],
    folder: SweepFolder,
    driver: Driver,
    on_event: OnEvent,
    race: Race | None = None,
) -> None:
    """Run trials to their results or their failures; returns when none is left, or all have stopped.

    A trial's own errors become its `failure.json` and harm no other; a trial whose worker died
    continues in another one.

    Args:
        groups: the trials, those together that train together.
        resources: what each group takes, by the id of its first trial.
        folder: the sweep's.
        driver: under whose token the trials run; where it was stopped, so are they.
        on_event: told of everything that happens.
        race: how trials are compared while they train; absent: all run to their end.

    Raises:
        DiskFullError: the trials were stopped because nothing can be saved any more.
        DriverGoneError: the driver's file was removed, so that the trials stopped.
        RayLostError: Ray lost all of its workers again and again.
    """
    waiting = {group[0].id: group for group in groups}
    fruitless = 0
    while waiting and not driver.stopping:
        listener = _Listener(waiting, folder, driver, on_event)
        lost = ""
        try:
            scheduler = None if race is None else EarlyStopping(race, folder)
            _fit(waiting, resources, listener, scheduler)
        except RuntimeError as error:
            # Where Ray's own memory monitor kills a worker, Tune gives up all trials.
            if not isinstance(error.__cause__, ray.exceptions.RayError):
                raise
            lost = str(error.__cause__).strip().splitlines()[0]
            under_way = [one for group in waiting.values() for one in group]
            _tell_attempts(str(error.__cause__), under_way, listener.ended)
        if listener.disk_full:
            raise DiskFullError(listener.disk_full)
        left = {
            name: tuple(one for one in group if one.id not in listener.ended)
            for name, group in waiting.items()
        }
        left = {name: group for name, group in left.items() if group}
        if left and not driver.in_place():
            raise DriverGoneError(f"{driver.file} was removed while trials ran by it")
        fruitless = 0 if listener.ended else fruitless + 1
        if fruitless > _FRUITLESS:
            raise RayLostError(lost or listener.held or "Tune gave up its trials")
        waiting = left
        if (lost or fruitless) and not driver.stopping:
            time.sleep(min(2.0**fruitless, 30))


def _fit(
    groups: Mapping[str, Group],
    resources: Mapping[str, TrialResources],
    listener: _Listener,
    scheduler: EarlyStopping | None,
) -> None:
    """One Tuner over all of them; a group is a trial of Tune's."""
    most_memory = max((node["Resources"].get("memory", 0.0) for node in ray.nodes()), default=0.0)

    def place(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        need = resources[config["group"]]
        bundle = {"CPU": need.cpus}
        if need.gpus:
            bundle["GPU"] = need.gpus
        elif need.memory_gib:
            # A trial that alone asks for more than there is still gets its try, by itself.
            bundle["memory"] = min(_in_steps(need.memory_gib) * 2**30, most_memory)
        return tune.PlacementGroupFactory([bundle])

    _remove_stale_scratch()
    with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{os.getpid()}-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, groups=dict(groups)), place),
            param_space={"group": tune.grid_search(list(groups))},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
                scheduler=scheduler,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                callbacks=[listener],
                # Only a bound: how often a trial may lose its worker is decided by how far it gets.
                failure_config=tune.FailureConfig(max_failures=_MOST_RESTARTS),
            ),
        )
        tuner.fit()


def _remove_stale_scratch() -> None:
    """Remove what drivers that were killed have left of Tune's own files."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        pid = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _tell_attempts(message: str, work: Sequence[TrialWork], ended: set[str]) -> None:
    """Note which trials Ray killed for memory, and that Tune ended the others' workers with them."""
    killed = {int(pid) for pid in re.findall(r"Selected to kill: .*?\bpid=([0-9]+)", message)}
    for one in work:
        found = read_attempt(Path(one.folder))
        if found is None or one.id in ended:
            continue
        if found.pid in killed:
            mark_memory_kill(Path(one.folder))
        else:
            excuse_attempt(Path(one.folder))


def start_on_workers(function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Begin to call a function once per tuple of arguments, beside whatever else Ray runs.

    Args:
        function: a module's own function.
        arguments: of each call.

    Returns:
        What `wait_for` takes.
    """
    remote = ray.remote(num_cpus=0)(function)
    return [remote.remote(*one) for one in arguments]


def wait_for(calls: Sequence[Any]) -> list[Any]:
    """The results of calls that `start_on_workers` began, in their order.

    Args:
        calls: what it returned.

    Raises:
        RayLostError: Ray lost the calls; what a call itself raised is raised as it is.
    """
    try:
        results: list[Any] = ray.get(list(calls))
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise RayLostError(str(error).strip().splitlines()[0]) from error
    return results


def _in_steps(memory_gib: float) -> float:
    """Rounded up, so that trials of one kind ask for the same and a worker can serve them all."""
    return math.ceil(memory_gib / _MEMORY_STEP_GIB) * _MEMORY_STEP_GIB


def _trainable(config: dict[str, Any], groups: Mapping[str, Group]) -> None:
    """The trials of a group in a worker; every end but the worker's own death is reported as a value.

    Raising would make Tune throw the worker away.
    """
    from trainers.quiet import quiet_libraries

    quiet_libraries()
    group = groups[config["group"]]
    scorer = _scorer(spec_from_dict(group[0].spec).metrics)
    if len(group) == 1:
        _run_alone(group[0], scorer)
    else:
        run_together(group, _report_epoch, _report_end, scorer)


def _run_alone(work: TrialWork, scorer: StreamingScorer) -> None:
    early = _Early(Path(work.folder) / STOPPED_FILE)

    def on_epoch(report: EpochReport) -> None:
        _report_epoch(work.id, report)
        early.look()  # The driver has compared the report by the time that it is taken.

    error = outcome(lambda: run_trial(work, on_epoch, scorer, early.is_so))
    if isinstance(error, StoppedError) and early.is_so():
        tune.report({"trial": work.id, "stopped_early": True})
    else:
        _report_end(work, error)


def _report_epoch(trial_id: str, report: EpochReport) -> None:
    tune.report(
        {
            "trial": trial_id,
            "epoch": report.epoch,
            "step": report.step,
            "total_steps": report.total_steps,
            "train_loss": report.train_loss,
            "valid_loss": report.valid_loss,
        }
    )


def _report_end(work: TrialWork, error: Exception | None) -> None:
    """Report how a trial ended; whatever went wrong is recorded under its class first."""
    match error:
        case None:
            end: dict[str, Any] = {"finished": True}
        case StoppedError():
            end = {"stopped": True}
        case TrialHeldError():
            end = {"stopped": True, "held": str(error)}
        case _:
            end = _recorded(work, error)
    tune.report({"trial": work.id, **end})


class _Early:
    """Whether a trial was stopped early, asked at the end of its epochs alone."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found = file.exists()

    def look(self) -> None:
        self.found = self.file.exists()

    def is_so(self) -> bool:
        return self.found


def _recorded(one: TrialWork, error: Exception) -> dict[str, Any]:
    """What to report of an error, after it was recorded."""
    if not is_disk_full(error):
        try:
            failure = record_error(one, error)
            return {"failed": failure["reason"], "message": failure["message"]}
        except OSError as full:
            if not is_disk_full(full):
                raise
    # Not the trial's failure: with room on the disk it goes on from where it was.
    return {"disk_full": str(error)}


@lru_cache(maxsize=1)
def _scorer(metrics: MetricsSpec) -> StreamingScorer:
    """This worker's scorer: its encoder is loaded once for all trials that the worker runs."""
    from evaluators.score import StreamingScorer

    return StreamingScorer(metrics)


class _Listener(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Turns Tune's callbacks into events; results are read from their files, not from Tune."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        folder: SweepFolder,
        driver: Driver,
        on_event: OnEvent,
    ) -> None:
        self.groups = groups
        self.folder = folder
        self.driver = driver
        self.on_event = on_event
        self.ended: set[str] = set()
        """Trials that are done or failed."""
        self.disk_full = ""
        self.held = ""
        """Who held a trial that this sweep could not have."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles callbacks with the experiment's state; what watches is not part of it.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for work in self._left(trial):
            self.on_event(TrialStarted(work.id, len(self._left(trial))))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_id = result["trial"]
        if "failed" in result:
            self.ended.add(trial_id)
            self.on_event(TrialFailed(trial_id, result["failed"], result["message"]))
        elif "disk_full" in result:
            self.disk_full = result["disk_full"]
            self.driver.stop("disk full")
            self.on_event(TrialStopped(trial_id))
        elif "stopped_early" in result:
            self.ended.add(trial_id)
            self.on_event(TrialStoppedEarly(trial_id))
        elif "stopped" in result:
            self.held = result.get("held", "")
            self.on_event(TrialStopped(trial_id))
        elif "finished" in result:
            finished = self.folder.result(trial_id)
            if finished is not None:
                self.ended.add(trial_id)
                self.on_event(TrialDone(trial_id, finished))
        elif "valid_loss" in result:
            self.on_event(
                TrialProgressed(
                    trial_id,
                    result["epoch"],
                    result["step"],
                    result["total_steps"],
                    result["train_loss"],
                    result["valid_loss"],
                )
            )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for work in self._left(trial):
            self.on_event(WorkerDied(work.id))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for work in self._left(trial):
            self.ended.add(work.id)
            if (result := self.folder.result(work.id)) is not None:
                # The worker died after its work was done.
                self.on_event(TrialDone(work.id, result))
                continue
            failure = record_error(work, WorkerLostError(_MOST_RESTARTS + 1, 0))
            self.on_event(TrialFailed(work.id, failure["reason"], failure["message"]))

    def _left(self, trial: Any) -> list[TrialWork]:
        """The trials of a group that have not ended."""
        return [work for work in self.groups[trial.config["group"]] if work.id not in self.ended]
