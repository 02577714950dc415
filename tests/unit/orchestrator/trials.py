"""Planned trials and their results, as tests of the orchestrator need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.plan import PlannedTrial
from orchestrator.storage import SweepFolder, write_json
from search_spaces.identity import spec_to_dict, trial_name
from search_spaces.spec import (
    BaseSettings,
    DeltaSettings,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from trainers.pretrained import Pretrained


def spec(
    seed: int = 0,
    method: BaseSettings | SftSettings | DeltaSettings | None = None,
    **training: Any,
) -> TrialSpec:
    return TrialSpec(
        model="tiny", method=method or SftSettings(), seed=seed, training=TrainingSpec(**training)
    )


def planned(trial_id: str, one: TrialSpec | None = None) -> PlannedTrial:
    one = one or spec()
    return PlannedTrial(trial_id, trial_name(one), one, Pretrained("tiny", None, "tiny"), inputs={})


def write_result(folder: SweepFolder, trial_id: str, **scores: float) -> Path:
    """A trial's result, its scores on the validation pairs."""
    result = {
        "id": trial_id,
        "status": "done",
        "spec": spec_to_dict(spec()),
        "scores": {f"valid/{name}": value for name, value in scores.items()},
    }
    file = folder.trial(trial_id) / "result.json"
    write_json(file, result)
    return file


def write_failure(folder: SweepFolder, trial_id: str) -> Path:
    file = folder.trial(trial_id) / "failure.json"
    write_json(file, {"id": trial_id, "status": "failed", "reason": "diverged"})
    return file
