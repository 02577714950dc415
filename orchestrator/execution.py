"""Ray Tune runs trials: the only file that talks to Ray about them."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from orchestrator.events import OnEvent, TrialDone, TrialFailed, TrialProgressed, TrialStarted
from orchestrator.failure import record_error, record_failure
from orchestrator.resources import TrialResources
from orchestrator.storage import SweepFolder
from orchestrator.trial import TrialWork, run_trial
from search_spaces.identity import spec_from_dict
from search_spaces.spec import MetricsSpec
from trainers.progress import EpochReport

if TYPE_CHECKING:
    from evaluators.score import StreamingScorer

_WORKER_RETRIES = 2
"""How often a trial whose worker died is started again."""

_MEMORY_STEP_GIB = 2.0


@dataclass(frozen=True)
class RayCluster:
    """The Ray that a sweep runs on."""

    cpus: float
    gpus: float


@contextmanager
def ray_cluster(cpus: int | None) -> Iterator[RayCluster]:
    """Ray for as long as a sweep needs it: the one at `RAY_ADDRESS`, else one of our own.

    Args:
        cpus: trials at once on a machine without a GPU; all cores where absent.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Tune looks for its own result files, which we have turned off, and warns of each trial.
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    local = {} if address else {"num_cpus": cpus, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="error", configure_logging=False, **local)
    try:
        found = ray.cluster_resources()
        yield RayCluster(found.get("CPU", 0), found.get("GPU", 0))
    finally:
        ray.shutdown()


def run_trials(
    work: Sequence[TrialWork],
    resources: Mapping[str, TrialResources],
    folder: SweepFolder,
    on_event: OnEvent,
) -> None:
    """Run trials to their results or their failures; returns when none is left.

    A trial's own errors become its `failure.json` and harm no other; a trial whose worker died is
    started again, twice at most.

    Args:
        work: the trials.
        resources: what each takes, by trial id.
        folder: the sweep's.
        on_event: told of everything that happens.
    """
    by_id = {one.id: one for one in work}
    most_memory = max((node["Resources"].get("memory", 0.0) for node in ray.nodes()), default=0.0)

    def place(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        need = resources[config["trial"]]
        bundle = {"CPU": need.cpus}
        if need.gpus:
            bundle["GPU"] = need.gpus
        elif need.memory_gib:
            # A trial that alone asks for more than there is still gets its try, by itself.
            bundle["memory"] = min(_in_steps(need.memory_gib) * 2**30, most_memory)
        return tune.PlacementGroupFactory([bundle])

    with tempfile.TemporaryDirectory(prefix="sweep-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trainable, work=by_id), place),
            param_space={"trial": tune.grid_search(list(by_id))},
            tune_config=tune.TuneConfig(
                reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                callbacks=[_Listener(by_id, folder, on_event)],
                failure_config=tune.FailureConfig(max_failures=_WORKER_RETRIES),
            ),
        )
        tuner.fit()


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
    """
    results: list[Any] = ray.get(list(calls))
    return results


def _in_steps(memory_gib: float) -> float:
    """Rounded up, so that trials of one kind ask for the same and a worker can serve them all."""
    return math.ceil(memory_gib / _MEMORY_STEP_GIB) * _MEMORY_STEP_GIB


def _trainable(config: dict[str, Any], work: Mapping[str, TrialWork]) -> None:
    """One trial in a worker; every end but the worker's own death is reported as a value."""
    from trainers.quiet import quiet_libraries

    quiet_libraries()
    one = work[config["trial"]]
    if SweepFolder(Path(one.folder).parent.parent).result(one.id) is not None:
        tune.report({"finished": True})  # An earlier worker died after its work was done.
        return

    def on_epoch(report: EpochReport) -> None:
        tune.report(
            {
                "epoch": report.epoch,
                "step": report.step,
                "total_steps": report.total_steps,
                "train_loss": report.train_loss,
                "valid_loss": report.valid_loss,
            }
        )

    try:
        run_trial(one, on_epoch, _scorer(spec_from_dict(one.spec).metrics))
    except Exception as error:
        # The trial's boundary: whatever went wrong is recorded under its class and harms no
        # sibling; raising here would make Tune throw the worker away.
        failure = record_error(one, error)
        tune.report({"failed": failure["reason"], "message": failure["message"]})
    else:
        tune.report({"finished": True})


@lru_cache(maxsize=1)
def _scorer(metrics: MetricsSpec) -> StreamingScorer:
    """This worker's scorer: its encoder is loaded once for all trials that the worker runs."""
    from evaluators.score import StreamingScorer

    return StreamingScorer(metrics)


class _Listener(tune.Callback):  # type: ignore[misc]  # Ray ships no types
    """Turns Tune's callbacks into events; results are read from their files, not from Tune."""

    def __init__(
        self, work: Mapping[str, TrialWork], folder: SweepFolder, on_event: OnEvent
    ) -> None:
        self.work = work
        self.folder = folder
        self.on_event = on_event

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles callbacks with the experiment's state; what watches is not part of it.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_event(TrialStarted(trial.config["trial"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_id = trial.config["trial"]
        if "failed" in result:
            self.on_event(TrialFailed(trial_id, result["failed"], result["message"]))
        elif "finished" in result:
            finished = self.folder.result(trial_id)
            if finished is not None:
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

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        work = self.work[trial.config["trial"]]
        if (result := self.folder.result(work.id)) is not None:
            self.on_event(TrialDone(work.id, result))  # The worker died after its work was done.
            return
        message = f"the worker died {_WORKER_RETRIES + 1} times; see Ray's logs for why"
        failure = record_failure(work, "worker_lost", message)
        self.on_event(TrialFailed(work.id, failure["reason"], failure["message"]))
