"""Broken corpora: each is refused, and the message leads to the file, the place and the value."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from corpora.dialogue import CorpusError
from corpora.findings import MAX_PROBLEMS_PER_FILE
from corpora.read import read_corpus
from search_spaces.spec import ColumnMapping, CorpusSpec
from tests.unit.corpora.small_corpora import (
    ANNOMI_HEADER,
    HOPE_HEADER,
    annomi,
    hope,
    read,
    write,
)

MAPPING = ColumnMapping(session="s", speaker="w", text="t", turn="n")
LINES = '{"s": 1, "w": "P", "t": "a", "n": 0}\n'


@dataclass(frozen=True)
class Broken:
    """A file that cannot be used, and what its message has to say."""

    name: str
    content: str | bytes
    says: tuple[str, ...]
    file: str = "broken.csv"
    columns: ColumnMapping | None = None


BROKEN = (
    Broken("empty file", b"", ("the file must hold rows, but it is empty",)),
    Broken("only a mark", b"\xef\xbb\xbf \n\n", ("it is empty",)),
    Broken("only blank cells", '"",""\n" "\n', ("must hold rows, but it is empty",)),
    Broken("only separators", "\u2028\x1f\n", ("must hold rows, but it is empty",)),
    Broken("only separators in lines", "\u2028\n", ("it is empty",), file="broken.jsonl"),
    Broken("header only", HOPE_HEADER + "\n", ("line 1", "only a header")),
    Broken(
        "misspelt column",
        hope(header="ID,Type,Uterance,Dialog_Act"),
        ("line 1", "column Utterance must be in the header", "did you mean Uterance?"),
    ),
    Broken(
        "missing act column",
        "ID,Type,Utterance\n1_0,P,a\n",
        ("line 1", "column Dialog_Act must be", "ID, Type, Utterance"),
    ),
    Broken(
        "column twice",
        hope(header="ID,Type,Utterance,Utterance"),
        ("line 1", "Utterance must stand once"),
    ),
    Broken(
        "two act columns",
        "ID,Type,Utterance,Dialog_Act,Dilog_Act\n1_0,P,a,id,id\n",
        ("line 1", "must stand once in the header", "Dialog_Act, Dilog_Act"),
    ),
    Broken(
        "unknown header",
        "conversation,speeker,words\n1,P,a\n",
        ("line 1", "conversation, speeker, words", "HOPE: ID, Type", "AnnoMI: transcript_id"),
    ),
    Broken(
        "nearly known header",
        "ident,kind,utterence,dialogue\n1,P,a,id\n",
        ("line 1", "did you mean", "Utterance for utterence"),
    ),
    Broken(
        "no header",
        hope().split("\n", 1)[1],
        ("line 1", "must begin with its header (ID, Type, Utterance, Dialog_Act)"),
    ),
    Broken(
        "quote left open",
        hope("4_0,P,a,id", '4_1,T,"never closed,id', "4_2,P,b,id"),
        ("line 11, column 7", "a quotation mark must be closed", "the file ends before"),
    ),
    Broken(
        "quote closed inside a cell",
        hope('4_0,P,"say "hello" now",id'),
        ("line 10, column 7", "it closes inside a cell on line 10"),
    ),
    Broken(
        "quote left open, noticed at the next one",
        hope('4_0,P,"a,id', "4_1,T,b,id", '4_2,P,"c, d",id'),
        ("line 10, column 7", "on line 12"),
    ),
    Broken(
        "Windows-1252",
        hope().encode() + b"4_0,P,it\x92s,id\n",
        ("line 10, byte", "must be UTF-8", "iconv -f WINDOWS-1252", "byte 0x92"),
    ),
    Broken(
        "no encoding at all",
        b"\xef\xbb\xbfID\n\x81\xff",
        ("line 2, byte 6", "not Windows-1252 either", "byte 0x81"),
    ),
    Broken("UTF-16", hope().encode("utf-16"), ("byte 0", "UTF-16", "iconv -f UTF-16")),
    Broken("UTF-32", hope().encode("utf-32"), ("byte 0", "UTF-32")),
    Broken(
        "NUL bytes", hope().encode() + b"4_0,P,\x00\x00,id\n", ("line 10, byte", "NUL", "got 2")
    ),
    Broken(
        "too many fields",
        hope("4_0,P,well, yes,id"),
        ("line 10", "a row must have 4 fields", "needs quotation marks", "got 5"),
    ),
    Broken("too few fields", hope("4_0,P"), ("line 10", "a row must have 4 fields", "got 2")),
    Broken("bad ID", hope("4-0,P,a,id"), ("line 10, column ID", "<session>_<turn>", "'4-0'")),
    Broken("ID without turn", hope("4_,P,a,id"), ("line 10, column ID", "'4_'")),
    Broken("no ID", hope(",P,a,id"), ("line 10, column ID", "'nothing'")),
    Broken(
        "unknown speaker",
        hope("4_0,Theropist,a,id"),
        ("line 10, column Type", "'Theropist'", "did you mean therapist?"),
    ),
    Broken(
        "turn twice",
        hope("1_1,P,again,id"),
        ("line 10", "once in its session", "line 3", "session 1, turn 1"),
    ),
    Broken(
        "one side only",
        hope().replace(",T,", ",P,"),
        ("both sides must speak", "only the patient"),
    ),
    Broken(
        "two sessions",
        hope()
        .replace("3_", "2_")
        .replace("2_0,P,It", "2_3,P,It")
        .replace("2_1,P,A", "2_4,P,A")
        .replace("2_2,T,I s", "2_5,T,I s"),
        ("at least 3 sessions", "has 2", "1, 2"),
    ),
    Broken(
        "nothing is said",
        HOPE_HEADER + "\n1_0,P,,id\n",
        ("at least 3 sessions", "has 0"),
    ),
    Broken("workbook", b"PK\x03\x04....", ("byte 0", "Excel", "export it as CSV"), "a.xlsx"),
    Broken("gzip", gzip.compress(hope().encode()), ("byte 0", "gzip"), "a.csv.gz"),
    Broken(
        "huge cell",
        hope(f"4_0,P,{'a' * (1 << 20)}b,id"),
        ("line 10", "at most 1,048,576 characters"),
    ),
    Broken(
        "huge JSON text",
        LINES + '{"s": 1, "w": "T", "n": 1, "t": "' + "a" * ((1 << 20) + 1) + '"}',
        ("line 2, column t", "1,048,576", "1048577"),
        "a.jsonl",
        MAPPING,
    ),
    Broken(
        "AnnoMI turn",
        annomi("2,low,two,client,a,n/a,neutral"),
        ("line 9, column utterance_id", "a whole number", "'two'"),
    ),
    Broken(
        "AnnoMI speaker",
        annomi("2,low,2,clients,a,n/a,neutral"),
        ("line 9, column interlocutor", "'clients'", "did you mean client?"),
    ),
    Broken(
        "AnnoMI session",
        annomi(",low,2,client,a,n/a,neutral"),
        ("line 9, column transcript_id", "must name its session"),
    ),
    Broken(
        "bad JSON",
        LINES + '{"s": 1, "w": T}\n',
        ("line 2, column 15", "valid JSON"),
        "a.jsonl",
        MAPPING,
    ),
    Broken("JSON list in a line", LINES + "[1]\n", ("line 2", "got 'list'"), "a.jsonl", MAPPING),
    Broken("JSON array", "[\n" + LINES + "]", ("line 1", "JSON array"), "a.jsonl", MAPPING),
    Broken("deep JSON", "[" * 100_000, ("JSON array",), "a.jsonl", MAPPING),
    Broken(
        "deeper JSON", '{"s":' * 100_000, ("line 1", "ordinary size and depth"), "a.jsonl", MAPPING
    ),
    Broken(
        "long JSON number",
        LINES + '{"s": ' + "9" * 5000 + "}",
        ("line 2", "ordinary size"),
        "a.jsonl",
        MAPPING,
    ),
    Broken(
        "JSON key missing",
        LINES + '{"s": 1, "w": "T", "T ": "a", "n": 1}\n',
        ("line 2", "key t must be in every object"),
        "a.jsonl",
        MAPPING,
    ),
    Broken(
        "JSON value of another type",
        LINES + '{"s": 1, "w": "T", "t": ["a"], "n": true}\n',
        ("line 2, column t", "got 'list'", "line 2, column n", "got 'bool'"),
        "a.jsonl",
        MAPPING,
    ),
    Broken(
        "half a character",
        LINES + '{"s": 1, "w": "T", "t": "\\ud83d", "n": 1}\n',
        ("line 2, column t", "half a character"),
        "a.jsonl",
        MAPPING,
    ),
    Broken(
        "mapped column missing",
        "s,w,txt,n\n1,P,a,0\n",
        ("line 1", "column t must be in the header", "did you mean txt?"),
        columns=MAPPING,
    ),
    Broken(
        "mapped speaker",
        "s,w,t,n\n1,robot,a,0\n",
        ("line 2, column w", "'robot'"),
        columns=MAPPING,
    ),
    Broken(
        "negative turn",
        "s,w,t,n\n1,P,a,-1\n",
        ("line 2, column n", "a whole number from 0", "'-1'"),
        columns=MAPPING,
    ),
    Broken(
        "mapping with one column twice",
        "s,w,t,n\n1,P,a,1\n",
        ("columns: text", "speaker has it", "'w'"),
        columns=ColumnMapping(session="s", speaker="w", text="w"),
    ),
    Broken(
        "mapping with one word for both",
        "s,w,t,n\n1,P,a,1\n",
        ("columns: therapist", "the patient or the therapist", "'USER'"),
        columns=ColumnMapping(session="s", speaker="w", text="t", therapist=("USER",)),
    ),
)


def test_there_are_enough() -> None:
    assert len(BROKEN) >= 20
    assert len({broken.name for broken in BROKEN}) == len(BROKEN)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_broken_files_are_refused(tmp_path: Path, broken: Broken) -> None:
    path = tmp_path / broken.file
    content = broken.content
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError) as raised:
        read(path, broken.columns)
    message = str(raised.value)
    for part in (*broken.says, "" if "columns:" in message else str(path)):
        assert part in message
    assert pickle.loads(pickle.dumps(raised.value)).problems == raised.value.problems


def test_every_problem_of_every_file_at_once(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", hope("4_0,X,a,id", "4-1,P,a,id", "4_2,P"))
    write(tmp_path / "2.csv", "")
    write(tmp_path / "3.csv", HOPE_HEADER + "\n1_1,T,again,id\n")
    with pytest.raises(CorpusError) as raised:
        read(tmp_path)
    places = [(Path(problem.file).name, problem.place) for problem in raised.value.problems]
    assert places[places.index(("1.csv", "line 10, column Type")) + 2] == ("1.csv", "line 12")
    assert set(places) == {
        ("1.csv", "line 12"),
        ("2.csv", ""),
        ("1.csv", "line 10, column Type"),
        ("1.csv", "line 11, column ID"),
        ("3.csv", "line 2"),
    }
    assert f"{tmp_path / '1.csv'}, line 3" in str(raised.value)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", hope(*(f"4_{turn},X,a,id" for turn in range(50))))
    with pytest.raises(CorpusError) as raised:
        read(path)
    assert len(raised.value.problems) == MAX_PROBLEMS_PER_FILE + 1
    assert str(raised.value).endswith("... and 30 more")


def test_many_broken_files_are_cut_too(tmp_path: Path) -> None:
    for name in range(150):
        write(tmp_path / f"{name}.csv", "")
    with pytest.raises(CorpusError, match="and 50 more in other files"):
        read(tmp_path)


def test_messages_never_hold_an_utterance(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        hope("4_0,P,my secret is,out,id", "4_0,X,my secret,id", '4_1,P,"my secret,id'),
    )
    with pytest.raises(CorpusError) as raised:
        read(path)
    assert len(raised.value.problems) == 3
    assert "secret" not in str(raised.value)


def test_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "hope_sample" / "a.csv", hope())
    with pytest.raises(CorpusError, match=r"does not exist; did you mean .*hope_sample\?"):
        read(tmp_path / "hope_sampel")
    with pytest.raises(CorpusError, match=r"does not exist; did you mean .*hope_sample\?"):
        read(tmp_path / "hope_sampel" / "a.csv")


def test_sample_misspelt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match=r"did you mean sample\?"):
        read_corpus(CorpusSpec(corpus="smaple"))


@pytest.mark.parametrize("corpus", ["a" * 4000, "nul\0byte", "~nobody_of_that_name/x"])
def test_paths_that_cannot_be(corpus: str) -> None:
    with pytest.raises(CorpusError):
        read_corpus(CorpusSpec(corpus=corpus))


def test_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="but it is empty"):
        read(tmp_path)
    write(tmp_path / "notes.docx", "a")
    write(tmp_path / "train" / "1.csv", hope())
    with pytest.raises(CorpusError) as raised:
        read(tmp_path)
    assert "it holds notes.docx, train/" in str(raised.value)
    assert f"did you mean {tmp_path / 'train'}?" in str(raised.value)


def test_folder_of_two_formats(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", hope())
    write(tmp_path / "2.csv", annomi(header=ANNOMI_HEADER))
    with pytest.raises(CorpusError) as raised:
        read(tmp_path)
    assert f"hope ({tmp_path / '1.csv'})" in str(raised.value)
    assert f"annomi ({tmp_path / '2.csv'})" in str(raised.value)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", hope())

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError, match=r"a\.csv: the file must be readable"):
        read(path)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CorpusError, match="the corpus must be readable"):
        read(tmp_path)


def test_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(CorpusError, match="must be a regular file"):
        read(tmp_path / "pipe.csv")


@pytest.mark.parametrize("limit", [131_072, 1000])
def test_the_csv_limit_of_the_process_is_left_alone(
    tmp_path: Path, limit: int, request: pytest.FixtureRequest
) -> None:
    import csv

    before = csv.field_size_limit(limit)
    restore: Callable[[], object] = lambda: csv.field_size_limit(before)  # noqa: E731
    request.addfinalizer(restore)
    read(write(tmp_path / "a.csv", hope(f"4_0,P,{'a' * 200_000},id", "4_1,T,b,id")))
    assert csv.field_size_limit() == limit
