"""Malformed corpora are refused before anything starts."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest

from tests.flow.input_errors.refusals import check_refused, sweep
from tests.unit.orchestrator.command_line import CommandLine

HEADER = "ID,Type,Utterance,Dialog_Act\n"
SECRET = "my sister's name is Ottilie"


def workbook() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


def spoil(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert content.count(old.encode()) >= 1
        return content.replace(old.encode(), new.encode(), 1)

    return change


CORPORA: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "empty": (lambda _: b"", ("bad.csv: the file must hold rows, but it is empty",)),
    "header only": (lambda _: HEADER.encode(), ("bad.csv: line 1", "only a header")),
    "missing column": (
        spoil("ID,Type", "ID,Typ"),
        ("bad.csv: line 1: column Type must be in the header", "did you mean Typ?"),
    ),
    "unknown columns": (
        lambda _: b"conversation,speeker,words\n1,P,a\n",
        ("bad.csv: line 1", "conversation, speeker, words"),
    ),
    "quote left open": (
        spoil("I keep thinking", f'"{SECRET}'),
        ("bad.csv: line 2, column", "a quotation mark must be closed"),
    ),
    "latin-1": (
        lambda content: content.replace(b"thinking", b"th\xefnking", 1),
        ("bad.csv: line 2, byte", "must be UTF-8", "byte 0xef"),
    ),
    "utf-16": (
        lambda content: content.decode().encode("utf-16"),
        ("bad.csv: byte 0: the file must be UTF-8, but this is UTF-16",),
    ),
    "one speaker": (
        lambda content: content.replace(b",T,", b",P,"),
        (
            "both sides must speak somewhere in a corpus",
            "only the patient",
        ),
    ),
    "NUL bytes": (
        lambda content: content.replace(b"thinking", b"thin\0ing", 1),
        ("bad.csv: line 2, byte", "NUL", "got 1"),
    ),
    "malformed ID": (
        spoil("0_1,T", "0-1,T"),
        ("bad.csv: line 3, column ID: an ID must be <session>_<turn>, as 163_0, got '0-1'",),
    ),
    "unknown speaker": (
        spoil("0_1,T", "0_1,Therapits"),
        ("bad.csv: line 3, column Type", "got 'Therapits'"),
    ),
    "turn twice": (
        spoil("0_1,T", "0_0,T"),
        ("bad.csv: line 3: a turn must stand once", "line 2", "got 'session 0, turn 0'"),
    ),
    "too few sessions": (
        lambda content: b"".join(content.splitlines(keepends=True)[:25]),
        ("a corpus must have at least 3 sessions", "has 2"),
    ),
    "workbook": (
        lambda _: workbook(),
        ("bad.csv: byte 0: the file must be text, but this is an Excel workbook",),
    ),
    "too many cells": (
        spoil("What is it about", f"{SECRET}, {SECRET},"),
        ("bad.csv: line 3: a row must have 4 fields", "got 6"),
    ),
}


@pytest.mark.parametrize("command", ["sweep", "corpus"])
@pytest.mark.parametrize("name", CORPORA)
def test_a_spoilt_corpus_is_refused(line: CommandLine, name: str, command: str) -> None:
    change, says = CORPORA[name]
    line.write("bad.csv", change((line.folder / "corpus.csv").read_bytes()))
    done = (
        line.run("corpus", "bad.csv") if command == "corpus" else sweep(line, "--corpus", "bad.csv")
    )
    check_refused(done, *says)
    assert "Ottilie" not in done.err, "what people say is sensitive and is never shown"


@pytest.mark.parametrize(
    ("corpus", "says"),
    [
        ("corpuss.csv", ("corpuss.csv: ", "does not exist; did you mean corpus.csv?")),
        ("sampel", ("sampel: ", "does not exist; did you mean sample?")),
        ("none/at/all", ("none/at/all: ", "does not exist")),
        (
            "empty",
            ("empty: ", "a corpus folder must hold CSV, TSV or JSONL files, but it is empty"),
        ),
    ],
)
def test_a_corpus_that_is_not_there_is_refused(
    line: CommandLine, corpus: str, says: tuple[str, ...]
) -> None:
    (line.folder / "empty").mkdir()
    check_refused(line.run("corpus", corpus), *says)
    check_refused(sweep(line, "--corpus", corpus), *says)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            "{session: session, speaker: who, txt: words}",
            ("columns.text: is missing", "columns.txt: unknown key", "did you mean text?"),
        ),
        (
            "{session: session, speaker: who, text: word}",
            ("mapped.csv: line 1: column word must be in the header", "did you mean words?"),
        ),
        (
            "{session: session, speaker: who, text: who}",
            ("columns: text: each part must have a column of its own", "got 'who'"),
        ),
        (
            "{session: session, speaker: who, text: words, patient: [them]}",
            ("mapped.csv: line 2, column who", "got 'me'"),
        ),
        ("session", ("--set: columns: must be a mapping, got 'session'",)),
    ],
)
def test_a_wrong_column_mapping_is_refused(
    line: CommandLine, columns: str, says: tuple[str, ...]
) -> None:
    line.write("mapped.csv", "session,who,words\n" + "".join(f"{n},me,a\n" for n in range(5)))
    check_refused(sweep(line, "--corpus", "mapped.csv", "--set", f"columns={columns}"), *says)
