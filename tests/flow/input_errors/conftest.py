"""A folder with inputs that are as they should be, in which nothing may start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.input_errors.spoilt_spaces import SPACE
from tests.flow.sweeps import write_corpus
from tests.unit.orchestrator.command_line import CommandLine


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """A folder with a search space and a corpus that are as they should be."""
    here = CommandLine(tmp_path, monkeypatch, capsys)
    here.write("grid.yaml", SPACE)
    write_corpus(tmp_path / "corpus.csv")
    return here


@pytest.fixture(autouse=True)
def _nothing_starts(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "runs").exists(), "something was written before the input was checked"
