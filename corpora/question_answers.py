"""Questions with a preferred and a rejected answer: what a reward model learns from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from corpora.cells import text_of
from corpora.findings import Findings
from corpora.json_array import parse_json_array
from corpora.jsonl_table import parse_jsonl
from corpora.table import Row, Table
from corpora.text_file import read_text

SAMPLE_FILE = Path(__file__).parent / "sample" / "question_answers.jsonl"

KEYS = ("id", "question", "preferred", "rejected")

_CHOSEN, _REJECTED = "chosen", "rejected"
_HUMAN, _ASSISTANT = "Human:", re.compile(r"\n\s*Assistant:")
"""How a question and its answer are written as one text in published comparisons."""


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
    """The questions and answers of a JSONL or JSON file, in file order.

    Args:
        path: objects with `id`, `question`, `preferred` and `rejected`, or with `chosen` and
            `rejected`, each "Human: ... Assistant: ..."; one a line, or a JSON array. Absent: the
            bundled file.

    Raises:
        CorpusError: with everything that is wrong in the file.
    """
    findings = Findings()
    path = SAMPLE_FILE if path is None else path
    answers: list[QuestionAnswer] = []
    text = read_text(path, findings)
    table = None if text is None else _parse(str(path), text, findings)
    if table is not None:
        written_as_one = _CHOSEN in table.columns and "preferred" not in table.columns
        answers = (_read_comparisons if written_as_one else _read_table)(table, findings)
    if findings.failed:
        raise findings.failure()
    return tuple(answers)


def _parse(file: str, text: str, findings: Findings) -> Table | None:
    parse = parse_json_array if text.lstrip().startswith("[") else parse_jsonl
    return parse(file, text, findings)


def _read_comparisons(table: Table, findings: Findings) -> list[QuestionAnswer]:
    """Comparisons whose two texts both hold the question; numbered, as their ids may repeat."""
    answers: list[QuestionAnswer] = []
    for number, row in enumerate(table.rows, start=1):
        texts = [_turns(table, row, key, findings) for key in (_CHOSEN, _REJECTED)]
        if texts[0] is None or texts[1] is None:
            continue
        (question, preferred), (same_question, rejected) = texts[0], texts[1]
        place = f"line {row.line}"
        if question != same_question:
            findings.error(table.file, place, "both answers must be to one question")
        if preferred == rejected:
            message = "the preferred and the rejected answer must differ"
            findings.error(table.file, place, message)
        answers.append(QuestionAnswer(str(number), question, preferred, rejected))
    return answers


def _turns(table: Table, row: Row, key: str, findings: Findings) -> tuple[str, str] | None:
    """Question and last answer of a text; None, with an error, where it has not both."""
    text = text_of(table, row, key, findings)
    if text is None:
        return None
    marks = list(_ASSISTANT.finditer(text))
    start, end = marks[-1].span() if marks else (0, 0)
    question = " ".join(text[:start].strip().removeprefix(_HUMAN).split())
    answer = " ".join(text[end:].split())
    if not (marks and question and answer and text.lstrip().startswith(_HUMAN)):
        message = 'the text must be "Human: ...", and on a line of its own "Assistant: ..."'
        findings.error(table.file, f"line {row.line}, key {key}", message)
        return None
    return question, answer


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
