"""MLflow, written beside the sweep: one thread, one writer, and never in the sweep's way.

result.json is the truth and MLflow its view: what a broken or slow store misses now, the
reconciliation at the end, or of the next run, brings.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import partial

from orchestrator.display import Display
from orchestrator.events import TrialDone, TrialEvent, TrialFailed, TrialProgressed, TrialStarted
from orchestrator.plan import Plan
from orchestrator.storage import SweepFolder
from reports.results import TrialResult, read_sweep
from reports.tracking import Tracker
from reports.tracking_store import TrackingError, tracking_store
from reports.write import ReportPaths
from search_spaces.identity import spec_to_dict


class Interrupted:
    """The sweep ended before its report: what ran then runs no more."""


_Job = TrialEvent | ReportPaths | Interrupted | None
"""An event to note, the finished report, an early end, or the end."""


class TrackingThread:
    """Hands events to MLflow in order, in a thread of its own.

    Args:
        folder: the sweep's.
        plan: the sweep's, as known at the start.
        display: told if the store cannot be reached.
    """

    def __init__(self, folder: SweepFolder, plan: Plan, display: Display) -> None:
        self.folder = folder
        self.plan = plan
        self.display = display
        self.store = tracking_store(folder.path.parent)
        self.tracker = Tracker(self.store, plan.space.name)
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.reachable = True
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.thread.start()

    def plan_changed(self, plan: Plan) -> None:
        """A later stage's trials are known now."""
        self.plan = plan

    def take(self, event: TrialEvent) -> None:
        """Note an event; returns at once."""
        self.jobs.put(event)

    def finish(self, report: ReportPaths) -> None:
        """Bring MLflow in line with the results and attach the report; waits until it is done."""
        self.jobs.put(report)
        self.close()

    def interrupt(self) -> None:
        """End the runs that are open, because their trials have ended with the sweep."""
        self.jobs.put(Interrupted())
        self.close()

    def close(self) -> None:
        """Write what is noted and end; may be called twice."""
        if self.thread.is_alive():
            self.jobs.put(None)
            self.thread.join()

    def _work(self) -> None:
        self._try(self._begin)
        while (job := self.jobs.get()) is not None:
            if isinstance(job, ReportPaths | Interrupted):
                # Also after an earlier failure: the store may have come back.
                self._try(partial(self._reconcile, job))
            elif self.reachable:
                self._try(partial(self._note, job))

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except TrackingError as error:
            if self.reachable:
                self.display.say(
                    f"note: MLflow cannot be written ({error}); results are kept and will be "
                    "delivered by the next run of this command"
                )
            self.reachable = False

    def _begin(self) -> None:
        self.tracker.ensure_store()
        plan = self.plan
        self.tracker.start_sweep(
            {"scale": plan.scale.scale, "corpus_hash": plan.corpus.content_hash}
        )

    def _note(self, event: TrialEvent) -> None:
        match event:
            case TrialStarted():
                trial = next(t for t in self.plan.trials if t.id == event.trial_id)
                stages = self.plan.stages_of(trial.id)
                self.tracker.start_trial(trial.id, trial.name, spec_to_dict(trial.spec), stages)
            case TrialProgressed():
                metrics = {"valid/loss": event.valid_loss}
                if event.train_loss is not None:
                    metrics["train/loss"] = event.train_loss
                self.tracker.log_progress(event.trial_id, metrics, event.step)
            case TrialDone():
                result = read_sweep(self.folder.path).trials.get(event.trial_id)
                if isinstance(result, TrialResult):
                    self.tracker.finish_trial(result, self.folder.trial(event.trial_id))
            case TrialFailed():
                self.tracker.fail_trial(event.trial_id, event.reason, event.message)

    def _reconcile(self, end: ReportPaths | Interrupted) -> None:
        self.tracker.reconcile(self.folder.path)
        sweep = read_sweep(self.folder.path)
        if isinstance(end, ReportPaths):
            self.tracker.log_report(end, sweep)
        self.tracker.finish_sweep(sweep)
