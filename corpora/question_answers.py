"""Questions and answers: what is learnt by imitation, and what a reward model learns from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal, TypeVar, assert_never, get_args

from corpora.answer_labels import LABEL, read_labels
from corpora.answer_rows import (
    answer_of,
    leaves_out,
    row_ids,
    turns_of,
    words_of,
)
from corpora.findings import Findings
from corpora.json_array import parse_json_array
from corpora.jsonl_table import parse_jsonl
from corpora.table import Row, Table, listed
from corpora.text_file import read_text

SAMPLE_FILE = Path(__file__).parent / "sample" / "question_answers.jsonl"

Format = Literal["compared", "joined", "labelled", "answered"]
_KEYS: dict[Format, tuple[str, ...]] = {
    "compared": ("question", "preferred", "rejected"),
    "joined": ("chosen", "rejected"),
    "labelled": ("question", "answer", LABEL),
    "answered": ("question", "answer"),
}
_NEAR = 0.5
"""How much of a format's keys a file must have, or nearly have, to be taken for meant so."""
_COMPARED_KEYS = 50


@dataclass(frozen=True)
class Question:
    """One question and the answer that is to be learnt."""

    id: str
    question: str
    answer: str


@dataclass(frozen=True)
class QuestionAnswer:
    """One question and two answers to it."""

    id: str
    question: str
    preferred: str
    """The answer that a person would rather have."""
    rejected: str
    """The answer that a person would rather not have."""


@dataclass(frozen=True)
class LabelledAnswer:
    """One question and an answer that a person called good or bad."""

    id: str
    question: str
    answer: str
    good: bool


_Read = TypeVar("_Read", Question, QuestionAnswer, LabelledAnswer)


def read_questions(
    path: Path | None = None, findings: Findings | None = None
) -> tuple[Question, ...]:
    """Questions, each with the answer to learn, in file order, texts on one line.

    Args:
        path: JSONL, or a JSON array, of objects with `question` and `answer`; or comparisons, as for
            `read_question_answers`, of which the preferred answer counts; or labelled answers, of
            which the good ones count. `id` may be missing, further keys are ignored. Absent: the
            bundled comparisons.
        findings: gets, as oddities with their count, what was left out: answers that are empty or
            the bare word `None`, and bad ones.

    Raises:
        CorpusError: with everything that is wrong in the file.
    """
    path = path or SAMPLE_FILE
    findings = Findings() if findings is None else findings
    table, form = _open(path, get_args(Format), findings)
    questions: list[Question] = []
    match form:
        case "compared":
            questions = _questions(table, "preferred", findings)
        case "answered":
            questions = _questions(table, "answer", findings)
        case "joined":
            questions = _joined_questions(table, findings)
        case "labelled":
            for row, labelled in _labelled_answers(table, findings):
                if labelled.good:
                    questions.append(Question(labelled.id, labelled.question, labelled.answer))
                else:
                    kind = "a row whose answer is labelled bad was left out"
                    findings.oddity(table.file, f"line {row.line}", kind)
        case _:
            assert_never(form)
    return _settled(path, questions, findings)


def read_question_answers(
    path: Path | None = None, findings: Findings | None = None
) -> tuple[QuestionAnswer, ...]:
    """The comparisons of a JSONL or JSON file, in file order, texts on one line.

    Args:
        path: objects with `question`, `preferred` and `rejected`, and maybe `id`; or with `chosen`
            and `rejected`, each "Human: ... Assistant: ..."; one a line, or a JSON array. Absent:
            the bundled file.
        findings: gets, as an oddity with its count, what was left out: comparisons with an answer
            that is empty or the bare word `None`.

    Raises:
        CorpusError: with everything that is wrong in the file.
    """
    path = path or SAMPLE_FILE
    findings = Findings() if findings is None else findings
    table, form = _open(path, ("compared", "joined"), findings)
    return _settled(path, _comparisons(table, form, findings), findings)


def read_preferences(
    path: Path | None = None, findings: Findings | None = None
) -> tuple[QuestionAnswer, ...] | tuple[LabelledAnswer, ...]:
    """What a reward model learns from, in file order: comparisons or labelled answers.

    Args:
        path: comparisons, as for `read_question_answers`; or objects with `question`, `answer` and
            `label`, which says good or bad in one of the schemes of `answer_labels`. Absent: the
            bundled comparisons.
        findings: as for `read_question_answers`.

    Raises:
        CorpusError: with everything that is wrong in the file.
    """
    path = path or SAMPLE_FILE
    findings = Findings() if findings is None else findings
    table, form = _open(path, ("compared", "joined", "labelled"), findings)
    if form != "labelled":
        return _settled(path, _comparisons(table, form, findings), findings)
    answers = [labelled for _, labelled in _labelled_answers(table, findings)]
    if len({answer.good for answer in answers}) == 1 and not findings.failed_in(table.file):
        word = "good" if answers[0].good else "bad"
        message = "there must be good and bad answers to tell apart"
        findings.error(table.file, f"key {LABEL}", message, f"{len(answers)} {word} ones alone")
    return _settled(path, answers, findings)


def content_hash(
    read: Sequence[Question] | Sequence[QuestionAnswer] | Sequence[LabelledAnswer],
) -> str:
    """SHA-256 over kind, texts and labels, in order: equal content, equal hash.

    Ids do not count, nor how and where the file is written.

    Args:
        read: what one of the functions here has read.
    """
    content = [[type(one).__name__, *astuple(one)[1:]] for one in read]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _open(path: Path, forms: Sequence[Format], findings: Findings) -> tuple[Table, Format]:
    """The file's rows, and which of the formats they are in."""
    text = read_text(path, findings)
    table = None if text is None else _parse(str(path), text, findings)
    if table is None:
        raise findings.failure()
    columns = set(table.columns)
    form = next((form for form in forms if columns.issuperset(_KEYS[form])), None)
    if form is None:
        choices = "; or ".join(", ".join(_KEYS[form]) for form in forms)
        message = f"objects must have the keys {choices}; these have {listed(table.columns)}"
        findings.error(table.file, "", message, nearest=_nearest_format(table, forms))
        raise findings.failure()
    return table, form


def _parse(file: str, text: str, findings: Findings) -> Table | None:
    parse = parse_json_array if text.lstrip().startswith("[") else parse_jsonl
    return parse(file, text, findings)


def _nearest_format(table: Table, forms: Sequence[Format]) -> str:
    """The keys of the format that the file nearly has; empty where none is near."""
    columns = table.columns[:_COMPARED_KEYS]

    def nearness(form: Format) -> float:
        ratios = [
            max((SequenceMatcher(None, key, column).ratio() for column in columns), default=0.0)
            for key in _KEYS[form]
        ]
        return sum(ratios) / len(ratios)

    nearest = max(forms, key=nearness)
    return ", ".join(_KEYS[nearest]) if nearness(nearest) >= _NEAR else ""


def _questions(table: Table, key: str, findings: Findings) -> list[Question]:
    questions = []
    for row, identity in zip(table.rows, row_ids(table, findings), strict=True):
        question = words_of(table, row, "question", findings)
        answer = answer_of(table, row, key, findings)
        if question is None or answer is None:
            continue
        if not leaves_out(table, row, (answer,), findings):
            questions.append(Question(identity, question, answer))
    return questions


def _joined_questions(table: Table, findings: Findings) -> list[Question]:
    questions = []
    for number, row in enumerate(table.rows, start=1):
        turns = turns_of(table, row, "chosen", findings)
        if turns is not None and not leaves_out(table, row, turns[1:], findings):
            questions.append(Question(str(number), *turns))
    return questions


def _labelled_answers(table: Table, findings: Findings) -> list[tuple[Row, LabelledAnswer]]:
    answers = []
    labels, ids = read_labels(table, findings), row_ids(table, findings)
    for row, identity, good in zip(table.rows, ids, labels, strict=True):
        question = words_of(table, row, "question", findings)
        answer = answer_of(table, row, "answer", findings)
        if question is None or answer is None or good is None:
            continue
        if not leaves_out(table, row, (answer,), findings):
            answers.append((row, LabelledAnswer(identity, question, answer, good)))
    return answers


def _comparisons(table: Table, form: Format, findings: Findings) -> list[QuestionAnswer]:
    read = _joined_comparisons if form == "joined" else _plain_comparisons
    comparisons = []
    for row, comparison in read(table, findings):
        answers = (comparison.preferred, comparison.rejected)
        if leaves_out(table, row, answers, findings):
            continue
        if comparison.preferred == comparison.rejected:
            message = "the preferred and the rejected answer must differ"
            findings.error(table.file, f"line {row.line}", message, comparison.id)
        comparisons.append(comparison)
    return comparisons


def _plain_comparisons(table: Table, findings: Findings) -> list[tuple[Row, QuestionAnswer]]:
    comparisons = []
    for row, identity in zip(table.rows, row_ids(table, findings), strict=True):
        question = words_of(table, row, "question", findings)
        preferred, rejected = (
            answer_of(table, row, key, findings) for key in ("preferred", "rejected")
        )
        if question is not None and preferred is not None and rejected is not None:
            comparisons.append((row, QuestionAnswer(identity, question, preferred, rejected)))
    return comparisons


def _joined_comparisons(table: Table, findings: Findings) -> list[tuple[Row, QuestionAnswer]]:
    """Comparisons whose two texts both hold the question; numbered, as their ids may repeat."""
    comparisons = []
    for number, row in enumerate(table.rows, start=1):
        chosen, rejected = (turns_of(table, row, key, findings) for key in ("chosen", "rejected"))
        if chosen is None or rejected is None:
            continue
        if chosen[0] != rejected[0]:
            message = "both answers must be to one question"
            findings.error(table.file, f"line {row.line}", message)
        comparisons.append((row, QuestionAnswer(str(number), *chosen, rejected[1])))
    return comparisons


def _settled(path: Path, read: Sequence[_Read], findings: Findings) -> tuple[_Read, ...]:
    """What was read, where nothing must be mended."""
    file = str(path)
    if not read and not findings.failed_in(file):
        findings.error(file, "", "a row with an answer must be left, but all were left out")
    if findings.failed_in(file):
        raise findings.failure()
    return tuple(read)
