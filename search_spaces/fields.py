"""The table of every field a trial has: where it lives, what it may be, who reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from search_spaces.errors import Problem, nearest_choice
from search_spaces.spec import (
    BaseSettings,
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    MethodSettings,
    MetricsSpec,
    SftSettings,
    SplitSpec,
    TrainingSpec,
    TrialSpec,
)

PARTS: dict[str, type] = {
    "corpus": CorpusSpec,
    "split": SplitSpec,
    "training": TrainingSpec,
    "decoding": DecodingSpec,
    "metrics": MetricsSpec,
}
"""The parts of a trial's specification, by the field that holds them."""

METHODS: dict[str, type] = {"base": BaseSettings, "sft": SftSettings, "delta": DeltaSettings}
"""Settings class of each method, by its kind."""

_OWN = ("model", "loader", "seed")


@dataclass(frozen=True)
class TrialField:
    """One settable field of a trial."""

    name: str
    part: str
    """Field of `TrialSpec` that holds it; empty for its own fields; `method` for a method's."""
    annotation: Any


@cache
def trial_fields() -> Mapping[str, TrialField]:
    """Every field that a search space may set, by its bare name (a method's own fields included)."""
    hints = get_type_hints(TrialSpec, include_extras=True)
    fields = {name: TrialField(name, "", hints[name]) for name in _OWN}
    for part, cls in PARTS.items():
        for name, hint in get_type_hints(cls, include_extras=True).items():
            fields[name] = TrialField(name, part, hint)
    for cls in METHODS.values():
        for name, hint in get_type_hints(cls, include_extras=True).items():
            if name != "kind":
                fields[name] = TrialField(name, "method", hint)
    return fields


@cache
def method_fields(kind: str) -> frozenset[str]:
    """Bare names of the settings that a method of this kind has, `kind` left out."""
    return frozenset(f.name for f in dataclasses.fields(METHODS[kind])) - {"kind"}


def is_list_field(name: str) -> bool:
    """Whether one value of the field is itself a list (`beams`, `target_modules`)."""
    return "tuple" in str(trial_fields()[name].annotation)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(trial_fields()[name].annotation)


def check_value(name: str, value: object, file: str, place: str) -> tuple[Any, list[Problem]]:
    """A field's value in its proper type, or what is wrong with it.

    Numbers may be written as text, because YAML 1.1 reads `5e-5` as text.

    Args:
        name: the field's bare name; must be in `trial_fields()`.
        value: as the file has it.
        file: for messages.
        place: for messages.
    """
    if isinstance(value, bool) and "bool" not in str(trial_fields()[name].annotation):
        return None, [
            Problem(
                file, place, "a number or text is needed, not a truth value", str(value).lower()
            )
        ]
    try:
        return _adapter(name).validate_python(value), []
    except ValidationError as error:
        return None, problems_of(error, file, place, value)


def problems_of(
    error: ValidationError, file: str, place: str, value: object = None
) -> list[Problem]:
    """A validation error's findings as problems, alternatives of a union told once.

    Args:
        error: from pydantic.
        file: for messages.
        place: of the value that was validated.
        value: that value.
    """
    problems: dict[str, Problem] = {}
    for finding in error.errors():
        where = place + "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}"
            for step in finding["loc"]
            if isinstance(step, int) or step.isidentifier()
        )
        got = finding.get("input", value)
        choices = _literal_choices(finding)
        message = f"must be {', '.join(choices)}" if choices else _plain(finding["msg"])
        problems.setdefault(
            where, Problem(file, where, message, repr(got), nearest_choice(got, choices))
        )
    return list(problems.values())


def unknown_name(name: object, known: Iterable[str], what: str, file: str, place: str) -> Problem:
    """The problem that a name is not among those known.

    Args:
        name: as written.
        known: what would be right.
        what: what the name should be, e.g. `field`.
        file: for messages.
        place: for messages.
    """
    names = sorted(known)
    return Problem(
        file,
        place,
        f"unknown {what} (known: {', '.join(names)})",
        repr(name),
        nearest_choice(name, names),
    )


def choices_of(name: str) -> tuple[str, ...]:
    """The words a field may be, where it is a choice; else nothing."""
    return tuple(str(choice) for choice in get_args(trial_fields()[name].annotation))


def _literal_choices(finding: Any) -> list[str]:
    if finding["type"] != "literal_error":
        return []
    return [part.strip(" '") for part in finding["ctx"]["expected"].replace(" or ", ",").split(",")]


def _plain(message: str) -> str:
    return (
        message.removeprefix("Input should be ")
        .replace("Input should", "should")
        .join(("must be ", "") if message.startswith("Input should be ") else ("", ""))
    )


def method_adapter() -> TypeAdapter[Any]:
    """Validates one entry of `methods`."""
    return TypeAdapter(MethodSettings)
