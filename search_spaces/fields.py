"""The table of every field a trial has: where it lives, what it may be, who reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from search_spaces.errors import Problem, nearest_choice, shown_value
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    ColumnMapping,
    CorpusSpec,
    DecodingSpec,
    DeltaSettings,
    DialogueActSettings,
    Method,
    MetricsSpec,
    ReaderSettings,
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

METHODS: dict[str, type[Method]] = {
    "base": BaseSettings,
    "sft": SftSettings,
    "delta": DeltaSettings,
    "dialogue_act": DialogueActSettings,
    "chatmgl": ChatMglSettings,
    "reader": ReaderSettings,
}
"""Settings class of each method, by its kind."""

_WORDS = (
    ("Input should", "must"),
    ("String should", "must"),
    ("Tuple should", "must"),
    ("Field required", "is missing"),
    ("a valid tuple", "a list"),
    ("a dictionary or an instance of ColumnMapping", "a mapping"),
    (" after validation, not 0", ""),
)
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
    return TypeAdapter(trial_fields()[name].annotation, config=ConfigDict(allow_inf_nan=False))


def check_value(name: str, value: object, file: str, place: str) -> tuple[Any, list[Problem]]:
    """A field's value in its proper type, or what is wrong with it.

    Numbers may be written as text, because YAML 1.1 reads `5e-5` as text.

    Args:
        name: the field's bare name; must be in `trial_fields()`.
        value: as the file has it.
        file: for messages.
        place: for messages.
    """
    annotation = trial_fields()[name].annotation
    if value is False and "off" in get_args(annotation):
        value = "off"  # YAML 1.1 reads the word so.
    if "bool" not in str(annotation):
        # YAML 1.1 reads `yes`, `on` and `off` as truth values, and pydantic those as numbers.
        listed = value if isinstance(value, list) else [value]
        for one in listed:
            if isinstance(one, bool):
                message = "a number or text is needed, not a truth value"
                return None, [Problem(file, place, message, str(one).lower())]
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
    path, of_line, line = place.partition(" (line ")
    for finding in error.errors():
        if finding["type"] == "too_short" and finding["input"]:
            continue  # Too short only because its items are wrong, which is told.
        steps = "".join(
            f"[{step}]" if isinstance(step, int) else f".{step}"
            for step in finding["loc"]
            if isinstance(step, int) or step.isidentifier()
        )
        where = f"{path}{steps}{of_line}{line}"
        got = finding.get("input", value)
        choices = _literal_choices(finding)
        if choices:
            message = f"must be {', '.join(choices)}"
        elif finding["type"] == "unexpected_keyword_argument":
            got = finding["loc"][-1]
            choices = [field.name for field in dataclasses.fields(ColumnMapping)]
            message = f"unknown key (known: {', '.join(choices)})"
        else:
            message = _plain(finding["msg"])
        problems.setdefault(
            where, Problem(file, where, message, shown_value(got), nearest_choice(got, choices))
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
        shown_value(name),
        nearest_choice(name, names),
    )


def _literal_choices(finding: Any) -> list[str]:
    if finding["type"] != "literal_error":
        return []
    return [part.strip(" '") for part in finding["ctx"]["expected"].replace(" or ", ",").split(",")]


def _plain(message: str) -> str:
    """Pydantic's words in ours: `must be ...`, lists and mappings as YAML calls them."""
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    return message
