"""How every room says that an input is wrong: all problems at once, each with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from search_spaces.controls import escape_controls

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input, in words that lead to its repair."""

    file: str
    """The file (or command-line option) the value came from."""
    place: str
    """Where in the file: a YAML path, a line, a column."""
    message: str
    """The rule that does not hold, then the evidence."""
    value: str = ""
    """The offending value as it was written; empty where there is none."""
    nearest: str = ""
    """The nearest valid choice; empty where nothing is near."""

    def __str__(self) -> str:
        """One line: `file: place: message, got value; did you mean nearest?`."""
        text = ": ".join(part for part in (self.file, self.place, self.message) if part)
        if self.value:
            text += f", got {self.value}"
        if self.nearest:
            text += f"; did you mean {self.nearest}?"
        return escape_controls(text)


class InputError(Exception):
    """Root of every error that is the user's to mend; the command line exits with 2.

    Args:
        problems: everything that is wrong, in the order it was found; at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        """Pickle by problems, so that the error survives the way back from a Ray worker."""
        return (type(self), (self.problems,))


class SearchSpaceError(InputError, ValueError):
    """A search space, or an override of it, does not say what to run."""


def nearest_choice(value: object, choices: Iterable[str]) -> str:
    """The choice most like `value`, or an empty string where none is near.

    Args:
        value: what was written; a choice's initials (`lr`) mean that choice.
        choices: what would have been right.
    """
    word, choices = str(value).lower(), list(choices)
    for choice in choices:
        if "_" in choice and word == "".join(part[:1] for part in choice.split("_")):
            return choice
    matches = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return matches[0] if matches else ""


def shown_value(value: object) -> str:
    """A value as a message shows it: as Python writes it, cut where it is long.

    Args:
        value: what was written.
    """
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def one_problem(
    file: str, place: str, message: str, value: object = "", nearest: str = ""
) -> tuple[Problem, ...]:
    """A tuple of a single problem, for errors that have just one."""
    shown = "" if value == "" else repr(value) if isinstance(value, str) else str(value)
    return (Problem(file, place, message, shown, nearest),)
