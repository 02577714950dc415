"""Which trials train together: those that share a frozen base, cut so that every slot has work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from orchestrator.trial import TrialWork
from search_spaces.identity import spec_from_dict
from search_spaces.spec import RlSettings
from trainers.fusing import fuse_key

MOST_MEMBERS = 16
"""More gain little, and lose more where a worker dies."""

Group = tuple[TrialWork, ...]
"""Trials that one worker runs; one alone is trained as ever."""


def group_trials(
    work: Sequence[TrialWork],
    slots: int,
    fits: Callable[[Group], bool],
    most_members: int = MOST_MEMBERS,
) -> list[Group]:
    """Trials in groups that train together, the largest first; then long trials, then the rest.

    Trials of a kind are spread over all slots before any of them share one: a group of two on one
    core is slower than two trials on two.

    Args:
        work: the trials.
        slots: groups that run at once.
        fits: whether a group fits the memory of a slot; one trial alone is not asked about.
        most_members: of a group; 1 groups nothing.
    """
    kinds: dict[object, list[TrialWork]] = {}
    for one in work:
        key = fuse_key(spec_from_dict(one.spec))
        # A trial that shares nothing is a kind of its own.
        kinds.setdefault(one.id if key is None else (one.model_fingerprint, key), []).append(one)
    groups = []
    for members in kinds.values():
        parts = max(slots, math.ceil(len(members) / most_members))
        cut = _cut(members, parts)
        while not all(len(group) == 1 or fits(group) for group in cut):
            parts += 1
            cut = _cut(members, parts)
        groups += cut
    return sorted(groups, key=lambda group: (-len(group), not _is_long(group[0])))


def _is_long(work: TrialWork) -> bool:
    """Whether a trial takes several times as long as others: it should not be the last alone."""
    method = spec_from_dict(work.spec).method
    return isinstance(method, RlSettings) and method.rl != "none"


def _cut(members: Sequence[TrialWork], parts: int) -> list[Group]:
    """Members dealt out to at most so many parts, whose sizes differ by one at most."""
    return [tuple(members[part::parts]) for part in range(min(parts, len(members)))]
