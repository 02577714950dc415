"""MLflow, written beside the sweep: one thread, one writer, and never in the sweep's way.

result.json is the truth and MLflow its view: what a broken or slow store misses now, the
reconciliation at the end, or of the next run, brings.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from orchestrator.display import Display
from orchestrator.events import TrialEvent
from orchestrator.plan import Plan
from orchestrator.storage import SweepFolder
from reports.write import ReportPaths

_Job = Callable[[], None]


class TrackingThread:
    """Hands events to MLflow in order, in a thread of its own.

    Args:
        folder: the sweep's.
        plan: the sweep's, as known at the start.
        display: told once if the store cannot be reached.
    """

    def __init__(self, folder: SweepFolder, plan: Plan, display: Display) -> None:
        self.folder = folder
        self.plan = plan
        self.display = display
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.broken = ""
        self.tracker: object = None
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.thread.start()

    def plan_changed(self, plan: Plan) -> None:
        """A later stage's trials are known now."""
        self.plan = plan

    def take(self, event: TrialEvent) -> None:
        """Note an event; returns at once."""
        self.jobs.put(lambda: self._write(event))

    def finish(self, report: ReportPaths) -> None:
        """Bring MLflow in line with the results and attach the report; waits until it is done."""
        self.jobs.put(lambda: self._reconcile(report))
        self.close()

    def close(self) -> None:
        """Write what is noted and end; may be called twice."""
        if self.thread.is_alive():
            self.jobs.put(None)
            self.thread.join()
