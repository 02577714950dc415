"""Whether an answer is labelled good or bad, in the words of any common scheme."""

from __future__ import annotations

from corpora.cells import text_of
from corpora.findings import Findings
from corpora.table import Row, Table, nearest_name

LABEL = "label"

_SCHEMES = (
    ("1", "0"),
    ("true", "false"),
    ("good", "bad"),
    ("positive", "negative"),
    ("chosen", "rejected"),
    ("preferred", "rejected"),
)
"""What a good answer is called, and a bad one."""


def read_labels(table: Table, findings: Findings) -> list[bool | None]:
    """Whether each row's answer is good; None, with an error, where its label does not say.

    Args:
        table: a file of labelled answers.
        findings: gets labels of no scheme, or of another one than the labels before.
    """
    labels: list[bool | None] = []
    possible = set(_SCHEMES)
    first: tuple[str, int] | None = None
    for row in table.rows:
        word = _word(table, row, findings)
        fitting = {scheme for scheme in _SCHEMES if word in scheme}
        if word is not None and not fitting:
            _refuse(table, row, word, findings)
        elif word is not None and first is not None and not fitting & possible:
            message = f"all labels must be of one scheme, but line {first[1]} has {first[0]!r}"
            findings.error(table.file, _place(row), message, word)
        elif word is not None:
            first = first or (word, row.line)
            possible &= fitting
        labels.append(any(word == good for good, _ in fitting) if fitting else None)
    return labels


def _word(table: Table, row: Row, findings: Findings) -> str | None:
    value = row.cells.get(LABEL)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = text_of(table, row, LABEL, findings)
    return None if text is None else text.strip().casefold()


def _refuse(table: Table, row: Row, word: str, findings: Findings) -> None:
    choices = "; ".join(f"{good} or {bad}" for good, bad in _SCHEMES)
    nearest = nearest_name(word, [name for scheme in _SCHEMES for name in scheme])
    findings.error(
        table.file, _place(row), f"a label must be {choices}", word or "nothing", nearest
    )


def _place(row: Row) -> str:
    return f"line {row.line}, key {LABEL}"
