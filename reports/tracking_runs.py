"""The runs of one sweep's experiment: finding them, and writing to them in few requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from reports.tracking_records import LONGEST_TAG, RESULT_DIGEST, TRIAL_ID, safe_key, shortened
from reports.tracking_store import TrackingStore, ensure_experiment, open_client

_METRICS_A_BATCH = 1000
_PAIRS_A_BATCH = 100


class SweepRuns:
    """An experiment's runs, by what they are rather than by their run ids.

    Args:
        store: where.
        sweep: the sweep's name, which is the experiment's.
    """

    def __init__(self, store: TrackingStore, sweep: str) -> None:
        self._store = store
        self._sweep = sweep
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._parent_id = ""

    @property
    def client(self) -> MlflowClient:
        """The store's client, opened when it is first needed."""
        if self._client is None:
            self._client = open_client(self._store)
        return self._client

    def experiment(self) -> str:
        """The experiment's id; database and experiment are made where they are missing."""
        if not self._experiment_id:
            self._experiment_id = ensure_experiment(self.client, self._store, self._sweep)
        return self._experiment_id

    def parent(self) -> str:
        """The parent run's id: the oldest there is, else a new one."""
        if not self._parent_id:
            found = self.search("tags.`sweep.kind` = 'parent'")
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
            found.setdefault(run.data.tags.get(TRIAL_ID, ""), []).append(run)
        return found

    def keep_one(self, runs: list[Run]) -> int:
        """Leave in the list, and in the store, the best of a trial's runs; returns how many went."""
        runs.sort(key=lambda run: (RESULT_DIGEST not in run.data.tags, run.info.start_time))
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
