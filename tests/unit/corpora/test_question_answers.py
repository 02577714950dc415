from __future__ import annotations

from pathlib import Path

import pytest

from corpora.dialogue import CorpusError
from corpora.privacy import find_identifiers
from corpora.question_answers import QuestionAnswer, read_question_answers
from tests.unit.corpora.small_corpora import write

GOOD = '{"id": "q1", "question": "Why?", "preferred": "Tell me\\n more.", "rejected": "No."}\n'


def test_bundled() -> None:
    answers = read_question_answers()
    assert len(answers) >= 100
    assert len({answer.question for answer in answers}) == len(answers)
    for answer in answers:
        assert not find_identifiers(f"{answer.question} {answer.preferred} {answer.rejected}")


def test_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "\ufeff" + GOOD.replace("\n", "\r\n"))
    assert read_question_answers(path) == (
        QuestionAnswer(id="q1", question="Why?", preferred="Tell me more.", rejected="No."),
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ("it is empty",)),
        (GOOD + "{", ("line 2, column 2", "valid JSON")),
        (GOOD + "[]", ("line 2", "got 'list'")),
        (GOOD.replace("preferred", "prefered"), ("line 1", "did you mean prefered?")),
        (GOOD.replace('"No."', "3.5e1").replace('"Why?"', "[]"), ("line 1, column question",)),
        (GOOD.replace("Why?", " "), ("line 1, key question", "must not be empty")),
        (GOOD + GOOD, ("line 2, key id", "also stands in line 1", "'q1'")),
        (GOOD.replace("No.", "Tell me more."), ("line 1", "must differ", "'q1'")),
    ],
)
def test_mistakes(tmp_path: Path, content: str, says: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(CorpusError) as raised:
        read_question_answers(path)
    for part in (str(path), *says):
        assert part in str(raised.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"a\.jsonl: the file cannot be read: No such file"):
        read_question_answers(tmp_path / "a.jsonl")
