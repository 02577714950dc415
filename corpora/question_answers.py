"""Questions with a preferred and a rejected answer: what a reward model learns from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpora.cells import text_of
from corpora.findings import Findings
from corpora.jsonl_table import parse_jsonl
from corpora.table import Row, Table
from corpora.text_file import read_text

SAMPLE_FILE = Path(__file__).parent / "sample" / "question_answers.jsonl"

KEYS = ("id", "question", "preferred", "rejected")


@dataclass(frozen=True)
class QuestionAnswer:
    """One question and two answers to it."""

    id: str
    question: str
    preferred: str
    """The answer that a person would rather have."""
    rejected: str
    """The answer that a person would rather not have."""


def read_question_answers(path: Path | None = None) -> tuple[QuestionAnswer, ...]:
    """The questions and answers of a JSONL file, in file order.

    Args:
        path: one object a line with `id`, `question`, `preferred` and `rejected`; absent: the
            bundled file.

    Raises:
        CorpusError: with everything that is wrong in the file.
    """
    findings = Findings()
    path = SAMPLE_FILE if path is None else path
    answers: list[QuestionAnswer] = []
    text = read_text(path, findings)
    table = None if text is None else parse_jsonl(str(path), text, findings)
    if table is not None:
        answers = _read_table(table, findings)
    if findings.failed:
        raise findings.failure()
    return tuple(answers)


def _read_table(table: Table, findings: Findings) -> list[QuestionAnswer]:
    answers: list[QuestionAnswer] = []
    lines: dict[str, int] = {}
    for row in table.rows:
        cells = [_cell(table, row, key, findings) for key in KEYS]
        words = [cell for cell in cells if cell is not None]
        if len(words) != len(KEYS):
            continue
        answer = QuestionAnswer(*words)
        first = lines.setdefault(answer.id, row.line)
        if first != row.line:
            findings.error(
                table.file,
                f"line {row.line}, key id",
                f"an id must stand once, but it also stands in line {first}",
                answer.id,
            )
        if answer.preferred == answer.rejected:
            findings.error(
                table.file,
                f"line {row.line}",
                "the preferred and the rejected answer must differ",
                answer.id,
            )
        answers.append(answer)
    return answers


def _cell(table: Table, row: Row, key: str, findings: Findings) -> str | None:
    """The text under a key on one line; None, with an error, where there is none."""
    text = text_of(table, row, key, findings)
    if text is None:
        return None
    text = " ".join(text.split())
    if not text:
        findings.error(table.file, f"line {row.line}, key {key}", "the text must not be empty")
        return None
    return text
