"""What an MLflow run still lacks of a result, and whether it says something that the result does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlflow.entities import Metric, Run

from reports.results import TrialResult
from reports.tracking_records import RESULT_DIGEST, UPDATES, result_metrics, trial_params

_SAME = 1e-6
"""Relative difference below which two logged values are the same measurement."""

Histories = Mapping[str, Sequence[Metric]]
"""All values that a run has logged under each of the curves' keys."""


def contradicts(
    run: Run, histories: Histories, result: TrialResult, curves: Sequence[Metric], digest: str
) -> bool:
    """Whether a run holds another result, or values that the result does not have.

    Args:
        run: as the store has it.
        histories: its curves.
        result: the truth.
        curves: the truth's: losses by step, rewards by update.
        digest: of the truth's file.
    """
    if run.data.tags.get(RESULT_DIGEST, digest) != digest:
        return True
    finals = result_metrics(result)
    keys = {metric.key for metric in curves}
    for key, value in run.data.metrics.items():
        if key in finals and key not in keys and not _same(value, finals[key]):
            return True
    # Progress may have been reported at an epoch's end with the loss of the last logged step.
    ours = {(metric.key, f"{metric.value:.6g}") for metric in curves}
    return any(
        (key, f"{logged.value:.6g}") not in ours and not _same(logged.value, finals.get(key))
        for key, history in histories.items()
        for logged in history
    )


def holds_result(run: Run, result: TrialResult) -> bool:
    """Whether a run shows a result's settings and scores as they are; anyone may have edited it.

    Args:
        run: as the store has it.
        result: the truth.
    """
    data = run.data
    return all(
        _same(value, data.metrics.get(key)) for key, value in result_metrics(result).items()
    ) and all(data.params.get(key) == value for key, value in trial_params(result.spec).items())


def missing_metrics(
    run: Run,
    histories: Histories,
    result: TrialResult,
    curves: Sequence[Metric],
    ended_ms: int,
    now_ms: int,
) -> list[Metric]:
    """Metrics of a result that its run does not have yet.

    Args:
        run: as the store has it.
        histories: its curves.
        result: the truth.
        curves: the truth's: losses by step, rewards by update.
        ended_ms: when the trial ended, in milliseconds since 1970.
        now_ms: the present.
    """
    logged = {(key, metric.step) for key, history in histories.items() for metric in history}
    missing = [metric for metric in curves if (metric.key, metric.step) not in logged]
    steps = (metric.step for metric in curves if not metric.key.startswith(UPDATES))
    last_step = max(steps, default=0)
    last_value = {metric.key: metric.value for metric in curves}
    latest = max([ended_ms, *(metric.timestamp + 1 for metric in curves)])
    for key, value in result_metrics(result).items():
        if _same(value, last_value.get(key)) or _same(value, run.data.metrics.get(key)):
            continue
        # Later than any progress: the value that MLflow shows is the one of the last moment.
        at = max(latest, now_ms) if key in run.data.metrics else latest
        missing.append(Metric(key, value, at, last_step))
    return missing


def _same(value: float, other: float | None) -> bool:
    return other is not None and math.isclose(value, other, rel_tol=_SAME, abs_tol=1e-12)
