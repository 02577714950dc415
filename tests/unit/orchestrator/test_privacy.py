"""The privacy gate as people meet it: the setting, and what `corpus` and `doctor` say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flow.sweeps import write_corpus
from tests.unit.corpora.small_corpora import hope, write
from tests.unit.orchestrator.command_line import CommandLine

SPACE = """\
name: tiny
defaults: {model: medium, max_length: 96, max_new_tokens: 8, bertscore_model: null%s}
stages:
  - {name: first, %s methods: [{kind: base}]}
"""


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    here = CommandLine(tmp_path, monkeypatch, capsys)
    write_corpus(tmp_path / "corpus.csv")
    return here


def planned(line: CommandLine, *options: str, default: str = "") -> tuple[str, str]:
    """A trial's id and setting."""
    line.write("grid.yaml", SPACE % (default, ""))
    done = line.run(
        "plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv", "--json", *options
    )
    assert done.code == 0, done.err
    (trial,) = done.json["trials"]
    return trial["id"], trial["spec"]["corpus"]["privacy"]


def test_the_setting_changes_no_identity(line: CommandLine) -> None:
    ways = [
        planned(line),
        planned(line, default=", privacy: redact"),
        planned(line, default=", privacy: drop"),
        planned(line, default=", privacy: off"),
        planned(line, "--set", "privacy=off"),
        planned(line, "--set", "privacy=drop"),
        planned(line, "--set", "privacy=redact", default=", privacy: off"),
    ]
    assert len({trial for trial, _ in ways}) == 1
    settings = [setting for _, setting in ways]
    assert settings == ["redact", "redact", "drop", "off", "off", "drop", "redact"]


def test_it_is_no_axis(line: CommandLine) -> None:
    line.write("grid.yaml", SPACE % ("", "grid: {privacy: [redact, drop]},"))
    done = line.run("plan", "grid.yaml", "--scale", "laptop", "--corpus", "corpus.csv")
    assert done.code == 2
    assert "privacy: a corpus must have one setting" in done.err
    assert "redact, drop" in done.err


def test_a_wrong_setting_is_told(line: CommandLine) -> None:
    line.write("grid.yaml", SPACE % ("", ""))
    done = line.run("plan", "grid.yaml", "--set", "privacy=redacted")
    assert done.code == 2
    assert "must be redact, drop, off, got 'redacted'; did you mean redact?" in done.err


def test_corpus_says_kinds_and_places_and_never_the_text(line: CommandLine, tmp_path: Path) -> None:
    rows = ("4_0,P,I am jane dot doe at gmail dot com,gc", "4_1,T,Still at 42 Maple Drive?,id")
    file = write(tmp_path / "a.csv", hope(*rows))
    done = line.run("corpus", str(file))
    assert done.code == 0
    assert "identifiers: email 1, address 1" in done.out
    assert "  email: session 4, turn 0\n" in done.out
    assert "  address: session 4, turn 1\n" in done.out
    assert "names: names are" in done.out
    data = line.run("corpus", str(file), "--json").json
    assert data["identifier_places"][1] == {
        "kind": "address",
        "session": "4",
        "turn": 1,
        "count": 1,
    }
    for out in (done.out, str(data)):
        assert "jane" not in out
        assert "Maple" not in out


def test_corpus_shows_nothing_that_a_terminal_would_obey(line: CommandLine, tmp_path: Path) -> None:
    rows = (
        "\x1b[31ms\u202e_0,P,a@b.org,\x9bzz",
        "\x1b[31ms\u202e_1,T,ok,id",
    )
    file = write(tmp_path / "a.csv", hope(*rows))
    for done in (line.run("corpus", str(file)), line.run("corpus", str(file), "--json")):
        assert not set(done.out + done.err) & set("\x1b\x9b\u202e")


def test_doctor_says_how_names_would_be_found(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpora.names._MODELS", ())
    checks = {check["name"]: check for check in line.run("doctor", "--json").json["checks"]}
    check = checks["names in logged texts"]
    assert (check["ok"], check["needed"]) == (False, False)
    assert "sweep-orchestrator[privacy]" in check["remedy"]
