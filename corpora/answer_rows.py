"""What one row of a question-answer file says: its id, its question, an answer, or both in one text."""

from __future__ import annotations

import re

from corpora.cells import text_of
from corpora.findings import Findings
from corpora.table import Row, Table

_ID = "id"
_HUMAN, _ASSISTANT = "Human:", re.compile(r"\n\s*Assistant:")
"""How a question and its answer are written as one text in published comparisons."""

_NOTHING = "None"
"""What a missing answer became in published files, and would be learnt as the best one."""


def row_ids(table: Table, findings: Findings) -> list[str]:
    """The id of each row: as it is written, or the row's number where the file has no ids.

    Args:
        table: the file.
        findings: gets ids that are missing, empty or stand twice.
    """
    if _ID not in table.columns:
        return [str(number) for number, _ in enumerate(table.rows, start=1)]
    lines: dict[str, int] = {}
    ids: list[str] = []
    for row in table.rows:
        identity = words_of(table, row, _ID, findings)
        if identity and lines.setdefault(identity, row.line) != row.line:
            message = f"an id must stand once, but it also stands in line {lines[identity]}"
            findings.error(table.file, f"line {row.line}, key {_ID}", message, identity)
        ids.append(identity or "")
    return ids


def words_of(table: Table, row: Row, key: str, findings: Findings) -> str | None:
    """The text under a key on one line; None, with an error, where there is none."""
    text = answer_of(table, row, key, findings)
    if text == "":
        findings.error(table.file, f"line {row.line}, key {key}", "the text must not be empty")
        return None
    return text


def answer_of(table: Table, row: Row, key: str, findings: Findings) -> str | None:
    """The answer under a key on one line, maybe empty; None, with an error, where it is no text."""
    text = text_of(table, row, key, findings)
    return None if text is None else " ".join(text.split())


def turns_of(table: Table, row: Row, key: str, findings: Findings) -> tuple[str, str] | None:
    """Question and last answer, maybe empty, of one text; None, with an error, where it has not both."""
    text = text_of(table, row, key, findings)
    if text is None:
        return None
    marks = list(_ASSISTANT.finditer(text))
    start, end = marks[-1].span() if marks else (0, 0)
    question = " ".join(text[:start].strip().removeprefix(_HUMAN).split())
    if not (question and text.lstrip().startswith(_HUMAN)):
        message = 'the text must be "Human: ...", and on a line of its own "Assistant: ..."'
        findings.error(table.file, f"line {row.line}, key {key}", message)
        return None
    return question, " ".join(text[end:].split())


def leaves_out(table: Table, row: Row, answers: tuple[str, ...], findings: Findings) -> bool:
    """Whether a row counts for nothing, because one of its answers is none; that is noted."""
    if all(answer not in ("", _NOTHING) for answer in answers):
        return False
    kind = f"a row whose answer is empty or the bare word {_NOTHING} was left out"
    findings.oddity(table.file, f"line {row.line}", kind)
    return True
