"""Search spaces that tests write for themselves."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from search_spaces.errors import SearchSpaceError
from search_spaces.expand import expand_stage
from search_spaces.overrides import apply_settings
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import Scale, TrialSpec
from search_spaces.yaml_file import parse_yaml

FILE = "grid.yaml"


def space(text: str, *settings: str) -> SearchSpace:
    """The search space of a YAML text, its indentation taken off."""
    return apply_settings(parse_space(parse_yaml(FILE, textwrap.dedent(text))), settings)


def one_stage(stage: str, *settings: str, top: str = "defaults: {model: medium}") -> SearchSpace:
    """A space of one stage, its keys written as a YAML text."""
    lines = textwrap.indent(textwrap.dedent(stage).strip("\n"), "    ")
    return space(f"name: tiny\n{top}\nstages:\n  - name: only\n{lines}\n", *settings)


def trials(
    one: SearchSpace,
    stage: int = 0,
    *,
    scale: Scale = "paper",
    corpus: str | None = None,
    winner: TrialSpec | None = None,
) -> tuple[TrialSpec, ...]:
    return expand_stage(one, one.stages[stage], scale, corpus, winner)


def problems(text: str, *settings: str) -> list[str]:
    """What is wrong with a YAML text, a line a problem."""
    with pytest.raises(SearchSpaceError) as caught:
        space(text, *settings)
    return [str(problem) for problem in caught.value.problems]


def stage_problems(stage: str, **others: Any) -> list[str]:
    with pytest.raises(SearchSpaceError) as caught:
        one_stage(stage, **others)
    return [str(problem) for problem in caught.value.problems]
