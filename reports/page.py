"""The report page: one file that works offline, on paper, in the dark and without sight."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import jinja2
from markupsafe import Markup

from reports.examples import reply_examples
from reports.fields import effective_fields, method_label, shown_model, shown_value
from reports.figure_style import DrawnFigure
from reports.render_html import render_html
from reports.results import (
    FailedTrial,
    PendingTrial,
    StoppedTrial,
    SweepResults,
    Trial,
    TrialResult,
)
from reports.table import Table
from reports.trial_files import leads_out
from search_spaces.controls import escape_controls
from search_spaces.errors import Problem
from search_spaces.secrets import hide_secrets

_STATES: dict[type[Trial], str] = {
    TrialResult: "done",
    FailedTrial: "failed",
    StoppedTrial: "stopped",
    PendingTrial: "pending",
}
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class TrialLine:
    """One trial in the page's list of all trials."""

    name: str
    id: str
    stages: str
    state: str
    """`done`, `failed`, `stopped` or `pending`."""
    reason: str
    minutes: float | None
    trainable_percent: float | None
    memory_gib: float | None
    valid_loss: float | None


@dataclass(frozen=True)
class FailureGroup:
    """Trials that failed for the same reason."""

    reason: str
    trials: tuple[FailedTrial, ...]


@dataclass(frozen=True)
class Fact:
    """A name and what is known under it."""

    name: str
    value: str


def render_page(
    sweep: SweepResults, tables: Sequence[Table], figures: Sequence[DrawnFigure]
) -> str:
    """The page as HTML; equal results make equal pages.

    Args:
        sweep: the results.
        tables: every table, in the order they are shown.
        figures: every figure; their SVG goes into the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    seconds = [float(t.cost["seconds"]) for t in sweep.done if _is_number(t.cost.get("seconds"))]
    return environment.get_template("report.html.j2").render(
        sweep=sweep,
        corpus=shown_model(sweep.corpus.source),
        problems=[_inside(problem, sweep.folder) for problem in sweep.problems],
        compute_time=shown_duration(sum(seconds)) if seconds else "",
        finished=_period(sweep.done),
        headline=_headline(sweep),
        tables=[(table, Markup(render_html(table))) for table in tables],
        figures=[(figure, Markup(figure.svg)) for figure in figures],
        failures=_failures(sweep.failed),
        examples=reply_examples(sweep),
        trials=[_line(trial) for trial in sweep.trials.values()],
        facts=_facts(sweep),
        search_space=_text_of(sweep.folder / "sweep.yaml"),
        environment_text=_text_of(sweep.folder / "env.txt"),
        script_hash=Markup(_script_hash(script)),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
    )


def shown_duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 05 min`, `2 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def _headline(sweep: SweepResults) -> list[Fact]:
    """The stages' winners, in words."""
    facts = []
    for stage in sweep.stages:
        winner = sweep.trials.get(stage.winner or "")
        if winner is not None:
            fields = effective_fields(winner.spec)
            settings = [
                f"{name.replace('_', ' ')} {shown_value(fields[name])}"
                for name in ("learning_rate", "batch_size")
                if name in fields
            ]
            model = shown_model(str(winner.spec["model"]))
            text = [model, method_label(winner.spec), f"loader {fields.get('loader')}", *settings]
            facts.append(Fact(stage.name, ", ".join(text)))
    return facts


def _failures(failed: Iterable[FailedTrial]) -> list[FailureGroup]:
    """Failed trials by reason, the most frequent reason first."""
    groups: dict[str, list[FailedTrial]] = {}
    for trial in failed:
        groups.setdefault(trial.reason, []).append(trial)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [FailureGroup(reason.replace("_", " "), tuple(trials)) for reason, trials in ordered]


def _inside(problem: Problem, folder: Path) -> str:
    """A problem with its file as it lies in the sweep's folder: the page may travel."""
    file = Path(problem.file)
    inside = file.relative_to(folder) if file.is_relative_to(folder) else file
    return str(replace(problem, file=inside.as_posix()))


def _reason(trial: Trial) -> str:
    match trial:
        case FailedTrial():
            return trial.reason.replace("_", " ")
        case StoppedTrial():
            return f"early, after epoch {trial.epoch:g} of {trial.epochs}"
        case _:
            return ""


def _line(trial: Trial) -> TrialLine:
    cost: Mapping[str, Any] = trial.cost if isinstance(trial, TrialResult) else {}
    trainable, total = cost.get("trainable_parameters"), cost.get("total_parameters")
    share = trainable / total if _is_number(trainable) and _is_number(total) and total else None
    seconds, memory = cost.get("seconds"), cost.get("peak_memory_gib")
    return TrialLine(
        name=trial.name,
        id=trial.id,
        stages=", ".join(trial.stages),
        state=_STATES[type(trial)],
        reason=_reason(trial),
        minutes=float(seconds) / 60 if _is_number(seconds) else None,
        trainable_percent=None if share is None else 100 * share,
        memory_gib=float(memory) if _is_number(memory) else None,
        valid_loss=trial.scores.get("valid/loss") if isinstance(trial, TrialResult) else None,
    )


def _facts(sweep: SweepResults) -> list[Fact]:
    """How the sweep was run, as its results recorded it."""
    command = sweep.command or f"python -m orchestrator sweep {shlex.quote(sweep.name)}"
    corpus = sweep.corpus
    sessions = "" if corpus.sessions is None else f", {corpus.sessions} sessions"
    facts = [
        Fact("Command", command),
        Fact(
            "Scale", f"{sweep.scale} ({sweep.scale_reason})" if sweep.scale_reason else sweep.scale
        ),
        Fact("Corpus", f"{corpus.source} ({corpus.format}{sessions})"),
        Fact("Corpus hash", corpus.content_hash),
    ]
    for name, key in (
        ("Device", "device"),
        ("Platform", "platform"),
        ("Python", "python"),
        ("Git commit", "git_commit"),
        ("Packages", "packages"),
        ("Metrics", "metric_versions"),
    ):
        values = dict.fromkeys(_shown_fact(trial.provenance.get(key)) for trial in sweep.done)
        text = "; ".join(value for value in values if value)
        if key == "git_commit" and any(trial.provenance.get("git_dirty") for trial in sweep.done):
            text += " (with uncommitted changes)"
        facts.append(Fact(name, text))
    return [fact for fact in facts if fact.value]


def _shown_fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {text}" for name, text in sorted(value.items()))
    return "" if value is None else str(value)


def _period(done: Iterable[TrialResult]) -> str:
    """From the first trial's start to the last one's end, to the minute."""
    results = list(done)
    starts = [str(t.provenance["started_at"]) for t in results if t.provenance.get("started_at")]
    ends = [str(t.provenance["finished_at"]) for t in results if t.provenance.get("finished_at")]
    if not starts or not ends:
        return ""
    return f"{min(starts)[:16].replace('T', ' ')} to {max(ends)[:16].replace('T', ' ')}"


def _text_of(file: Path) -> str:
    """A text file's content without secrets; empty where there is none, or a link to elsewhere."""
    if not file.is_file() or leads_out(file, file.parent):
        return ""
    return hide_secrets(file.read_text(encoding="utf-8", errors="replace"))


def _shown(value: object) -> object:
    """A value as the page has it: what is not markup holds no control characters."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return escape_controls(value, keep="\n\t")


def _script_hash(script: str) -> str:
    """What lets the page's own script run, and no other."""
    digest = hashlib.sha256(f"\n{script}\n".encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
