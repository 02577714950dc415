"""A sweep's folder becomes one frozen value: what was planned, what is done, what failed, what is missing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reports.json_files import Json, UnusableError, as_object, list_at, read_json, text_at
from search_spaces.errors import InputError, Problem, one_problem


class ReportError(InputError, ValueError):
    """A results folder cannot be read, or a report cannot be made of it."""


@dataclass(frozen=True)
class TrialResult:
    """A trial that is done."""

    id: str
    name: str
    stages: tuple[str, ...]
    """Every stage that the trial stands in, in plan order."""
    spec: Json
    scores: Mapping[str, float]
    """Finite scores by key (`test/rouge1_beam4`); a metric that was left out has no key."""
    cost: Json
    data: Json
    checks: Json
    provenance: Json


@dataclass(frozen=True)
class FailedTrial:
    """A trial that ended without a result."""

    id: str
    name: str
    stages: tuple[str, ...]
    spec: Json
    reason: str
    """`diverged`, `out_of_memory`, `worker_lost` or `error`."""
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class PendingTrial:
    """A trial that is planned and has neither a result nor a failure."""

    id: str
    name: str
    stages: tuple[str, ...]
    spec: Json


Trial = TrialResult | FailedTrial | PendingTrial


@dataclass(frozen=True)
class CorpusInfo:
    """The corpus as the plan describes it."""

    source: str
    format: str
    content_hash: str
    sessions: int | None


@dataclass(frozen=True)
class Selection:
    """How a stage takes its settings from the winner of an earlier one."""

    stage: str
    best: str
    """Score that chose the winner, for example `valid/rouge1_beam1`."""
    mode: str
    """`max` or `min`."""


@dataclass(frozen=True)
class Stage:
    """One stage of the plan."""

    name: str
    table: str | None
    """`parameters`, `methods`, or absent."""
    selection: Selection | None
    winner: str | None
    """Identity of the trial that later stages take their settings from."""
    trials: tuple[str, ...]


@dataclass(frozen=True)
class Floor:
    """Scores of replies that need no model, on one loader's test pairs."""

    floor: str
    """`echo` or `fixed`."""
    loader: str
    scores: Mapping[str, float]
    test_pairs: int | None
    protocol: str = "clean"
    settings: Json = field(default_factory=dict)
    """Parts of a specification that say which test set and scoring the floor is of; may be empty."""


@dataclass(frozen=True)
class SweepResults:
    """Everything that a report is made of."""

    folder: Path
    name: str
    scale: str
    scale_reason: str
    command: str
    """The command that ran the sweep, where the plan records it."""
    corpus: CorpusInfo
    stages: tuple[Stage, ...]
    trials: Mapping[str, Trial]
    """By identity, in plan order."""
    floors: tuple[Floor, ...]
    problems: tuple[Problem, ...]
    """Files that could not be used; their trials count as not done."""

    @property
    def done(self) -> tuple[TrialResult, ...]:
        """Trials with a result, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, TrialResult))

    @property
    def failed(self) -> tuple[FailedTrial, ...]:
        """Trials that failed, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, FailedTrial))

    @property
    def pending(self) -> tuple[PendingTrial, ...]:
        """Trials that are neither done nor failed, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, PendingTrial))


def read_sweep(folder: Path) -> SweepResults:
    """The sweep as its folder has it.

    Args:
        folder: `runs/<sweep>`, with a `plan.json`.

    Returns:
        Every planned trial, done, failed or pending. A file that is truncated or holds something
        else is named in `problems`, and its trial counts as not done.

    Raises:
        ReportError: there is no readable plan, so that nothing can be said about the sweep.
    """
    plan_file = folder / "plan.json"
    try:
        plan = as_object(read_json(plan_file), "the plan")
        stages = tuple(_stage(as_object(entry, "a stage")) for entry in list_at(plan, "stages"))
        planned = [as_object(entry, "a trial") for entry in list_at(plan, "trials")]
        name = text_at(plan, "name")
        specs = {text_at(entry, "id"): _spec(entry) for entry in planned}
        names = {text_at(entry, "id"): text_at(entry, "name") for entry in planned}
    except UnusableError as error:
        raise ReportError(
            one_problem(str(plan_file), "", f"a sweep's folder must hold its plan: {error}")
        ) from error
    problems: list[Problem] = []
    trials: dict[str, Trial] = {}
    for trial_id, spec in specs.items():
        stands_in = tuple(stage.name for stage in stages if trial_id in stage.trials) or tuple(
            dict.fromkeys(str(e["stage"]) for e in planned if e["id"] == trial_id and "stage" in e)
        )
        pending = PendingTrial(trial_id, names[trial_id], stands_in, spec)
        trials[trial_id] = _trial(folder / "trials" / trial_id, pending, problems)
    return SweepResults(
        folder=folder,
        name=name,
        scale=str(plan.get("scale") or "paper"),
        scale_reason=str(plan.get("scale_reason") or ""),
        command=str(plan.get("command") or ""),
        corpus=_corpus(plan.get("corpus")),
        stages=stages,
        trials=trials,
        floors=_floors(folder / "floors.json", problems),
        problems=tuple(problems),
    )


def _trial(folder: Path, pending: PendingTrial, problems: list[Problem]) -> Trial:
    """The trial that a folder holds: its result if there is one, else its failure, else pending."""
    result_file, failure_file = folder / "result.json", folder / "failure.json"
    if result_file.exists():
        try:
            return _result(as_object(read_json(result_file), "a result"), pending, problems)
        except UnusableError as error:
            problems.append(Problem(str(result_file), "", f"{error}; the trial counts as not done"))
    if failure_file.exists():
        try:
            failure = as_object(read_json(failure_file), "a failure")
        except UnusableError as error:
            problems.append(
                Problem(str(failure_file), "", f"{error}; the failure's reason is lost")
            )
            failure = {}
        return FailedTrial(
            pending.id,
            pending.name,
            pending.stages,
            pending.spec,
            str(failure.get("reason") or "error"),
            str(failure.get("message") or ""),
            str(failure.get("traceback") or ""),
        )
    return pending


def _result(record: Json, pending: PendingTrial, problems: list[Problem]) -> TrialResult:
    """A `result.json`, checked."""
    if text_at(record, "id") != pending.id:
        raise UnusableError(f"holds the result of another trial ({record['id']})")
    scores: dict[str, float] = {}
    for key, value in as_object(record.get("scores"), "`scores`").items():
        if value is None:
            continue  # a metric that was left out
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnusableError(f"the score {key} is not a number")
        if math.isfinite(value):
            scores[key] = float(value)
        else:
            problems.append(
                Problem(
                    f"trials/{pending.id}/result.json", key, "a score must be finite", str(value)
                )
            )
    return TrialResult(
        id=pending.id,
        name=pending.name,
        stages=pending.stages,
        spec=_spec(record),
        scores=scores,
        cost=_part(record, "cost"),
        data=_part(record, "data"),
        checks=_part(record, "checks"),
        provenance=_part(record, "provenance"),
    )


def _stage(entry: Json) -> Stage:
    selection = entry.get("from")
    return Stage(
        name=text_at(entry, "name"),
        table=None if entry.get("table") is None else str(entry["table"]),
        selection=(
            Selection(
                str(selection.get("stage", "")),
                str(selection.get("best", "")),
                str(selection.get("mode", "max")),
            )
            if isinstance(selection, dict)
            else None
        ),
        winner=None if entry.get("winner") is None else str(entry["winner"]),
        trials=tuple(str(trial) for trial in list_at(entry, "trials")),
    )


def _corpus(entry: object) -> CorpusInfo:
    record = entry if isinstance(entry, dict) else {}
    sessions = record.get("sessions")
    if isinstance(sessions, list):  # names of the sessions
        sessions = len(sessions)
    return CorpusInfo(
        str(record.get("source") or "unknown"),
        str(record.get("format") or "unknown"),
        str(record.get("content_hash") or ""),
        sessions if isinstance(sessions, int) else None,
    )


def _floors(file: Path, problems: list[Problem]) -> tuple[Floor, ...]:
    """The floors of every loader; none where the file is missing or unusable."""
    if not file.exists():
        return ()
    try:
        entries = read_json(file)
        if not isinstance(entries, list):
            raise UnusableError("must hold a list of floors")
        return tuple(_floor(as_object(entry, "a floor")) for entry in entries)
    except UnusableError as error:
        problems.append(Problem(str(file), "", f"{error}; the tables stand without floors"))
        return ()


def _floor(entry: Json) -> Floor:
    scores = as_object(entry.get("scores"), "`scores`")
    pairs = entry.get("test_pairs")
    return Floor(
        text_at(entry, "floor"),
        text_at(entry, "loader"),
        {
            key: float(value)
            for key, value in scores.items()
            if isinstance(value, int | float) and math.isfinite(value)
        },
        pairs if isinstance(pairs, int) else None,
        str(entry.get("protocol") or "clean"),
        _floor_settings(str(entry.get("key") or "")),
    )


def _floor_settings(key: str) -> Json:
    """What a floor's key says after the floor's name: parts of a specification, as JSON."""
    _, _, text = key.partition(" ")
    try:
        settings = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _spec(record: Json) -> Json:
    spec = as_object(record.get("spec"), "`spec`")
    text_at(spec, "model")
    text_at(as_object(spec.get("method"), "`spec.method`"), "kind")
    return spec


def _part(record: Json, key: str) -> Json:
    """An object that may be absent."""
    value = record.get(key)
    return {} if value is None else as_object(value, f"`{key}`")
