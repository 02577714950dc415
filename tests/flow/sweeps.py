"""A small experiment for flow tests: a corpus, a search space, and the command line in a process."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Grid = Mapping[str, Sequence[object]]
"""Values by field, of which a stage tries every combination."""

SMALL = {
    "max_length": 96,
    "max_new_tokens": 8,
    "learning_rate": 1e-3,
    "max_train_pairs": 24,
    "max_valid_pairs": 4,
    "max_test_pairs": 6,
    "bertscore_model": None,
}
"""Settings with which a trial of a tiny model takes seconds."""


@dataclass(frozen=True)
class Finished:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def write_corpus(file: Path, sessions: int = 10, turns: int = 12) -> Path:
    """A HOPE-format file with words that differ from turn to turn."""
    topics = ["sleep", "work", "my mother", "the exam", "the bus", "money", "the dog", "winter"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["ID", "Type", "Utterance", "Dialog_Act"])
        for session in range(sessions):
            for turn in range(turns):
                topic = topics[(session + turn) % len(topics)]
                patient = turn % 2 == 0
                text = (
                    f"I keep thinking about {topic} on day {turn + session}"
                    if patient
                    else f"What is it about {topic} that troubles you most at {turn} o'clock?"
                )
                writer.writerow(
                    [f"{session}_{turn}", "P" if patient else "T", text, "id" if patient else "irq"]
                )
    return file


def write_space(
    file: Path,
    name: str,
    model: Path,
    grid: Grid,
    methods: Sequence[Mapping[str, object]] = (),
    **defaults: object,
) -> Path:
    """A search space of small trials: fine-tuning over a grid, then its winner and other methods."""
    stages: list[dict[str, object]] = [
        {
            "name": "parameters",
            "table": "parameters",
            "grid": grid,
            "methods": [{"kind": "sft"}],
        }
    ]
    if methods:
        stages.append(
            {
                "name": "methods",
                "table": "methods",
                "from": {"stage": "parameters", "best": "valid/rouge1_beam1", "mode": "max"},
                "methods": methods,
            }
        )
    space = {"name": name, "defaults": {"model": str(model), **SMALL, **defaults}, "stages": stages}
    file.write_text(yaml.safe_dump(space, sort_keys=False), encoding="utf-8")
    return file


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *arguments]


def run(arguments: Sequence[str], cwd: Path, timeout_s: float = 200, **environ: str) -> Finished:
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def results(folder: Path) -> dict[str, dict[str, Any]]:
    files = folder.glob("trials/*/result.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}
