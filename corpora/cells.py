"""What one cell of a row means: a text, a number, a speaker, an utterance."""

from __future__ import annotations

import re
from dataclasses import dataclass

from corpora.dialogue import Speaker
from corpora.findings import Findings
from corpora.table import Row, Table, nearest_name

MAX_SESSION_CHARACTERS = 200
MAX_UTTERANCE_CHARACTERS = 1 << 20
_NUMBER = re.compile(r"\+?[0-9]{1,12}(?:\.0{1,6})?")
# Every control character but tab, line feed and carriage return.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile(r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]*")


@dataclass(frozen=True)
class SpeakerNames:
    """Which words name the patient, and which the therapist (case-insensitive)."""

    patient: tuple[str, ...]
    therapist: tuple[str, ...]

    def speaker(self, word: str) -> Speaker | None:
        """Whom the word names; None where nobody."""
        key = word.strip().casefold()
        if key in (name.strip().casefold() for name in self.patient):
            return "patient"
        if key in (name.strip().casefold() for name in self.therapist):
            return "therapist"
        return None


def text_of(table: Table, row: Row, column: str, findings: Findings) -> str | None:
    """The cell as text; empty for JSON's null; None, with an error, where it is no text or number."""
    if column not in row.cells:
        findings.error(
            table.file,
            f"line {row.line}",
            f"key {column} must be in every object",
            nearest=nearest_name(column, row.cells),
        )
        return None
    value = row.cells[column]
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        findings.error(
            table.file, _place(row, column), "a cell must be text or a number", type(value).__name__
        )
        return None
    text = str(value)
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        findings.error(
            table.file,
            _place(row, column),
            "text must be Unicode, but half a character stands alone",
        )
        return None
    return text


def number_of(table: Table, row: Row, column: str, findings: Findings) -> int | None:
    """The cell as a whole number from 0; None, with an error, where it is none."""
    text = text_of(table, row, column, findings)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        findings.error(
            table.file,
            _place(row, column),
            "a turn must be a whole number from 0",
            text or "nothing",
        )
        return None
    return int(text.strip().split(".")[0])


def session_of(table: Table, row: Row, column: str, findings: Findings) -> str | None:
    """The cell as the name of a session; None, with an error, where it names none."""
    text = text_of(table, row, column, findings)
    if text is None:
        return None
    text = " ".join(text.split())
    if not text:
        findings.error(table.file, _place(row, column), "every row must name its session")
        return None
    if len(text) > MAX_SESSION_CHARACTERS:
        findings.error(
            table.file,
            _place(row, column),
            f"a session's name must have at most {MAX_SESSION_CHARACTERS} characters",
            len(text),
        )
        return None
    return text


def speaker_of(
    table: Table, row: Row, column: str, names: SpeakerNames, findings: Findings
) -> Speaker | None:
    """Who speaks; None, with an error, where the cell names neither."""
    text = text_of(table, row, column, findings)
    if text is None:
        return None
    speaker = names.speaker(text)
    if speaker is None:
        choices = names.patient + names.therapist
        findings.error(
            table.file,
            _place(row, column),
            f"the speaker must be one of {', '.join(choices)}",
            text.strip() or "nothing",
            nearest_name(text, choices),
        )
    return speaker


def utterance_of(table: Table, row: Row, column: str, findings: Findings) -> str | None:
    """The utterance on one line, single-spaced and without control characters.

    Returns:
        The utterance; empty, with an oddity, where nothing was said; None, with an error, where
        the cell is no text.
    """
    text = text_of(table, row, column, findings)
    if text is None:
        return None
    place = _place(row, column)
    if len(text) > MAX_UTTERANCE_CHARACTERS:
        findings.error(
            table.file,
            place,
            f"a cell must hold at most {MAX_UTTERANCE_CHARACTERS:,} characters",
            len(text),
        )
        return None
    if _CONTROL.search(text):
        findings.oddity(table.file, place, "control characters in an utterance were taken out")
        text = _CONTROL.sub(_without_control, text)
    text = " ".join(text.split())
    if _INVISIBLE.fullmatch(text):
        findings.oddity(table.file, place, "a row without an utterance was left out")
        return ""
    return text


def _without_control(match: re.Match[str]) -> str:
    # Vertical tab, form feed and the separators keep words apart; the others just vanish.
    return " " if match.group().isspace() else ""


def _place(row: Row, column: str) -> str:
    return f"line {row.line}, column {column}"
