"""What a reader finds wrong while it reads on: errors that stop it in the end, oddities that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from corpora.dialogue import CorpusError
from search_spaces.errors import Problem

MAX_PROBLEMS_PER_FILE = 20
MAX_PROBLEMS = 100
MAX_VALUE_CHARACTERS = 40


@dataclass
class _Group:
    """Oddities of one kind in one file."""

    count: int
    place: str
    value: str


class Findings:
    """Gathers the problems of all files of a corpus, so that a user sees them at once."""

    def __init__(self) -> None:
        self._errors: dict[str, list[Problem]] = {}
        self._oddities: dict[tuple[str, str], _Group] = {}

    def error(
        self, file: str, place: str, message: str, value: object = "", nearest: str = ""
    ) -> None:
        """Note something that must be mended before the corpus can be used.

        Args:
            file: the file it stands in.
            place: line and column.
            message: the rule that does not hold.
            value: the offending value; never an utterance, which is sensitive.
            nearest: the nearest valid choice.
        """
        problem = Problem(file, place, message, shown(value), nearest)
        self._errors.setdefault(file, []).append(problem)

    def oddity(self, file: str, place: str, kind: str, value: object = "") -> None:
        """Note something odd that the reader has dealt with; counted by kind and file.

        Args:
            file: the file it stands in.
            place: where; the first of a kind is shown.
            kind: what is odd and what was done about it, the same words each time.
            value: an example; never an utterance.
        """
        group = self._oddities.get((file, kind))
        if group is None:
            self._oddities[file, kind] = _Group(1, place, shown(value))
        else:
            group.count += 1

    @property
    def oddities(self) -> tuple[Problem, ...]:
        """One problem per kind and file, with its count and its first example."""
        return tuple(
            Problem(
                file,
                group.place,
                kind if group.count == 1 else f"{kind} ({group.count} times, the first here)",
                group.value,
            )
            for (file, kind), group in self._oddities.items()
        )

    @property
    def failed(self) -> bool:
        """Whether anything must be mended."""
        return bool(self._errors)

    def failure(self) -> CorpusError:
        """Every error so far, by file and line, ready to be raised; long lists end in `... and N more`."""
        problems: list[Problem] = []
        for file, errors in self._errors.items():
            found = sorted(errors, key=_line)
            problems.extend(found[:MAX_PROBLEMS_PER_FILE])
            if len(found) > MAX_PROBLEMS_PER_FILE:
                more = len(found) - MAX_PROBLEMS_PER_FILE
                problems.append(Problem(file, "", f"... and {more} more"))
        if len(problems) > MAX_PROBLEMS:
            more = len(problems) - MAX_PROBLEMS
            problems[MAX_PROBLEMS:] = [Problem("", "", f"... and {more} more in other files")]
        return CorpusError(problems)


def _line(problem: Problem) -> int:
    """The line a problem is in, so that a file's problems read downwards; 0 for the whole file."""
    match = re.match("line ([0-9]+)", problem.place)
    return int(match[1]) if match else 0


def shown(value: object) -> str:
    """The value as a problem shows it: strings in quotes, shortened; nothing for an empty string."""
    if not isinstance(value, str):
        return str(value)
    if not value:
        return ""
    cut = value if len(value) <= MAX_VALUE_CHARACTERS else value[: MAX_VALUE_CHARACTERS - 3] + "..."
    return repr(cut)
