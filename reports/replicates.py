"""Rows of a table before they have a look: replicates together, matched to what the study printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.fields import (
    effective_fields,
    flatten_spec,
    model_size,
    protocol_of,
    without_seed,
)
from reports.published import EVALUATION, PARAMETERS, PublishedEvaluation, PublishedParameters
from reports.results import Floor, PendingTrial, StoppedTrial, SweepResults, Trial, TrialResult
from reports.table import Cell, Column, State

Published = PublishedParameters | PublishedEvaluation


@dataclass(frozen=True)
class Replicates:
    """Trials whose specifications differ in the seed alone; at least one."""

    trials: tuple[Trial, ...]

    @property
    def spec(self) -> Mapping[str, Any]:
        """The specification that they share, with the first one's seed."""
        return self.trials[0].spec

    @property
    def done(self) -> tuple[TrialResult, ...]:
        """Those with a result."""
        return tuple(trial for trial in self.trials if isinstance(trial, TrialResult))

    def cell(self, column: Column, published: Published | None) -> Cell:
        """A metric's mean over the seeds that are done; where none is, why not."""
        printed = None if published is None else published.value(column.key)
        scores = [score_on_test(trial.scores, column.key) for trial in self.done]
        return self._cell(column, scores, printed)

    def cost_cell(self, column: Column) -> Cell:
        """A cost's mean over the seeds that are done; where none is, why not."""
        cell = self._cell(column, [cost_of(trial, column.key) for trial in self.done], None)
        # What is counted, and not measured, is the same for every seed.
        return replace(cell, spread=cell.spread or None)

    def _cell(self, column: Column, found: Iterable[float | None], printed: float | None) -> Cell:
        values = [value for value in found if value is not None]
        if values:
            return Cell(
                "value",
                column.decimals,
                statistics.fmean(values),
                len(values),
                statistics.stdev(values) if len(values) > 1 else None,
                printed,
            )
        state: State = "failed"
        if self.done:
            state = "n/a"
        elif any(isinstance(trial, PendingTrial) for trial in self.trials):
            state = "pending"
        return Cell(state, column.decimals, published=printed)


def group_replicates(
    sweep: SweepResults,
    stages: set[str],
    protocol: str,
    wanted: Callable[[Mapping[str, Any]], bool] = lambda spec: True,
) -> tuple[Replicates, ...]:
    """Trials of some stages, replicates together, in the stages' order; none that was stopped early.

    Args:
        sweep: the results.
        stages: names of stages; a trial that stands in one of them counts.
        protocol: `clean` or `chatmgl`.
        wanted: whether a trial with this specification counts.
    """
    groups: dict[str, list[Trial]] = {}
    listed = dict.fromkeys(
        trial_id for stage in sweep.stages if stage.name in stages for trial_id in stage.trials
    )
    for trial in (sweep.trials[trial_id] for trial_id in listed if trial_id in sweep.trials):
        if isinstance(trial, StoppedTrial):
            continue  # Its last epoch is no fair comparison with the others' ends.
        if protocol_of(trial.spec) == protocol and wanted(trial.spec):
            groups.setdefault(without_seed(trial.spec), []).append(trial)
    return tuple(Replicates(tuple(trials)) for trials in groups.values())


def varying_fields(groups: Iterable[Replicates]) -> tuple[str, ...]:
    """Fields that differ between the rows that have them, in the specification's order.

    A method's own settings are compared within the method: two methods have their own defaults.
    """
    seen: dict[str, dict[str, set[str]]] = {}
    for group in groups:
        own, kind = group.spec["method"], str(group.spec["method"]["kind"])
        for field, value in effective_fields(group.spec).items():
            among = seen.setdefault(field, {})
            among.setdefault(kind if field in own else "", set()).add(repr(value))
    return tuple(
        field for field, among in seen.items() if any(len(values) > 1 for values in among.values())
    )


def match_parameters(groups: Sequence[Replicates]) -> dict[int, PublishedParameters]:
    """Which of our rows each published row stands beside, by the row's position.

    The study states a batch size for its winner alone; its other numbers stand beside our smallest.
    """
    matches: dict[int, PublishedParameters] = {}
    for row in PARAMETERS:
        near = [
            (int(flat["batch_size"]), index)
            for index, flat in enumerate(flatten_spec(group.spec) for group in groups)
            if flat["method"] == "sft"
            and model_size(str(flat["model"])) == row.size
            and flat.get("loader") == row.loader
            and flat.get("learning_rate") == row.learning_rate
            and flat.get("batch_size")
        ]
        smallest = row.batch_size or min(near, default=(0, 0))[0]
        matches |= {index: row for batch_size, index in near if batch_size == smallest}
    return matches


def match_evaluation(groups: Sequence[Replicates]) -> dict[int, PublishedEvaluation]:
    """The published row of each of our rows' method, for models of the study's family."""
    matches: dict[int, PublishedEvaluation] = {}
    for index, group in enumerate(groups):
        kind = str(group.spec["method"]["kind"])
        if kind != "chatmgl" and model_size(str(group.spec["model"])) is None:
            continue
        for row in EVALUATION:
            if row.method == kind and row.loader in (None, group.spec.get("loader")):
                matches[index] = row
    return matches


def floors_of(
    sweep: SweepResults, groups: Iterable[Replicates], protocol: str
) -> tuple[Floor, ...]:
    """The floors of the test sets that the groups were scored on."""
    specs = [group.spec for group in groups]
    return tuple(
        floor
        for floor in sweep.floors
        if floor.protocol == protocol
        and any(spec.get("loader") == floor.loader and _fits(floor, spec) for spec in specs)
    )


def _fits(floor: Floor, spec: Mapping[str, Any]) -> bool:
    """Whether a floor's test set and scoring are those of a specification, as far as it says."""
    return all(
        _scored_by(floor.settings.get(part, spec.get(part))) == _scored_by(spec.get(part))
        for part in ("split", "corpus", "metrics")
    )


def _scored_by(part: Any) -> Any:
    """A part of a specification without `privacy`, which changes no score; floors do not have it."""
    if not isinstance(part, Mapping):
        return part
    return {name: value for name, value in part.items() if name != "privacy"}


def floor_cell(floor: Floor, column: Column) -> Cell:
    """A floor's metric; it generates nothing, so that every beam width scores the same."""
    value = score_on_test(floor.scores, column.key)
    if value is None:
        value = score_on_test(floor.scores, column.key.split("_beam")[0])
    return Cell("n/a" if value is None else "value", column.decimals, value, int(value is not None))


def cost_of(trial: TrialResult, name: str) -> float | None:
    """A part of what a trial cost; absent where it was not measured.

    Args:
        trial: one that is done.
        name: as in its `cost`, or `trainable_percent`.
    """
    if name == "trainable_percent":
        trained, total = (cost_of(trial, f"{part}_parameters") for part in ("trainable", "total"))
        return None if trained is None or not total else 100 * trained / total
    value = trial.cost.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def score_on_test(scores: Mapping[str, float], metric: str) -> float | None:
    """A metric on the test pairs; without a beam in its name, at the narrowest width there is.

    Args:
        scores: a result's scores.
        metric: `rouge1_beam4`, `meteor`.
    """
    if (value := scores.get(f"test/{metric}")) is not None:
        return value
    prefix = f"test/{metric}_beam"
    widths = [
        int(width)
        for key in scores
        if (width := key.removeprefix(prefix)) != key
        if width.isdigit()
    ]
    return scores[f"{prefix}{min(widths)}"] if widths else None
