"""The winner of a stage: the settings whose validation score is best, averaged over seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from statistics import fmean
from typing import TYPE_CHECKING

from orchestrator.storage import SweepFolder
from search_spaces.space import WinnerOf
from search_spaces.spec import TrialSpec

if TYPE_CHECKING:
    from orchestrator.plan import PlannedTrial


@dataclasses.dataclass(frozen=True)
class Winner:
    """The best settings of a stage."""

    trial_id: str
    """Of their first seed's trial."""
    spec: TrialSpec
    score: float
    """Mean over seeds of the metric that chose it."""
    ties: int = 0
    """Other settings with the same score, named later in the search space."""


def choose_winner(
    rule: WinnerOf, trials: Iterable[PlannedTrial], folder: SweepFolder
) -> Winner | None:
    """The winner, once every trial of the stage is done or has failed; None before that.

    Failed trials do not compete. Ties go to the settings that the search space names first.

    Args:
        rule: metric and direction.
        trials: of the stage it chooses from.
        folder: where their results are.
    """
    groups: dict[TrialSpec, list[tuple[str, float]]] = {}
    for trial in trials:
        result = folder.result(trial.id)
        if result is None:
            if folder.failure(trial.id) is None:
                return None
            continue
        score = result["scores"].get(rule.best)
        if score is not None:
            settings = dataclasses.replace(trial.spec, seed=0)
            groups.setdefault(settings, []).append((trial.id, float(score)))
    if not groups:
        return None
    sign = 1.0 if rule.mode == "max" else -1.0
    spec, scored = max(groups.items(), key=lambda group: sign * fmean(s for _, s in group[1]))
    best = fmean(score for _, score in scored)
    ties = sum(fmean(s for _, s in other) == best for other in groups.values()) - 1
    return Winner(scored[0][0], spec, best, ties)
