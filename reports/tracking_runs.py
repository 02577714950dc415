"""The runs of one sweep's experiment: finding them, and writing to them in few requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from reports.tracking_pulse import Pulse
from reports.tracking_records import LONGEST_TAG, RESULT_DIGEST, TRIAL_ID, safe_key, shortened
from reports.tracking_store import TrackingStore, database_file, ensure_experiment, open_client

_METRICS_A_BATCH = 1000
_PAIRS_A_BATCH = 100


class SweepRuns:
    """An experiment's runs, by what they are rather than by their run ids.

    Args:
        store: where.
        sweep: the sweep's name, which is the experiment's.
        pulse: told of each request.
    """

    def __init__(self, store: TrackingStore, sweep: str, pulse: Pulse | None = None) -> None:
        self._store = store
        self._sweep = sweep
        self._pulse = pulse or Pulse()
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""

    @property
    def client(self) -> MlflowClient:
        """The store's client, opened when it is first needed; to be asked for before each request."""
        self._pulse.beat()
        if self._client is None:
            self._client = open_client(self._store)
        return self._client

    def forget(self) -> None:
        """Look everything up again: someone may have deleted what was found before.

        Raises:
            FileNotFoundError: a database that was open is gone; it is made anew by the next process.
        """
        database = database_file(self._store)
        if self._client is not None and database is not None and not database.exists():
            raise FileNotFoundError(f"{database} was deleted while the sweep ran")
        self._experiment_id = self._parent_id = ""

    def experiment(self) -> str:
        """The experiment's id; database and experiment are made where they are missing."""
        if not self._experiment_id:
            self._experiment_id = ensure_experiment(self.client, self._store, self._sweep)
        return self._experiment_id

    def parent(self) -> str:
        """The parent run's id: the oldest there is, else a new one; any second ones are deleted."""
        if not self._parent_id:
            found = self.search("tags.`sweep.kind` = 'parent'")
            self.keep_one(found)
            run = found[0] if found else self._new_parent()
            self._parent_id = str(run.info.run_id)
        return self._parent_id

    def of_trial(self, trial_id: str) -> Run | None:
        """The one run of a trial; any second ones are deleted."""
        found = self.search(f"tags.{TRIAL_ID} = '{trial_id.replace(chr(39), '')}'")
        self.keep_one(found)
        return found[0] if found else None

    def by_trial(self) -> dict[str, list[Run]]:
        """Every trial's runs, by trial; of well-kept stores one each."""
        found: dict[str, list[Run]] = {}
        for run in self.search("tags.`sweep.kind` = 'trial'"):
            # A run whose tag was taken away by hand is nobody's, and no other's second.
            owner = run.data.tags.get(TRIAL_ID) or f"run {run.info.run_id}"
            found.setdefault(owner, []).append(run)
        return found

    def keep_one(self, runs: list[Run]) -> int:
        """Leave in the list, and in the store, the best of a trial's runs; returns how many went."""
        runs.sort(
            # Whoever else compares them now must choose the same one.
            key=lambda run: (
                RESULT_DIGEST not in run.data.tags,
                run.info.start_time,
                run.info.run_id,
            )
        )
        seconds = runs[1:]
        for second in seconds:
            self.client.delete_run(second.info.run_id)
        del runs[1:]
        return len(seconds)

    def search(self, condition: str) -> list[Run]:
        """All runs of the experiment that meet a condition, the oldest first."""
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self.experiment()],
                condition,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    def log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Everything in as few requests as MLflow's limits allow; empty tags are left out."""
        pairs = [Param(key, value) for key, value in (params or {}).items()]
        marks = [
            RunTag(safe_key(key), shortened(value, LONGEST_TAG))
            for key, value in (tags or {}).items()
            if value
        ]
        for start in range(0, len(metrics), _METRICS_A_BATCH):
            some = metrics[start : start + _METRICS_A_BATCH]
            self.client.log_batch(run_id, metrics=some, synchronous=True)
        for start in range(0, max(len(pairs), len(marks)), _PAIRS_A_BATCH):
            end = start + _PAIRS_A_BATCH
            self.client.log_batch(
                run_id, params=pairs[start:end], tags=marks[start:end], synchronous=True
            )

    def _new_parent(self) -> Run:
        tags = {"sweep.kind": "parent", "sweep": self._sweep, "mlflow.source.name": "orchestrator"}
        return self.client.create_run(self.experiment(), tags=tags, run_name=f"sweep {self._sweep}")
