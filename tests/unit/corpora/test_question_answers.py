from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.dialogue import CorpusError
from corpora.findings import Findings
from corpora.privacy import find_identifiers
from corpora.question_answers import (
    LabelledAnswer,
    Question,
    QuestionAnswer,
    content_hash,
    read_preferences,
    read_question_answers,
    read_questions,
)
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
        (
            GOOD.replace("preferred", "prefered"),
            ("these have id, question, prefered", "did you mean question, preferred, rejected?"),
        ),
        (GOOD + GOOD.replace("preferred", "prefered"), ("line 2", "did you mean prefered?")),
        (GOOD.replace('"q1"', '""'), ("line 1, key id", "must not be empty")),
        ("{}", ("these have",)),
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
        (
            f"[{comparison()},\n{comparison().replace('Assistant', 'Bot', 1)}]",
            ("line 6, key chosen", "Assistant: ..."),
        ),
        (f"[{comparison(' ')},{comparison('None')}]", ("all were left out",)),
        ("[" + comparison().replace("Human: Why", "Human: How", 1) + "]", ("one question",)),
        ("[" + comparison().replace("Human", "User") + "]", ("key chosen", "key rejected")),
        (
            "[" + comparison().replace("rejected", "worse") + "]",
            ("did you mean chosen, rejected?",),
        ),
    ],
)
def test_mistakes_in_arrays(tmp_path: Path, content: str, says: tuple[str, ...]) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(CorpusError) as raised:
        read_question_answers(path)
    for part in says:
        assert part in str(raised.value)


def oddities(read: Callable[[Path, Findings], object], path: Path) -> str:
    findings = Findings()
    read(path, findings)
    return "\n".join(str(problem) for problem in findings.oddities)


def lines(*objects: object) -> str:
    return "\n".join(json.dumps(one) for one in objects)


def answer(
    text: object = "Sleep.", question: str = "Why\n not?", **more: object
) -> dict[str, object]:
    return {"guid": "same", "question": question, "answer": text, **more}


def test_questions(tmp_path: Path) -> None:
    """Numbered where there are no ids; texts on one line; further keys do not count."""
    path = write(tmp_path / "a.json", json.dumps([answer(), answer(7, source="MATH")], indent=1))
    assert read_questions(path) == (
        Question(id="1", question="Why not?", answer="Sleep."),
        Question(id="2", question="Why not?", answer="7"),
    )
    assert oddities(read_questions, path) == ""


def test_questions_of_comparisons_are_answered_as_preferred(tmp_path: Path) -> None:
    assert [q.answer for q in read_questions()] == [a.preferred for a in read_question_answers()]
    joined = write(tmp_path / "a.json", f"[{comparison()}]")
    assert read_questions(joined) == (Question("1", "Why not?", "Sleep."),)


NO_ANSWERS = ["", "  \n", "None", None]


def test_missing_answers_are_left_out_and_counted(tmp_path: Path) -> None:
    questions = [answer(text) for text in (*NO_ANSWERS, "none", "None of it.")]
    path = write(tmp_path / "a.jsonl", lines(*questions))
    assert [(q.id, q.answer) for q in read_questions(path)] == [("5", "none"), ("6", "None of it.")]
    found = oddities(read_questions, path)
    assert (
        "a.jsonl: line 1: a row whose answer is empty or the bare word None was left out" in found
    )
    assert "(4 times, the first here)" in found


@pytest.mark.parametrize("missing", NO_ANSWERS)
@pytest.mark.parametrize("key", ["preferred", "rejected"])
def test_comparisons_with_a_missing_answer_are_left_out(
    tmp_path: Path, key: str, missing: object
) -> None:
    whole = {"question": "Why?", "preferred": "A.", "rejected": "B."}
    path = write(tmp_path / "a.jsonl", lines(whole, {**whole, key: missing}))
    assert read_question_answers(path) == (QuestionAnswer("1", "Why?", "A.", "B."),)
    assert "line 2: a row whose answer is empty" in oddities(read_question_answers, path)
    # Only the preferred answer is learnt.
    assert len(read_questions(path)) == (1 if key == "preferred" else 2)
    joined = write(tmp_path / "b.json", f"[{comparison()}, {comparison('None')}]")
    assert "left out" in oddities(read_preferences, joined)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (1, 0),
        (1.0, "0"),
        (True, False),
        ("TRUE", False),
        ("Good ", "bad"),
        ("positive", "NEGATIVE"),
        ("chosen", "rejected"),
        ("preferred", "rejected"),
    ],
)
def test_labelled_answers(tmp_path: Path, good: object, bad: object) -> None:
    rows = [answer("B.", label=bad), answer("A.", label=good), answer("", label=good)]
    path = write(tmp_path / "a.jsonl", lines(*rows))
    assert read_preferences(path) == (
        LabelledAnswer("1", "Why not?", "B.", good=False),
        LabelledAnswer("2", "Why not?", "A.", good=True),
    )
    assert "left out" in oddities(read_preferences, path)
    assert read_questions(path) == (Question("2", "Why not?", "A."),)
    assert "line 1: a row whose answer is labelled bad was left out" in oddities(
        read_questions, path
    )


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ((1, "bad"), ("line 2, key label", "one scheme, but line 1 has '1'", "got 'bad'")),
        ((True, 0), ("line 2, key label", "one scheme, but line 1 has 'true'", "got '0'")),
        (("rejected", "chosen", "preferred"), ("line 3, key label", "line 1 has 'rejected'")),
        ((1, 0.5, 2), ("line 2", "got '0.5'", "line 3", "1 or 0; true or false; good or bad")),
        (("good", "god"), ("line 2, key label", "got 'god'; did you mean good?")),
        (("good", None), ("line 2, key label", "got 'nothing'")),
        ((0, [1]), ("line 2, column label", "got 'list'")),
        ((0, 0), ("key label", "good and bad answers", "2 bad ones alone")),
    ],
)
def test_mistakes_in_labels(tmp_path: Path, labels: tuple[object, ...], says: tuple[str]) -> None:
    rows = lines(*(answer(label=label) for label in labels))
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(CorpusError) as raised:
        read_preferences(path)
    for part in (str(path), *says):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("row", "nearest"),
    [
        (answer(), "question, answer, label"),
        ({"question": "Why?", "prefered": "A.", "rejected": "B."}, "question, preferred, rejected"),
        ({"choosen": "A.", "rejected": "B."}, "chosen, rejected"),
    ],
)
def test_a_file_in_no_format(tmp_path: Path, row: dict[str, object], nearest: str) -> None:
    """One error, however many rows; it names the keys there are and what may have been meant."""
    path = write(tmp_path / "a.jsonl", lines(row, row))
    with pytest.raises(CorpusError) as raised:
        read_preferences(path)
    assert len(raised.value.problems) == 1
    assert f"these have {', '.join(row)}; did you mean {nearest}?" in str(raised.value)
    path = write(tmp_path / "b.jsonl", lines({"x": 1}))
    with pytest.raises(CorpusError, match=r"these have x$"):
        read_questions(path)


def test_a_problem_elsewhere_does_not_fail_a_file(tmp_path: Path) -> None:
    findings = Findings()
    findings.error("other.csv", "line 1", "must be mended")
    assert len(read_questions(None, findings)) == len(read_questions())


def test_content_hash(tmp_path: Path) -> None:
    """Of texts and labels; not of ids or of how the file is written."""
    path = write(tmp_path / "a.jsonl", lines(answer("A.", label=1), answer("B.", label=0)))
    again = [answer("A. ", label="good", id="x"), answer("B.", "Why not?", label="bad", id="y")]
    same = write(tmp_path / "b.json", json.dumps(again, indent=2))
    swapped = lines(answer("A.", label=0), answer("B.", label=1))
    other = write(tmp_path / "c.jsonl", swapped)
    known = content_hash(read_preferences(path))
    assert known == content_hash(read_preferences(same))
    assert known != content_hash(read_preferences(other))
    assert known != content_hash(read_preferences(path)[::-1])
    assert content_hash(read_questions()) != content_hash(read_question_answers())


CELLS = st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.text(max_size=12)
WORDS = st.sampled_from(["None", "A.", "Human: a\n\nAssistant: b", "Human: a\n\nAssistant:c"])
FORMATS = [
    ("question", "preferred", "rejected"),
    ("chosen", "rejected"),
    ("question", "answer", "label"),
    ("id", "question", "answer"),
]


@st.composite
def objects(draw: st.DrawFn) -> list[dict[str, object]]:
    cells = dict.fromkeys(draw(st.sampled_from(FORMATS)), WORDS | CELLS)
    if "label" in cells:
        cells["label"] = st.booleans() | CELLS
    return draw(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=4))


@given(objects())
def test_any_rows_are_read_or_refused(rows: list[dict[str, object]]) -> None:
    """And what is read can be learnt: no text is empty, the word None, or half a character."""
    with TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.jsonl", lines(*rows))
        for read in (read_questions, read_preferences, read_question_answers):
            try:
                found = read(path)
            except CorpusError:
                continue
            for one in found:
                texts = [value for value in astuple(one)[1:] if not isinstance(value, bool)]
                assert all(text.strip() and text.encode() for text in texts)
                assert "None" not in texts[1:]
            assert 0 < len(found) <= len(rows)
            assert len(content_hash(found)) == 64
