"""What commands print: results on standard output, words on standard error, secrets nowhere."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.plan_file import entry_fields
from search_spaces.controls import escape_controls
from search_spaces.secrets import hide_secrets

if TYPE_CHECKING:
    from corpora.summary import CorpusSummary
    from orchestrator.plan import Plan
    from orchestrator.storage import SweepFolder

_AT_ONCE = 1000
"""Lines that are written together."""

_TOLD = ("done", "failed", "stopped_early")
"""Statuses whose counts are told of a stage."""

_SHOWN_TRIALS = 200
"""Of each stage; a longer list is for scripts."""


@contextmanager
def stdout_kept_for_results() -> Iterator[None]:
    """Send to standard error what libraries and child processes print meanwhile.

    Ray's log monitor, for one, prints on standard output when a worker dies.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_line(line: str) -> None:
    """Print a line of a result.

    Args:
        line: may hold what users wrote.
    """
    typer.echo(_shown(line))


def say(line: str) -> None:
    """Print a word to the person, on standard error.

    Args:
        line: may hold what users wrote.
    """
    with suppress(OSError):  # Nobody may be there any more to be told.
        typer.echo(_shown(line), err=True)


def _shown(line: str) -> str:
    """One line without secrets, and without characters that a terminal would obey."""
    return escape_controls(hide_secrets(line))


def print_json(data: Any) -> None:
    """Print a result for scripts.

    Args:
        data: plain JSON data.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=2)
    typer.echo(escape_controls(text, keep="\n"))


def print_text(lines: Iterable[str]) -> None:
    """Print a result for scripts that is text already.

    Args:
        lines: each with its line feed, or without one where the line goes on.
    """
    lines = iter(lines)
    while some := "".join(islice(lines, _AT_ONCE)):
        typer.echo(escape_controls(some, keep="\n"), nl=False)


def print_plan(plan: Plan, folder: SweepFolder) -> None:
    """Print what a sweep would run, of each stage the first trials.

    Args:
        plan: the plan.
        folder: the sweep's, for what is done already.
    """
    corpus = plan.corpus
    print_line(f"sweep {plan.space.name}, scale {plan.scale.scale} ({plan.scale.reason})")
    print_line(f"corpus {corpus.source} ({corpus.format}, {len(corpus.dialogues)} sessions)")
    for stage in plan.stages:
        name, rule = stage.stage.name, stage.stage.winner_of
        print_line("")
        if rule is not None and stage.waits:
            print_line(
                f"stage {name}: waits for the winner of {rule.stage} ({rule.mode} of {rule.best})"
            )
            for entry in stage.stage.methods:
                fields = ", ".join(f"{k}={v}" for k, v in entry_fields(entry).items())
                print_line(f"  {'waits':8} {entry.settings.kind}{f' ({fields})' if fields else ''}")
            continue
        statuses = folder.statuses(trial.id for trial in stage.trials)
        counts = Counter(statuses[trial.id] for trial in stage.trials)
        done = ", ".join(f"{counts[word]} {word}" for word in _TOLD if counts[word])
        print_line(f"stage {name}: {len(stage.trials)} trials" + (f" ({done})" if done else ""))
        for trial in stage.trials[:_SHOWN_TRIALS]:
            print_line(f"  {statuses[trial.id]:8} {trial.id}  {trial.name}")
        if len(stage.trials) > _SHOWN_TRIALS:
            more = len(stage.trials) - _SHOWN_TRIALS
            print_line(f"  ... and {more:,} more (all of them: --json)")


def print_status(data: dict[str, Any], folder: Path) -> None:
    """Print where a sweep stands, failures by reason.

    Args:
        data: as `sweep_status` has it.
        folder: the sweep's.
    """
    counts = data["trials"]
    print_line(
        f"sweep {data['sweep']}: {counts['total']} trials, {counts['done']} done, "
        f"{counts['failed']} failed, {counts['pending']} pending"
        + (f", {counts['stopped_early']} stopped early" if counts["stopped_early"] else "")
    )
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for failure in data["failures"]:
        by_reason.setdefault(failure["reason"], []).append(failure)
    for reason, failures in by_reason.items():
        print_line(f"failed, {reason}:")
        for failure in failures:
            print_line(f"  {failure['name']} ({failure['id']}): {failure['message']}")
    tracking = data.get("tracking")
    if tracking is not None and not tracking["delivered"]:
        print_line(f"MLflow ({tracking['uri']}) does not have all of it: {tracking['reason']}")
    for name, files in data["tables"].items():
        print_line(f"{name}: {', '.join(str(file) for file in files.values())}")
    index = folder / "report" / "index.html"
    if index.is_file():
        print_line(f"report: {index}")


def print_summary(data: CorpusSummary) -> None:
    """Print what a corpus holds; of personal data the kinds and places alone.

    Args:
        data: as `summarise` has it.
    """
    left_out = data["identifier_places_left_out"]
    for key, value in data.items():
        if key == "identifier_places_left_out":
            continue
        if key == "identifier_places":
            for place in data["identifier_places"]:
                turn = "its name" if place["turn"] is None else f"turn {place['turn']}"
                count = f" ({place['count']})" if place["count"] > 1 else ""
                print_line(f"  {place['kind']}: session {place['session']}, {turn}{count}")
            if left_out:
                print_line(f"  ... and {left_out} more places")
        elif isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items())
            print_line(f"{key}: {shown or 'none'}")
        elif isinstance(value, list):
            print_line(f"{key}: {len(value)}")
            for line in value:
                print_line(f"  {line}")
        else:
            print_line(f"{key}: {value}")


def show_without_secrets(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What Python prints of an error that nobody expected, passwords and tokens hidden."""
    sys.stderr.write(hide_secrets("".join(traceback.format_exception(kind, error, trace))))
