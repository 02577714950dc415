"""A sweep's folder becomes one frozen value: what was planned, what is done, what failed, what is missing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corpora.privacy import guard, privacy_of, strictest
from reports.json_files import Json, UnusableError, as_object, list_at, read_json, text_at
from reports.trial_files import leads_out
from search_spaces.errors import InputError, Problem, one_problem, shown_value
from search_spaces.secrets import hide_secrets
from search_spaces.spec import Privacy


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
    adjusted: Json = field(default_factory=dict)
    """Settings that memory did not allow, with what was used instead (`batch_size`, ...)."""


@dataclass(frozen=True)
class FailedTrial:
    """A trial that ended without a result."""

    id: str
    name: str
    stages: tuple[str, ...]
    spec: Json
    reason: str
    """`diverged`, `out_of_memory`, `worker_lost`, `configuration` or `error`."""
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class PendingTrial:
    """A trial that is planned and has neither a result nor a failure."""

    id: str
    name: str
    stages: tuple[str, ...]
    spec: Json


@dataclass(frozen=True)
class StoppedTrial:
    """A trial that ended early because it fell behind its siblings: it has no scores to compare."""

    id: str
    name: str
    stages: tuple[str, ...]
    spec: Json
    epoch: float
    """At whose end it was stopped."""
    epochs: int
    """That it would have trained for."""


Trial = TrialResult | FailedTrial | StoppedTrial | PendingTrial


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
    def privacy(self) -> Privacy:
        """What the report does with identifiers: the strictest setting of any of its trials."""
        return strictest(privacy_of(trial.spec) for trial in self.trials.values())

    @property
    def done(self) -> tuple[TrialResult, ...]:
        """Trials with a result, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, TrialResult))

    @property
    def failed(self) -> tuple[FailedTrial, ...]:
        """Trials that failed, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, FailedTrial))

    @property
    def stopped_early(self) -> tuple[StoppedTrial, ...]:
        """Trials that were stopped early, in plan order."""
        return tuple(trial for trial in self.trials.values() if isinstance(trial, StoppedTrial))

    @property
    def pending(self) -> tuple[PendingTrial, ...]:
        """Trials that have not ended in any way, in plan order."""
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
        specs = {_trial_id(entry): _spec(entry) for entry in planned}
        names = {text_at(entry, "id"): text_at(entry, "name") for entry in planned}
    except UnusableError as error:
        raise ReportError(
            one_problem(str(plan_file), "", f"a sweep's folder must hold its plan: {error}")
        ) from error
    problems: list[Problem] = []
    privacy = strictest(privacy_of(spec) for spec in specs.values())
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
        command=guard(hide_secrets(str(plan.get("command") or "")), privacy),
        corpus=_corpus(plan.get("corpus"), privacy),
        stages=stages,
        trials=trials,
        floors=_floors(folder / "floors.json", problems),
        problems=tuple(problems),
    )


def read_trial(folder: Path, planned: PendingTrial) -> Trial:
    """A trial as its folder has it: what `read_sweep` would say of it, without reading the others.

    Args:
        folder: `runs/<sweep>`.
        planned: the trial as it is planned.
    """
    return _trial(folder / "trials" / planned.id, planned, [])


def read_result(file: Path, trial_id: str) -> Json:
    """A finished trial's `result.json`, as far as anything relies on it.

    Args:
        file: where it is.
        trial_id: whose it has to be.

    Raises:
        UnusableError: the file is missing, truncated, another trial's, or holds something else; the
            trial then counts as not done, here as in the sweep that runs it again.
    """
    record = as_object(read_json(file), "a result")
    if text_at(record, "id") != trial_id:
        raise UnusableError(f"holds the result of another trial ({record['id']})")
    for key, value in as_object(record.get("scores"), "`scores`").items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UnusableError(f"the score {key} is not a number")
    _spec(record)
    for part in ("cost", "data", "checks", "provenance", "adjusted"):
        _part(record, part)
    return record


def read_failure(file: Path, trial_id: str) -> Json:
    """A failed trial's `failure.json`.

    Args:
        file: where it is.
        trial_id: whose it has to be.

    Raises:
        UnusableError: as for a result; the trial then counts as not run.
    """
    record = as_object(read_json(file), "a failure")
    if text_at(record, "id") != trial_id:
        raise UnusableError(f"holds the failure of another trial ({record['id']})")
    return record


def _trial(folder: Path, pending: PendingTrial, problems: list[Problem]) -> Trial:
    """The trial that a folder holds: its result if there is one, else its failure, else pending."""
    result_file, failure_file = folder / "result.json", folder / "failure.json"
    for file in (result_file, failure_file, folder / "stopped.json"):
        # Resolving a path takes long: not where neither of its ends is a link.
        if (folder.is_symlink() or file.is_symlink()) and leads_out(file, folder.parent):
            message = (
                "a link to outside the sweep's folder is not read; the trial counts as not done"
            )
            problems.append(Problem(str(file), "", message))
            return pending
    if result_file.exists():
        try:
            return _result(read_result(result_file, pending.id), pending, problems)
        except UnusableError as error:
            problems.append(Problem(str(result_file), "", f"{error}; the trial counts as not done"))
    if failure_file.exists():
        try:
            failure = read_failure(failure_file, pending.id)
        except UnusableError as error:
            problems.append(Problem(str(failure_file), "", f"{error}; the trial counts as not run"))
            return pending
        privacy = privacy_of(pending.spec)
        return FailedTrial(
            pending.id,
            pending.name,
            pending.stages,
            pending.spec,
            str(failure.get("reason") or "error"),
            guard(hide_secrets(str(failure.get("message") or "")), privacy),
            guard(hide_secrets(str(failure.get("traceback") or "")), privacy),
        )
    return _stopped(folder / "stopped.json", pending, problems)


def _stopped(file: Path, pending: PendingTrial, problems: list[Problem]) -> Trial:
    """A trial without result or failure, which may have been stopped early."""
    if not file.exists():
        return pending
    try:
        record = as_object(read_json(file), "an early end")
        epoch, epochs = record.get("epoch"), record.get("epochs")
        if not isinstance(epoch, int | float) or not isinstance(epochs, int):
            raise UnusableError("`epoch` and `epochs` must be numbers")
    except UnusableError as error:
        problems.append(Problem(str(file), "", f"{error}; the trial counts as not run"))
        return pending
    return StoppedTrial(
        pending.id, pending.name, pending.stages, pending.spec, float(epoch), epochs
    )


def _result(record: Json, pending: PendingTrial, problems: list[Problem]) -> TrialResult:
    """A `result.json` that was checked."""
    scores: dict[str, float] = {}
    for key, value in record["scores"].items():
        if value is None:
            continue  # a metric that was left out
        if _is_finite(value):
            scores[key] = float(value)
        else:
            problems.append(
                Problem(
                    f"trials/{pending.id}/result.json",
                    key,
                    "a score must be finite",
                    shown_value(value),
                )
            )
    return TrialResult(
        id=pending.id,
        name=pending.name,
        stages=pending.stages,
        spec=_as_planned(_spec(record), pending.spec),
        scores=scores,
        cost=_part(record, "cost"),
        data=_part(record, "data"),
        checks=_part(record, "checks"),
        provenance=_part(record, "provenance"),
        adjusted=_part(record, "adjusted"),
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


def _corpus(entry: object, privacy: Privacy) -> CorpusInfo:
    record = entry if isinstance(entry, dict) else {}
    sessions = record.get("sessions")
    if isinstance(sessions, list):  # names of the sessions
        sessions = len(sessions)
    return CorpusInfo(
        guard(str(record.get("source") or "unknown"), privacy),
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
            if isinstance(value, int | float) and _is_finite(value)
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
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _trial_id(entry: Json) -> str:
    """A trial's identity, which names its folder and so must not lead anywhere else."""
    trial_id = text_at(entry, "id")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", trial_id):
        raise UnusableError(f"a trial's id must be letters and digits, got {shown_value(trial_id)}")
    return trial_id


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # A whole number beyond what a float can be.
        return False


def _spec(record: Json) -> Json:
    spec = as_object(record.get("spec"), "`spec`")
    text_at(spec, "model")
    text_at(as_object(spec.get("method"), "`spec.method`"), "kind")
    return spec


def _as_planned(spec: Json, planned: Json) -> Json:
    """A result's specification under the plan's privacy: another sweep may have made the result."""
    kept = {name: value for name, value in _part(spec, "corpus").items() if name != "privacy"}
    if "privacy" in _part(planned, "corpus"):
        kept["privacy"] = privacy_of(planned)
    return {**spec, "corpus": kept} if kept or "corpus" in spec else spec


def _part(record: Json, key: str) -> Json:
    """An object that may be absent."""
    value = record.get(key)
    return {} if value is None else as_object(value, f"`{key}`")
