"""Corpora and reply files that somebody means ill with, through the command line."""

from __future__ import annotations

import gzip
import os
import pickle
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hostile import Bomb, check_printable, check_refused, nothing_written
from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine

HEADER = b"ID,Type,Utterance,Dialog_Act\n"
MB = 1_000_000


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _memory_is_bounded() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    assert grown < 1500, f"{grown:.0f} MB more"


REFUSED: dict[str, tuple[str, bytes]] = {
    "cell of 200 MB": ("bad.csv", HEADER + b'0_0,P,"' + b"a" * (200 * MB) + b'",gc\n'),
    "quote open for 200 MB": ("bad.csv", HEADER + b'0_0,P,"' + b"a,b\n" * (50 * MB)),
    "header of 20 MB": ("bad.csv", b"a" * (20 * MB) + b"\n1\n"),
    "header of a million columns": ("bad.csv", b"a," * MB + b"\n1\n"),
    "pickle": ("bad.csv", pickle.dumps(Bomb())),
    "pickle by its name": ("bad.pkl", pickle.dumps(Bomb())),
    "gzip": ("bad.csv", gzip.compress(bytes(100 * MB))),
    "NUL": ("bad.csv", HEADER + b"0_0,P,a\0b,gc\n"),
    "turn of 5,000 digits": ("bad.csv", HEADER + b"0_" + b"9" * 5000 + b",P,a,gc\n0_1,T,b,gc\n"),
    "speaker that clears the screen": (
        "bad.csv",
        HEADER + b"0_0,\x1b[2J\xe2\x80\xae,a,gc\n0_1,T,b,gc\n",
    ),
    "column that clears the screen": ("bad.csv", b"\x1b[2J,\xc2\x9b31m\n1,2\n"),
    "JSON nested too deeply": ("bad.jsonl", b'{"session": ' + b"[" * 100_000 + b"\n"),
    "JSON with 5,000 digits": ("bad.jsonl", b'{"session": ' + b"9" * 5000 + b"}\n"),
    "half a character in JSON": ("bad.jsonl", b'{"session": "\\ud800", "x": 1}\n'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_corpus_is_refused(line: CommandLine, name: str) -> None:
    file, content = REFUSED[name]
    line.write(file, content)
    with nothing_written(line.folder):
        check_refused(line.run("corpus", file), file)
    (line.folder / file).unlink()  # pytest keeps folders for a while, and some are large.


@pytest.mark.parametrize("kind", ["fifo", "device", "loop"])
def test_what_is_no_file_is_not_waited_for(line: CommandLine, kind: str) -> None:
    place = line.folder / "bad.csv"
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "device":
            place.symlink_to("/dev/zero")
        case "loop":
            place.symlink_to(place)
    check_refused(line.run("corpus", "bad.csv"), "bad.csv")


CELLS = (
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "\x1b]0;title\x07\x9b2J",
    "a\u202eb\u2028c",
    "../../etc/passwd",
    "{prompt}{0.__class__}%s%n",
    "\\input{/etc/passwd}",
)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: ascii(cell)[1:20])
def test_a_cell_is_text_and_no_more(line: CommandLine, cell: str) -> None:
    write_corpus(line.folder / "good.csv")
    good = (line.folder / "good.csv").read_text()
    first = good.splitlines()[1].split(",")
    first[2:] = [cell.replace(",", " "), cell.replace(",", " ")]
    line.write("odd.csv", good.replace(good.splitlines()[1], ",".join(first), 1))
    with nothing_written(line.folder):
        done = line.run("corpus", "odd.csv")
        check_printable(done)
        assert done.code in (0, 2), done
        check_printable(line.run("corpus", "odd.csv", "--json"))


@pytest.mark.parametrize(
    "content",
    [
        b'{"reply": "a", "reference": ' + b"[" * 100_000 + b"\n",
        b'{"reply": "a", "reference": ' + b"9" * 5000 + b"}\n",
        b'{"reply": "\\ud800", "reference": "b"}\n',
        b"\x1b[2J\n",
        pickle.dumps(Bomb()),
    ],
    ids=["deep", "digits", "half a character", "escape", "pickle"],
)
def test_hostile_replies_are_refused(line: CommandLine, content: bytes) -> None:
    line.write("replies.jsonl", content)
    with nothing_written(line.folder):
        check_refused(
            line.run("score", "replies.jsonl", "--bertscore-model", "none"), "replies.jsonl"
        )
