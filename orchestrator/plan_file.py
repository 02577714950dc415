"""The plan as JSON text: what `plan --json` prints and `plan.json` holds, one trial a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.plan import Plan, PlannedStage, PlannedTrial
from orchestrator.storage import SweepFolder
from search_spaces.identity import spec_to_json
from search_spaces.secrets import hide_secrets

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def plan_lines(plan: Plan, folder: SweepFolder) -> Iterator[str]:
    """The plan as a JSON object, line by line: a plan of many trials is never one text.

    Args:
        plan: the plan.
        folder: the sweep's, for what is done already.
    """
    head = {
        "name": plan.space.name,
        "command": hide_secrets(plan.command),
        "scale": plan.scale.scale,
        "scale_reason": plan.scale.reason,
        "corpus": {
            "source": plan.corpus.source,
            "format": plan.corpus.format,
            "content_hash": plan.corpus.content_hash,
            "sessions": len(plan.corpus.dialogues),
        },
    }
    yield "{\n"
    for name, value in head.items():
        yield f'  "{name}": {_ENCODER.encode(value)},\n'
    yield from _list("stages", (_ENCODER.encode(_stage(stage, plan)) for stage in plan.stages))
    yield ",\n"
    statuses = folder.statuses(trial.id for trial in plan.trials)
    yield from _list(
        "trials",
        (
            _trial(trial, stage.stage.name, statuses[trial.id])
            for stage in plan.stages
            for trial in stage.trials
        ),
    )
    yield "\n}\n"


def _list(name: str, items: Iterator[str]) -> Iterator[str]:
    """A key of the object whose value is a list, one item a line."""
    yield f'  "{name}": ['
    between = "\n    "
    for item in items:
        yield between + item
        between = ",\n    "
    yield "\n  ]"


def _trial(trial: PlannedTrial, stage: str, status: str) -> str:
    head = _ENCODER.encode({"id": trial.id, "stage": stage, "name": trial.name, "status": status})
    return f'{head[:-1]}, "spec": {spec_to_json(trial.spec)}}}'


def _stage(stage: PlannedStage, plan: Plan) -> dict[str, Any]:
    source = stage.stage.winner_of
    chosen = next(
        (
            later.winner.trial_id
            for later in plan.stages
            if later.winner is not None
            and later.stage.winner_of is not None
            and later.stage.winner_of.stage == stage.stage.name
        ),
        None,
    )
    return {
        "name": stage.stage.name,
        "table": stage.stage.table,
        "from": None
        if source is None
        else {"stage": source.stage, "best": source.best, "mode": source.mode},
        "winner": chosen,
        "waits_for_winner": stage.waits,
        "trials": [trial.id for trial in stage.trials],
        "waiting": [
            {"kind": entry.settings.kind, "settings": entry_fields(entry)}
            for entry in stage.stage.methods
        ]
        if stage.waits
        else [],
    }


def entry_fields(entry: Any) -> Mapping[str, Any]:
    """What an entry of `methods` sets, by field.

    Args:
        entry: of a stage.
    """
    own = {name: getattr(entry.settings, name) for name in sorted(entry.written)}
    return own | dict(entry.overrides)
