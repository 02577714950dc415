"""What a reader finds wrong while it reads on: errors that stop it in the end, oddities that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from corpora.dialogue import CorpusError
from corpora.privacy import redact
from search_spaces.errors import Problem
from search_spaces.spec import Privacy

MAX_PROBLEMS_PER_FILE = 20
MAX_PROBLEMS = 100
MAX_VALUE_CHARACTERS = 40
_MOST_CHARACTERS_REDACTED = 4000
"""Of a message or a value; no more of it is shown."""


@dataclass
class _Group:
    """Oddities of one kind in one file."""

    count: int
    place: str
    value: str


class Findings:
    """Gathers the problems of all files of a corpus, so that a user sees them at once.

    Args:
        privacy: the corpus's setting; unless it is `off`, what problems quote is redacted: in a file
            whose columns are not what they seem, any cell may be an utterance.
    """

    def __init__(self, privacy: Privacy = "redact") -> None:
        self._privacy = privacy
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
        problem = Problem(
            file,
            place,
            str(self._passed(message)),
            shown(self._passed(value)),
            str(self._passed(nearest)),
        )
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
            self._oddities[file, kind] = _Group(1, place, shown(self._passed(value)))
        else:
            group.count += 1

    def _passed(self, value: object) -> object:
        if self._privacy == "off" or not isinstance(value, str):
            return value
        # Headers and rules are full of words that a recogniser may take for names.
        return redact(value[:_MOST_CHARACTERS_REDACTED], names=False)

    @property
    def oddities(self) -> tuple[Problem, ...]:
        """One problem per kind and file, with its count and its first example; the first of many."""
        problems = [
            Problem(
                file,
                group.place,
                kind if group.count == 1 else f"{kind} ({group.count} times, the first here)",
                group.value,
            )
            for (file, kind), group in self._oddities.items()
        ]
        if len(problems) > MAX_PROBLEMS:
            more = len(problems) - MAX_PROBLEMS
            problems[MAX_PROBLEMS:] = [Problem("", "", f"... and {more} more")]
        return tuple(problems)

    @property
    def failed(self) -> bool:
        """Whether anything must be mended."""
        return bool(self._errors)

    def failed_in(self, file: str) -> bool:
        """Whether anything in a file must be mended.

        Args:
            file: as its problems name it.
        """
        return file in self._errors

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
