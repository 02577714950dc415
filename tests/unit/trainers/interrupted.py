"""Trainings that are interrupted, and what an undisturbed one would have come to.

Run as a program, it trains until it kills itself.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from corpora.dialogue import PairSplits
from search_spaces.identity import spec_from_dict, spec_to_dict
from search_spaces.spec import (
    DeltaSettings,
    DialogueActSettings,
    Method,
    PeftType,
    SftSettings,
    TrialSpec,
)
from tests.tiny import tiny_pairs, tiny_spec
from trainers.checkpoints import CheckpointSettings
from trainers.progress import EpochReport, ShouldStop, never
from trainers.select import train
from trainers.tuned import TunedModel

PAIRS = tiny_pairs(train=7)
EVERY_STEP = CheckpointSettings(1, "steps")
METHODS: dict[str, Method] = {
    "sft": SftSettings(),
    **{peft_type: DeltaSettings(peft_type=peft_type) for peft_type in get_args(PeftType)},
    "lora": DeltaSettings(peft_type="lora", rank=2, dropout=0.2),
    "acts": DialogueActSettings(),
    "acts-lora": DialogueActSettings(tuning="lora", rank=2),
}
STEPS = 6
"""3 epochs of 2 optimiser steps, the second of 3 pairs in 2 forward passes."""


def interrupted_spec(source: Path, name: str = "lora", **training: Any) -> TrialSpec:
    settings = {
        "max_steps": None,
        "epochs": 3,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "warmup_steps": 1,
        "weight_decay": 0.01,
        **training,
    }
    return tiny_spec(source, METHODS[name], **settings)


@dataclass
class Training:
    """One training in a folder, as often as it is called."""

    source: Path
    workdir: Path
    spec: TrialSpec
    pairs: PairSplits = PAIRS
    told: list[EpochReport] = field(default_factory=list)

    def __call__(
        self,
        should_stop: ShouldStop = never,
        checkpoints: CheckpointSettings = EVERY_STEP,
        on_epoch: Callable[[EpochReport], None] | None = None,
    ) -> TunedModel:
        return train(
            self.spec,
            self.source,
            self.pairs,
            self.workdir,
            on_epoch or self.told.append,
            checkpoints=checkpoints,
            should_stop=should_stop,
        )

    def stop_after(self, asked: int) -> ShouldStop:
        """True once it was asked so often: it is asked before training, then after every step."""
        return after(asked, lambda: True)

    def checkpoints(self) -> list[str]:
        return sorted(folder.name for folder in self.workdir.glob("*checkpoint-*"))


def after(asked: int, act: Callable[[], bool]) -> ShouldStop:
    count = 0

    def should_stop() -> bool:
        nonlocal count
        count += 1
        return count > asked and act()

    return should_stop


@dataclass(frozen=True)
class Outcome:
    """All that a training leaves, but for the time it took."""

    model: dict[str, bytes]
    rows: list[dict[str, str]]
    losses: tuple[float | None, float | None]
    digest: str


def outcome(tuned: TunedModel, workdir: Path) -> Outcome:
    with (workdir / "train.csv").open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
    left = {entry.name for entry in workdir.iterdir()}
    assert left == {"train.csv", "trained.json", "model"}
    model = {file.name: file.read_bytes() for file in (workdir / "model").iterdir()}
    return Outcome(model, rows, (tuned.train_loss, tuned.valid_loss), tuned.digest)


def kill() -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def main() -> None:
    spec_file, source, workdir, where, count, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    training = Training(
        Path(source), Path(workdir), spec_from_dict(json.loads(Path(spec_file).read_text()))
    )
    if where == "step":
        training(after(int(count), kill))
    from trainers import checkpoint_files

    describe = checkpoint_files.describe_files
    killer = after(int(count), kill)

    def describe_or_die(folder: Path) -> Any:
        killer()
        return describe(folder)

    checkpoint_files.describe_files = describe_or_die
    training()


def write_spec(spec: TrialSpec, file: Path) -> Path:
    file.write_text(json.dumps(spec_to_dict(spec)))
    return file


if __name__ == "__main__":
    main()
