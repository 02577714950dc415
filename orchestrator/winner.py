"""The winner of a stage: the settings whose validation score is best, averaged over seeds."""

from __future__ import annotations

import dataclasses
from collections import Counter
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

    Failed trials do not compete, and trials that were stopped early do not either. Settings of
    which only the better seeds came to their end would have an advantage: where seeds were stopped
    early, those settings compete that lack the fewest. Ties go to the settings that the search space names first.

    Args:
        rule: metric and direction.
        trials: of the stage it chooses from.
        folder: where their results are.
    """
    groups: dict[TrialSpec, list[tuple[str, float]]] = {}
    stopped: Counter[TrialSpec] = Counter()
    for trial in trials:
        settings = dataclasses.replace(trial.spec, seed=0)
        result = folder.result(trial.id)
        if result is None:
            if folder.failure(trial.id) is not None:
                continue
            if not folder.is_stopped_early(trial.id):
                return None
            stopped[settings] += 1
            continue
        score = result["scores"].get(rule.best)
        if score is not None:
            groups.setdefault(settings, []).append((trial.id, float(score)))
    if not groups:
        return None
    fewest = min(stopped[settings] for settings in groups)
    groups = {one: scored for one, scored in groups.items() if stopped[one] == fewest}
    sign = 1.0 if rule.mode == "max" else -1.0
    spec, scored = max(groups.items(), key=lambda group: sign * fmean(s for _, s in group[1]))
    best = fmean(score for _, score in scored)
    ties = sum(fmean(s for _, s in other) == best for other in groups.values()) - 1
    return Winner(scored[0][0], spec, best, ties)
