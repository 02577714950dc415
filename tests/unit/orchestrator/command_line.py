"""The command line, run in this process: what a person types, and what comes back."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs commands in a folder of the test's own, where no worker can be started.

    What a machine may lack and these tests are not about (WordNet, the hub) is taken as given, or
    as out of reach.
    """

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.capsys = capsys
        monkeypatch.chdir(folder)
        # From here on `import orchestrator.execution` fails, and with it everything that uses Ray.
        monkeypatch.setitem(sys.modules, "orchestrator.execution", None)
        monkeypatch.setattr("orchestrator.preflight.require_wordnet", lambda: folder)
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
        monkeypatch.setenv("ORCHESTRATOR_CACHE", str(folder / "cache"))
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("ORCHESTRATOR_MODELS", raising=False)

    def run(self, *arguments: str) -> Finished:
        self.monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        code = left.value.code
        assert isinstance(code, int)
        out, err = self.capsys.readouterr()
        return Finished(code, out, err)

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file
