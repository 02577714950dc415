"""A prepared sweep as the tracking thread sees it: its plan, its events, and what it says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from orchestrator.events import TrialDone, TrialEvent, TrialFailed, TrialProgressed, TrialStarted
from reports.results import FailedTrial, TrialResult, read_sweep
from reports.trial_files import read_steps
from search_spaces.identity import spec_from_dict


class Lines:
    """A display that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def count(self, words: str) -> int:
        return sum(words in line for line in self.said)


def plan_of(folder: Path) -> Any:
    """As much of a plan as the thread looks at."""
    sweep = read_sweep(folder)
    trials = [
        SimpleNamespace(id=t.id, name=t.name, spec=spec_from_dict(dict(t.spec)))
        for t in sweep.trials.values()
    ]
    return SimpleNamespace(
        space=SimpleNamespace(name=sweep.name),
        scale=SimpleNamespace(scale=sweep.scale),
        corpus=SimpleNamespace(content_hash=sweep.corpus.content_hash),
        by_id={trial.id: trial for trial in trials},
        stages_of=lambda trial_id: sweep.trials[trial_id].stages,
    )


def events_of(folder: Path, trial_id: str) -> list[TrialEvent]:
    """What a trial's worker would have told, from what it left."""
    trial = read_sweep(folder).trials[trial_id]
    events: list[TrialEvent] = [TrialStarted(trial_id)]
    steps = read_steps(folder / "trials" / trial_id)
    loss = None
    for step in steps:
        loss = step.train_loss or loss
        if step.valid_loss is not None:
            events.append(
                TrialProgressed(trial_id, 1.0, step.step, len(steps), loss, step.valid_loss)
            )
    if isinstance(trial, TrialResult):
        events.append(TrialDone(trial_id, {}))
    elif isinstance(trial, FailedTrial):
        events.append(TrialFailed(trial_id, trial.reason, trial.message))
    return events
