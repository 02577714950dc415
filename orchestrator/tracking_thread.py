"""MLflow, written beside the sweep: one thread, one writer, and never in the sweep's way.

result.json is the truth and MLflow its view. While the store answers, each event is passed on; when
it does not, events are only noted, the thread tries again ever less often, and once the store
answers, one reconciliation brings all that it missed. What is missing at the end, the next run of
the sweep brings. The sweep waits for the store at its end only, and only while the store answers.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import assert_never

from orchestrator.display import Display
from orchestrator.events import (
    TrialDone,
    TrialEvent,
    TrialFailed,
    TrialProgressed,
    TrialStarted,
    TrialStopped,
    TrialStoppedEarly,
    WorkerDied,
)
from orchestrator.plan import Plan
from orchestrator.storage import SweepFolder
from reports.delivery import Delivery, write_delivery
from reports.results import (
    PendingTrial,
    ReportError,
    SweepResults,
    TrialResult,
    read_sweep,
    read_trial,
)
from reports.tracking import Tracker
from reports.tracking_pulse import GivenUpError, Pulse
from reports.tracking_store import TrackingError, mask_credentials, tracking_store
from reports.write import ReportPaths
from search_spaces.identity import spec_to_dict

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
"""Between two attempts on a store that does not answer; each pause is twice the one before."""
_LAST_PAUSES_S = (0.0, 2.0, 4.0)
"""Before each of the attempts at the sweep's end."""
_END_QUIET_S = 25.0
"""How long a store may be silent at the sweep's end before it is given up."""
_INTERRUPT_QUIET_S = 4.0
"""The same after Ctrl-C."""
_INTERRUPT_LONGEST_S = 20.0
"""How long even a store that answers may take after Ctrl-C."""
_TOLD_AFTER_S = 5.0
"""After so long a person should know what the end is waiting for."""
_GRACE_S = 1.0
"""Time to notice that nobody waits any more."""
_THREAD = "mlflow"


class Interrupted:
    """The sweep ended before its report: what ran then runs no more."""


class _Retry:
    """It is time to try the store again."""


_End = ReportPaths | Interrupted
_Job = TrialEvent | _End | _Retry | None
"""An event to note, the finished report, an early end, another attempt, or the end."""


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
        self.pulse = Pulse()
        self.tracker = Tracker(self.store, plan.space.name, self.pulse)
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self.running: dict[str, list[TrialProgressed]] = {}
        """Trials that run now, and what they measured so far; the thread's own."""
        self.outage: str | None = None
        """Why the store lacks something; None while it lacks nothing."""
        self.pause_s = _FIRST_PAUSE_S
        self.retry_at = 0.0
        self.told: set[str] = set()
        self.ending = threading.Event()
        self.ended = threading.Event()
        self.delivered = False
        self.concluded = False
        # What the store's libraries say of each failed attempt, `_missed` says once.
        for name in ("urllib3.connectionpool", "mlflow.store.db.utils"):
            logging.getLogger(name).addFilter(_not_from_here)
        self.thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)
        self.thread.start()

    def plan_changed(self, plan: Plan) -> None:
        """A later stage's trials are known now."""
        self.plan = plan

    def take(self, event: TrialEvent) -> None:
        """Note an event; returns at once."""
        self.jobs.put(event)

    def finish(self, report: ReportPaths) -> None:
        """Bring MLflow in line with the results and attach the report.

        Waits until it is done, or until the store has been silent for too long.
        """
        self._end(report, _patience_s(), None)

    def interrupt(self) -> None:
        """End the runs that are open, because their trials have ended with the sweep.

        Waits for a store that answers, though not for ever, and only seconds for one that does not.
        """
        self._end(Interrupted(), _INTERRUPT_QUIET_S, _INTERRUPT_LONGEST_S)

    def close(self) -> None:
        """End, at once where the end had begun; may be called twice."""
        if self.ending.is_set():
            # Someone has stopped waiting for the store.
            self._conclude("nobody waited for it any longer")
        else:
            self.interrupt()

    def _end(self, end: _End, quiet_s: float, longest_s: float | None) -> None:
        self.ending.set()
        self.jobs.put(end)
        self.jobs.put(None)
        began = time.monotonic()
        # Not Thread.join: one that Ctrl-C interrupts takes the thread for ended.
        while not self.ended.wait(0.1):
            waited = time.monotonic() - began
            if min(self.pulse.quiet_s(), waited) > quiet_s:
                self._conclude(f"no answer for {quiet_s:.0f} s")
                return
            if longest_s is not None and waited > longest_s:
                self._conclude(f"not all could be written within {longest_s:.0f} s")
                return
            if waited > _TOLD_AFTER_S:
                self._tell_once("waiting", f"waiting for MLflow at {self.store.shown}")
        self._conclude("")

    def _conclude(self, given_up: str) -> None:
        """Stop the thread where it still works, and say what the store lacks."""
        if self.concluded:
            return
        self.concluded = True
        self.pulse.give_up()
        self.ended.wait(_GRACE_S)
        if self.delivered:
            self._record(True, None)
            return
        reason = self.outage or given_up or "the thread ended early"
        self._record(False, reason)
        self.display.say(
            f"note: MLflow at {self.store.shown} may lack {self._lacking()}: {_shortened(reason)}. "
            f"All is kept in {self.folder.path}; the next run of the same command delivers it"
        )

    def _work(self) -> None:
        try:
            self._record(False, "the sweep has not come to its end")
            self._serve()
        except GivenUpError:
            return  # the one who waited has gone on, and says so
        except Exception as error:  # a thread that dies in silence would be waited for
            self.outage = _unexpected(error)
        finally:
            self.ended.set()

    def _serve(self) -> None:
        self._attempt(self._catch_up)
        while (job := self._next_job()) is not None:
            match job:
                case ReportPaths() | Interrupted():
                    self._deliver_last(job)
                case _Retry():
                    if self._attempt(self._catch_up):
                        self._returned()
                case _:
                    self._note(job)
                    # At the end, and after an outage, the reconciliation brings it.
                    if self.outage is None and not self.ending.is_set():
                        self._attempt(partial(self._pass_on, job))

    def _next_job(self) -> _Job:
        if self.outage is None or self.ending.is_set():
            return self.jobs.get()
        try:
            wait_s = self.retry_at - time.monotonic()
            return self.jobs.get(timeout=wait_s) if wait_s > 0 else self.jobs.get_nowait()
        except queue.Empty:
            return _Retry()

    def _attempt(self, write: Callable[[], object]) -> bool:
        self.pulse.begin()
        try:
            write()
        except TrackingError as error:
            self._missed("; ".join(problem.message for problem in error.problems))
        except GivenUpError:
            raise
        except Exception as error:  # whatever else goes wrong: shown, and tried again like the rest
            self._missed(_unexpected(error))
        else:
            self.pulse.answered()
            return True
        return False

    def _missed(self, reason: str) -> None:
        self.pause_s = _FIRST_PAUSE_S if self.outage is None else self.pause_s * 2
        self.retry_at = time.monotonic() + min(self.pause_s, _LONGEST_PAUSE_S)
        first, self.outage = self.outage is None, reason
        if first:
            self._record(False, reason)
        self._tell_once(
            "outage",
            f"note: MLflow at {self.store.shown} cannot be written ({_shortened(reason)}); the sweep "
            "goes on, and results are delivered when it can be again",
        )

    def _returned(self) -> None:
        self.outage = None
        self._record(False, "the sweep has not come to its end")
        self._tell_once("return", "note: MLflow answers again and has what it missed")

    def _catch_up(self) -> None:
        plan = self.plan
        self.tracker.ensure_store()
        self.tracker.start_sweep(
            {"scale": plan.scale.scale, "corpus_hash": plan.corpus.content_hash}
        )
        self.tracker.reconcile(self.folder.path, self.running)
        for progress in self.running.values():
            for event in progress:
                self._pass_on(event)

    def _deliver_last(self, end: _End) -> None:
        self.running.clear()
        for pause_s in _LAST_PAUSES_S if isinstance(end, ReportPaths) else (0.0,):
            if not self.pulse.pause(pause_s):
                return
            if self._attempt(partial(self._reconcile, end)):
                self.delivered = True
                return

    def _note(self, event: TrialEvent) -> None:
        match event:
            case TrialStarted():
                self.running[event.trial_id] = []
            case TrialProgressed():
                self.running.setdefault(event.trial_id, []).append(event)
            case TrialDone() | TrialFailed() | TrialStopped() | TrialStoppedEarly():
                self.running.pop(event.trial_id, None)
            case WorkerDied():
                pass  # The trial starts again, in the same run.
            case _:
                assert_never(event)

    def _pass_on(self, event: TrialEvent) -> None:
        if event.trial_id in self.tracker.delivered:
            return  # a reconciliation was quicker
        match event:
            case TrialStarted():
                trial = self.plan.by_id[event.trial_id]
                stages = self.plan.stages_of(trial.id)
                self.tracker.start_trial(trial.id, trial.name, spec_to_dict(trial.spec), stages)
            case TrialProgressed():
                metrics = {"valid/loss": event.valid_loss}
                if event.train_loss is not None:
                    metrics["train/loss"] = event.train_loss
                self.tracker.log_progress(event.trial_id, metrics, event.step)
            case TrialDone():
                trial = self.plan.by_id[event.trial_id]
                stages = self.plan.stages_of(trial.id)
                planned = PendingTrial(trial.id, trial.name, stages, spec_to_dict(trial.spec))
                result = read_trial(self.folder.path, planned)
                if isinstance(result, TrialResult):
                    self.tracker.finish_trial(result, self.folder.trial(event.trial_id))
            case TrialFailed():
                self.tracker.fail_trial(event.trial_id, event.reason, event.message)
            case TrialStopped():
                self.tracker.stop_trial(event.trial_id)
            case TrialStoppedEarly():
                self.tracker.stop_trial(event.trial_id, early=True)
            case WorkerDied():
                pass
            case _:
                assert_never(event)

    def _reconcile(self, end: _End) -> None:
        self.tracker.reconcile(self.folder.path)
        sweep = self._results()
        if isinstance(end, ReportPaths):
            self.tracker.log_report(end, sweep)
        self.tracker.finish_sweep(sweep)

    def _results(self) -> SweepResults:
        return read_sweep(self.folder.path)

    def _lacking(self) -> str:
        try:
            done = {trial.id for trial in self._results().done}
        except ReportError:
            return "everything"  # whatever made the folder unreadable is the sweep's to report
        return f"{len(done - self.tracker.delivered)} of {len(done)} results and the report"

    def _record(self, delivered: bool, reason: str | None) -> None:
        if self.concluded and threading.current_thread() is self.thread:
            return  # the last word has been said
        try:
            write_delivery(self.folder.path, Delivery(self.store.shown, delivered, reason))
        except OSError as error:
            self._tell_once("record", f"note: tracking.json cannot be written ({error.strerror})")

    def _tell_once(self, what: str, line: str) -> None:
        if what not in self.told:
            self.told.add(what)
            self.display.say(line)


def _patience_s() -> float:
    """How long the end waits for one answer: ours, or longer where the user lets MLflow wait longer."""
    asked = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "")
    return max(_END_QUIET_S, float(asked) + 5 if asked.isdecimal() else 0)


def _unexpected(error: Exception) -> str:
    return mask_credentials(f"unexpected {type(error).__name__}: {error}")


def _shortened(reason: str) -> str:
    """What was asked stands at the start, and what came of it at the end."""
    return reason if len(reason) <= 260 else f"{reason[:120]} … {reason[-135:]}"


def _not_from_here(record: logging.LogRecord) -> bool:
    return record.threadName != _THREAD
