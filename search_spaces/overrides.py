"""`--set key=value`: the command line's word over a search space's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from search_spaces.early_stop import read_early_stop
from search_spaces.errors import Problem, SearchSpaceError, nearest_choice, shown_value
from search_spaces.fields import check_value, is_list_field, trial_fields
from search_spaces.space import NAME_RULE, SearchSpace, is_name
from search_spaces.spec import ColumnMapping
from search_spaces.yaml_file import parse_value

_OPTION = "--set"


def apply_settings(space: SearchSpace, settings: tuple[str, ...]) -> SearchSpace:
    """The search space with fields set from the command line.

    A setting replaces defaults, scale settings and axes; a list of values becomes an axis of every
    stage that is not built on a winner. What a `methods` entry says of itself stays, because it is
    what makes that row.

    Args:
        space: as its file says.
        settings: `key=value`, values written as in YAML; `seeds`, `early_stop` and `name` can be
            set too.

    Raises:
        SearchSpaceError: with everything that is wrong.
    """
    problems: list[Problem] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key:
            message = "must be written key=value"
            problems.append(Problem(_OPTION, "", message, shown_value(setting)))
            continue
        try:
            value = parse_value(_OPTION, text)
        except SearchSpaceError:
            message = "the value is not plain YAML"
            problems.append(Problem(_OPTION, key, message, shown_value(text)))
            continue
        space, wrong = _apply(space, key, value)
        problems += wrong
    if problems:
        raise SearchSpaceError(problems)
    return space


def mapping_of(settings: Sequence[str]) -> ColumnMapping:
    """A column mapping from `key=column` settings.

    Args:
        settings: keys are fields of `ColumnMapping`; `patient` and `therapist` take names
            separated by commas.

    Raises:
        SearchSpaceError: an unknown key, a key without a column, or a needed one left out.
    """
    given: dict[str, Any] = {}
    problems: list[Problem] = []
    known = [field.name for field in fields(ColumnMapping)]
    for setting in settings:
        key, _, column = setting.partition("=")
        if key not in known or not column:
            message = f"must be KEY=COLUMN with KEY one of {', '.join(known)}"
            near = nearest_choice(key, known)
            problems.append(Problem("--columns", "", message, repr(setting), near))
        else:
            given[key] = tuple(column.split(",")) if key in ("patient", "therapist") else column
    problems += [
        Problem("--columns", "", f"`{key}=COLUMN` is missing")
        for key in ("session", "speaker", "text")
        if key not in given and not problems
    ]
    if problems:
        raise SearchSpaceError(problems)
    return ColumnMapping(**given)


def _apply(space: SearchSpace, key: str, value: Any) -> tuple[SearchSpace, list[Problem]]:
    if key == "name":
        if not is_name(value):
            return space, [Problem(_OPTION, key, NAME_RULE, shown_value(value))]
        return replace(space, name=value), []
    if key == "seeds":
        seeds, problems = _values("seed", key, value if isinstance(value, list) else [value])
        stages = tuple(replace(stage, seeds=tuple(seeds)) for stage in space.stages)
        return replace(space, stages=stages), problems
    if key == "early_stop":
        rule, problems = read_early_stop(value, _OPTION, key)
        stages = tuple(replace(stage, early_stop=rule) for stage in space.stages)
        return replace(space, stages=stages), problems
    if key not in trial_fields():
        near = nearest_choice(key, [*trial_fields(), "seeds", "early_stop", "name"])
        return space, [Problem(_OPTION, key, "unknown field", shown_value(key), near)]
    many = isinstance(value, list) and not (
        is_list_field(key) and not any(isinstance(one, list) for one in value)
    )
    values, problems = _values(key, key, value if many else [value])
    if problems:
        return space, problems
    if key == "seed":
        stages = tuple(replace(stage, seeds=tuple(values)) for stage in space.stages)
        return replace(space, stages=stages), []
    stages = tuple(
        replace(
            stage,
            grid=_without(stage.grid, key)
            | ({key: tuple(values)} if len(values) > 1 and stage.winner_of is None else {}),
            zipped=_without(stage.zipped, key),
        )
        for stage in space.stages
    )
    fixed = {**space.fixed, key: values[0]} if len(values) == 1 else _without(space.fixed, key)
    return replace(space, stages=stages, fixed=fixed), []


def _values(field: str, key: str, listed: list[Any]) -> tuple[list[Any], list[Problem]]:
    values: list[Any] = []
    problems: list[Problem] = []
    if not listed:
        problems.append(Problem(_OPTION, key, "needs at least one value", "[]"))
    for one in listed:
        checked, wrong = check_value(field, one, _OPTION, key)
        problems += wrong
        if not wrong and checked not in values:
            values.append(checked)
    return values, problems


def _without(mapping: Any, key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}
