"""YAML is read as plain data or refused, quickly, with the line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from search_spaces.errors import SearchSpaceError
from search_spaces.yaml_file import parse_value, parse_yaml, read_yaml


def refused(read: Callable[[], object]) -> list[str]:
    began = time.monotonic()
    with pytest.raises(SearchSpaceError) as caught:
        read()
    # No promise of speed: what grows without bound takes minutes.
    assert time.monotonic() - began < 20
    return [str(problem) for problem in caught.value.problems]


def refused_text(text: str) -> list[str]:
    return refused(lambda: parse_yaml("f.yaml", text))


def refused_bytes(folder: Path, content: bytes) -> list[str]:
    file = folder / "f.yaml"
    file.write_bytes(content)
    return [problem.removeprefix(str(folder) + "/") for problem in refused(lambda: read_yaml(file))]


def test_places_count_lines_from_one() -> None:
    file = parse_yaml("f.yaml", "name: a\nstages:\n  - name: s\n    grid:\n      rank: [1,\n 2]\n")
    assert file.place(("name",)) == "name (line 1)"
    assert file.place(("stages", 0, "grid", "rank", 1)) == "stages[0].grid.rank[1] (line 6)"
    assert file.place(("stages", 0, "grid", "unknown")) == "stages[0].grid.unknown (line 4)"
    assert file.place(()) == "line 1"


def test_a_byte_order_mark_and_other_scripts_are_text(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(
        b"\xef\xbb\xbfname: a\r\ndescription: \xe2\x80\x9cgr\xc3\xbc\xc3\x9fe\xe2\x80\x9d\r\n"
    )
    assert read_yaml(file).data == {"name": "a", "description": "“grüße”"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name: a\n".encode("utf-16"), ["f.yaml: line 1: must be UTF-8, but is UTF-16"]),
        ("name: a\n".encode("utf-16-be"), ["f.yaml: line 1: NUL bytes cannot stand in YAML"]),
        (b"a: 1\nb: \0\n", ["f.yaml: line 2: NUL bytes cannot stand in YAML"]),
        (b"a: 1\nb: \xe9t\xe9\n", ["f.yaml: line 2: must be UTF-8, but has the byte, got '0xe9'"]),
        (
            b"",
            ["f.yaml: line 1: must hold a mapping with `name` and `stages`, but is an empty file"],
        ),
        (
            b"# only words\n",
            ["f.yaml: line 1: must hold a mapping with `name` and `stages`, but is an empty file"],
        ),
        (b"- a\n", ["f.yaml: line 1: must hold a mapping with `name` and `stages`, but is a list"]),
        (
            b"a" * (1 << 20) + b"b",
            ["f.yaml: a search space must be smaller than 1 MiB, got '1048577 bytes'"],
        ),
    ],
    ids=["utf-16", "utf-16 unmarked", "nul", "latin-1", "empty", "comment", "list", "1 MiB"],
)
def test_what_is_no_search_space_is_refused(
    tmp_path: Path, content: bytes, says: list[str]
) -> None:
    assert refused_bytes(tmp_path, content) == says


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "Is a directory" in refused(lambda: read_yaml(tmp_path))[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\n\tb: 2\n", r"line 2, column 1: is not valid YAML: found character '\t'"),
        ("a: [1, 2\n", "line 2, column 1: is not valid YAML: expected ',' or ']'"),
        ("a: 'x\n", "found unexpected end of stream"),
        ("a: b: c\n", "line 1, column 5: is not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: is not valid YAML: but found another document"),
        ("a: *nowhere\n", "line 1, column 4: is not valid YAML: found undefined alias 'nowhere'"),
        ("? [a]\n: b\n", "found unhashable key"),
        ("a: 2024-13-45\n", "line 1, column 4: is not valid YAML: month must be in 1..12"),
        (f"a: 1\nb: {'9' * 5000}\n", "line 2, column 4: is not valid YAML: a whole number must"),
        ("a: 1\nb: \x07\n", "line 2: a control character cannot stand in YAML, got '0x7'"),
        ("a: =\n", "line 1, column 4: is not valid YAML"),
    ],
)
def test_broken_yaml_is_refused_with_its_place(text: str, says: str) -> None:
    (problem,) = refused_text(text)
    assert problem.startswith("f.yaml: line ")
    assert says in problem


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object:os.system {}",
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system ''",
        "!!binary aGk=",
        '!!int ""',
        '!!float ""',
        "!!bool perhaps",
        "!!timestamp never",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!mine 3",
    ],
)
def test_tags_are_refused(tag: str) -> None:
    (problem,) = refused_text(f"a: 1\nb: {tag}\n")
    assert problem == (
        f"f.yaml: line 2: values must be plain, without a tag, got {tag.split(' ')[0]!r}"
    )


def test_a_tag_on_a_key_is_refused() -> None:
    assert "without a tag, got '!!int'" in refused_text("!!int 'three': b\n")[0]


def test_text_may_be_said_to_be_text() -> None:
    assert parse_yaml("f.yaml", "a: !!str 3\n").data == {"a": "3"}


def test_every_key_that_stands_twice_is_named_with_both_lines() -> None:
    assert refused_text("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "f.yaml: line 2: a key may stand once, but stands in line 2 too, got 'c'",
        "f.yaml: line 3: a key may stand once, but stands in line 1 too, got 'a'",
    ]


def test_plain_aliases_and_merges_are_data() -> None:
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\n"
    assert parse_yaml("f.yaml", text).data["b"] == {"x": 1, "y": 2}
    assert parse_yaml("f.yaml", text).data["c"] == {"x": 1, "y": 3}


def test_an_alias_of_itself_is_refused() -> None:
    assert refused_text("a: &a [1, *a]\n") == [
        "f.yaml: line 1: aliases to a parent cannot be resolved"
    ]


@pytest.mark.parametrize("fold", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_that_grow_by_powers_are_refused_soon(fold: str) -> None:
    lines = ["x0: &x0 {k: v}"]
    for number in range(1, 40):
        lines.append(f"x{number}: &x{number} " + fold.format(", ".join([f"*x{number - 1}"] * 9)))
    assert (
        "holds more than 10000 values (aliases repeat theirs)" in refused_text("\n".join(lines))[0]
    )


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused(opening: str) -> None:
    (problem,) = refused_text("a: " + opening * 5000 if opening != "- " else opening * 5000)
    assert "nested too deeply" in problem


def test_a_large_list_is_refused_before_it_is_read_to_its_end() -> None:
    assert "holds more than 10000 values" in refused_text(f"a: [{'1,' * 500_000}]")[0]


def test_values_of_the_command_line_are_yaml() -> None:
    assert parse_value("--set", "[1, 5e-5, yes, null]") == [1, "5e-5", True, None]
    assert parse_value("--set", "") is None
    assert refused(lambda: parse_value("--set", "!!python/name:os.system ''"))
