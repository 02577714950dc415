"""Corpora that are made to do harm: each is refused or read, quickly, in little memory, in plain words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corpora import read as read_module
from corpora.dialogue import CorpusError
from corpora.read import read_corpus
from corpora.text_file import MAX_FILE_BYTES, MAX_LINE_BYTES
from search_spaces.spec import ColumnMapping, CorpusSpec
from tests.unit.corpora.small_corpora import HOPE_HEADER, hope, problems, read, write

MIB = 1 << 20
MAPPING = ColumnMapping(session="s", speaker="w", text="t")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """A reader that waits (for a pipe, a device) fails its test instead of stopping them all."""

    def stop(*_: object) -> None:
        raise AssertionError("the reader hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(path: Path, columns: ColumnMapping | None = None) -> str:
    with pytest.raises(CorpusError) as raised:
        read(path, columns)
    told = str(raised.value)
    assert str(path) in told
    assert told.isprintable() or "\n" in told
    return told


READ_WITHIN = """
import resource, sys
from corpora.read import read_corpus
from corpora.dialogue import CorpusError
from search_spaces.spec import ColumnMapping, CorpusSpec
megabytes = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
mapping = ColumnMapping(session="s", speaker="w", text="t") if sys.argv[3:] else None
try:
    read_corpus(CorpusSpec(corpus=sys.argv[1], columns=mapping))
except CorpusError as error:
    print(error)
"""


def refused_within(path: Path, megabytes: int, *mapped: str) -> str:
    """What a process says that may have so much address space; a tenth of it is Python's own."""
    done = subprocess.run(
        [sys.executable, "-c", READ_WITHIN, str(path), str(megabytes), *mapped],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def fill(path: Path, head: str, unit: str, mebibytes: int, tail: str = "") -> Path:
    block = (unit * (MIB // len(unit) + 1))[: MIB - MIB % len(unit)].encode()
    with path.open("wb") as stream:
        stream.write(head.encode())
        for _ in range(mebibytes):
            stream.write(block)
        stream.write(tail.encode())
    return path


def test_a_cell_of_200_mib(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.csv", hope() + "4_0,P,", "word ", 200, ",id\n")
    told = refused_within(path, 400)
    assert f"{path}: line 10: a line must have at most {MAX_LINE_BYTES // MIB} MiB" in told


def test_a_cell_of_200_mib_over_many_lines(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.csv", hope() + '4_0,P,"', "some words\n", 200, '",id\n')
    told = refused_within(path, 900)
    assert f"{path}: line 10: a cell must hold at most 1,048,576 characters" in told


def test_a_json_text_of_200_mib(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.jsonl", '{"s": 1, "w": "P", "t": "', "word ", 200, '"}\n')
    assert f"{path}: line 1: a line must have at most" in refused_within(path, 400, "mapped")


def test_a_header_of_one_long_cell(tmp_path: Path) -> None:
    told = refused(fill(tmp_path / "a.csv", "ID,", "x", 2))
    assert "line 1: a cell must hold at most 1,048,576 characters" in told


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as stream:
        stream.write(hope().encode())
        stream.truncate(MAX_FILE_BYTES + MIB)
    told = refused_within(path, 300)
    assert f"must have at most {MAX_FILE_BYTES // MIB} MiB" in told
    assert f"got '{MAX_FILE_BYTES // MIB + 1} MiB'" in told


def test_lines_just_short_enough_are_read(tmp_path: Path) -> None:
    row = f'4_0,P,"{"a" * 1_000_000}",id\r\n'
    corpus = read(write(tmp_path / "a.csv", hope().replace("\n", "\r\n") + row))
    assert len(corpus.dialogues[-1].utterances[0].text) == 1_000_000


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_numbers_whatever_the_line_ends(tmp_path: Path, ends: str) -> None:
    path = write(tmp_path / "a.csv", hope("4_0,X,a,id").replace("\n", ends))
    assert "line 10, column Type" in refused(path)


def test_nul_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(hope().encode() + b"4_0,P,\0" + b"\0" * MIB + b",id\n")
    assert "line 10, byte" in refused(path)


HOSTILE_TEXTS = {
    "terminal colours": "\x1b[31mred\x1b[0m",
    "terminal title": "\x1b]0;owned\x07",
    "one-byte escapes": "\x9b31m and \x9d0;x\x9c",
    "right to left": "\u202eevil\u202c \u2066isolated\u2069",
    "backspaces": "good\b\b\b\bevil",
    "line separators": "one\u2028two\u2029three\x85four",
    "tags": "a\U000e0041\U000e0042",
}


@pytest.mark.parametrize("hostile", HOSTILE_TEXTS.values(), ids=HOSTILE_TEXTS.keys())
def test_what_a_terminal_would_obey_is_shown_escaped(tmp_path: Path, hostile: str) -> None:
    cell = hostile.replace("\n", " ")
    told = refused(
        write(tmp_path / "a.csv", hope(f"4_0,{cell},a,id", f"4-{cell},P,a,id", f"4_2,P,a,{cell}"))
    )
    assert not set(told) & set("\x1b\x07\x08\x9b\x9c\x9d\x85\u2028\u2029\u202e\u2066\U000e0041")
    header = write(tmp_path / "b.csv", f"ID,{cell},Utterance,Dialog_Act\n1_0,P,a,id\n")
    assert not set(refused(header)) & set("\x1b\x07\x08\x9b\x9c\x9d\x85\u2028\u2029\u202e\u2066")
    corpus = read(write(tmp_path / "c.csv", hope(f"4_0,P,a {hostile} b,id", f"4_1,T,b,{cell}")))
    assert not set(problems(corpus)) & set("\x1b\x07\x08\x9b\x9c\x9d\x85\u2028\u2029\u202e\u2066")
    text = corpus.dialogues[-1].utterances[0].text
    assert not set(text) & set("\x1b\x07\x08\x9b\x9c\x9d\x85")


def test_a_name_that_a_terminal_would_obey(tmp_path: Path) -> None:
    path = write(tmp_path / "\x1b[31m\u202ea.csv", "")
    with pytest.raises(CorpusError) as raised:
        read(path)
    assert "\\u001b[31m\\u202ea.csv" in str(raised.value)


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    assert "does not exist" in refused(tmp_path / "a.csv")
    told = refused(tmp_path)
    assert f"{tmp_path / 'a.csv'}: the file cannot be read" in told
    assert f"{tmp_path / 'b.csv'}: the file cannot be read" in told


def test_folders_that_link_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    assert "must hold CSV, TSV or JSONL files" in refused(tmp_path)
    write(tmp_path / "a.csv", hope())
    assert len(read(tmp_path).dialogues) == 3


def test_a_link_to_nothing_in_a_folder_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", hope())
    (tmp_path / "b.csv").symlink_to(tmp_path / "gone.csv")
    assert f"{tmp_path / 'b.csv'}: the file cannot be read" in refused(tmp_path)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/dev/null"])
def test_devices(path: str) -> None:
    with pytest.raises(CorpusError, match=r"must be a regular file|must hold rows"):
        read_corpus(CorpusSpec(corpus=path))


def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.csv")
    assert "must be a regular file, not a pipe" in refused(tmp_path / "b.csv")
    write(tmp_path / "a.csv", hope())
    told = refused(tmp_path)
    assert f"{tmp_path / 'b.csv'}: a corpus file must be a regular file, not a pipe" in told


def test_a_folder_of_too_many_files(tmp_path: Path) -> None:
    for number in range(read_module._MOST_FILES + 1):
        (tmp_path / f"{number}.csv").touch()
    assert "must hold fewer than 10,000 files" in refused(tmp_path)


def test_a_folder_of_many_other_files_is_summed_up(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", hope())
    for number in range(300):
        (tmp_path / f"{number}.dat").touch()
    corpus = read(tmp_path)
    assert len(corpus.problems) <= 101
    assert "... and 200 more" in problems(corpus)


def test_rows_in_the_place_of_a_header_are_redacted(tmp_path: Path) -> None:
    told = refused(write(tmp_path / "a.csv", "7,mail a@b.org,call 555-123-4567\n1,2,3\n"))
    assert "[EMAIL]" in told
    assert "a@b.org" not in told
    assert "555" not in told


def test_values_of_problems_are_redacted_unless_the_gate_is_off(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", hope("4_0,ask a@b.org,a,id"))
    assert "'ask [EMAIL]'" in refused(path)
    with pytest.raises(CorpusError, match=r"'ask a@b\.org'"):
        read_corpus(CorpusSpec(corpus=str(path), privacy="off"))


def test_a_table_of_a_great_many_columns(tmp_path: Path) -> None:
    columns = ",".join(f"c{number}" for number in range(100_000))
    told = refused(write(tmp_path / "a.csv", f"{columns}\n{columns}\n"))
    assert len(told) < 2000


def test_formulas_and_markup_are_only_words(tmp_path: Path) -> None:
    rows = ("4_0,P,\"=cmd|' /C calc'!A0\",id", "4_1,T,<script>alert(1)</script>,id")
    said = read(write(tmp_path / "a.csv", hope(*rows))).dialogues[-1].utterances
    assert [one.text for one in said] == [
        "=cmd|' /C calc'!A0",
        "<script>alert(1)</script>",
    ]


def test_a_header_alone_of_megabytes_of_blank_lines(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.csv", HOPE_HEADER, "\n", 4)
    assert "only a header" in refused(path)
