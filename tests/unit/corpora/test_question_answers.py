from __future__ import annotations

import json
from collections.abc import Callable
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


@pytest.mark.parametrize("length", [len, lambda text: len(text.split())])
def test_length_says_nothing(length: Callable[[str], int]) -> None:
    """A reward model cannot learn from the bundled answers that longer (or shorter) is better."""
    answers = read_question_answers()
    longer = sum(length(a.preferred) > length(a.rejected) for a in answers)
    assert abs(longer / len(answers) - 0.5) < 0.04


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


def comparison(chosen: str = "Sleep.", rejected: str = "Wake.", question: str = "Why\nnot?") -> str:
    texts = {
        key: f"Human: {question}\n\nAssistant: {answer}"
        for key, answer in (("chosen", chosen), ("rejected", rejected))
    }
    return json.dumps({"entry_id": 7, **texts}, indent=1)


def test_published_comparisons(tmp_path: Path) -> None:
    """A JSON array, entry ids that repeat, question and answer in one text."""
    path = write(
        tmp_path / "a.json",
        f"[{comparison()},\n {comparison(chosen='A nap').replace('Assistant', ' Assistant')}]\n",
    )
    assert read_question_answers(path) == (
        QuestionAnswer(id="1", question="Why not?", preferred="Sleep.", rejected="Wake."),
        QuestionAnswer(id="2", question="Why not?", preferred="A nap", rejected="Wake."),
    )


def test_an_array_of_our_own_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", f" [ {GOOD.strip()} ] ")
    assert [answer.id for answer in read_question_answers(path)] == ["q1"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", ("it is empty",)),
        ("[1]", ("line 1", "must be a JSON object", "got 'int'")),
        ("[" + comparison(), ("line 5", "expecting `,` or `]`")),
        ("[" + comparison() + ",\n}", ("line 6, column 1", "must be JSON")),
        ("[" + comparison("Wake.") + ",\n}", ("line 1", "must differ", "line 6, column 1")),
        ("[" + comparison() + "]\n[]", ("line 5", "nothing may follow")),
        ("[" + comparison("Wake.") + "]", ("line 1", "must differ")),
        (f"[{comparison()},\n{comparison(' ')}]", ("line 6, key chosen", "Assistant: ...")),
        ("[" + comparison().replace("Human: Why", "Human: How", 1) + "]", ("one question",)),
        ("[" + comparison().replace("Human", "User") + "]", ("key chosen", "key rejected")),
        ("[" + comparison().replace("rejected", "worse") + "]", ("key rejected must be in",)),
    ],
)
def test_mistakes_in_arrays(tmp_path: Path, content: str, says: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(CorpusError) as raised:
        read_question_answers(path)
    for part in says:
        assert part in str(raised.value)
