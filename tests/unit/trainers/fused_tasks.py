"""LoRA trainings that differ in everything, to be trained alone and together.

Run as a program, it trains them together until it kills itself.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from corpora.dialogue import PairSplits
from search_spaces.spec import DeltaSettings, TrialSpec
from tests.tiny import tiny_pairs, tiny_spec
from tests.unit.trainers.interrupted import EVERY_STEP, after, kill
from trainers.checkpoints import CheckpointSettings
from trainers.progress import EpochReport, ShouldStop, never
from trainers.select import train
from trainers.task import TrainingTask
from trainers.tuned import TunedModel

STEPS = 21


def unlike_specs(source: Path, steps: int = STEPS, **common: Any) -> list[TrialSpec]:
    """Four that agree in nothing that may differ."""

    def spec(seed: int, method: dict[str, Any], **training: Any) -> TrialSpec:
        settings = DeltaSettings(peft_type="lora", **method)
        limits = {"max_steps": steps + seed, "epochs": 99, **common}
        return tiny_spec(source, settings, seed=seed, **{**training, **limits})

    return [
        spec(0, {"rank": 2}, batch_size=1, learning_rate=1e-3, lr_scheduler="constant"),
        spec(
            1,
            {"rank": 8, "alpha": 4.0, "dropout": 0.2},
            gradient_accumulation_steps=2,
            learning_rate=3e-3,
            warmup_steps=4,
            lr_scheduler="cosine",
            weight_decay=0.1,
            max_grad_norm=0.3,
        ),
        spec(
            2,
            {"rank": 4, "dropout": 0.1},
            batch_size=3,
            learning_rate=5e-3,
            max_grad_norm=0.0,
            max_length=40,
        ),
        spec(
            3,
            {"rank": 3},
            batch_size=1,
            gradient_accumulation_steps=4,
            learning_rate=2e-3,
            loss_on="all",
            packing=True,
        ),
    ]


PAIRS = (tiny_pairs(7), tiny_pairs(8, 3), tiny_pairs(6, 1), tiny_pairs(9, 2))


@dataclass
class Trainings:
    """The same trainings in folders of their own."""

    source: Path
    place: Path
    specs: list[TrialSpec]
    pairs: Sequence[PairSplits] = PAIRS
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)

    def __post_init__(self) -> None:
        self.told: list[list[EpochReport]] = [[] for _ in self.specs]
        self.place.mkdir(exist_ok=True)

    @property
    def tasks(self) -> list[TrainingTask]:
        return [
            TrainingTask(spec, self.source, pairs, self._folder(n), told.append, self.checkpoints)
            for n, (spec, pairs, told) in enumerate(
                zip(self.specs, itertools.cycle(self.pairs), self.told, strict=False)
            )
        ]

    def alone(self, number: int, should_stop: ShouldStop = never) -> TunedModel:
        task = self.tasks[number]
        return train(
            task.spec,
            task.source,
            task.pairs,
            task.workdir,
            task.on_epoch,
            checkpoints=task.checkpoints,
            should_stop=should_stop,
        )

    def all_alone(self) -> Trainings:
        for number in range(len(self.specs)):
            self.alone(number)
        return self

    def rows(self, number: int) -> list[dict[str, str]]:
        with (self._folder(number) / "train.csv").open(newline="") as stream:
            rows = csv.DictReader(stream)
            return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    def weights(self, number: int) -> dict[str, torch.Tensor]:
        return load_file(self._folder(number) / "model" / "adapter_model.safetensors")

    def settings(self, number: int) -> dict[str, bytes]:
        files = (self._folder(number) / "model").iterdir()
        return {f.name: f.read_bytes() for f in files if f.suffix != ".safetensors"}

    def _folder(self, number: int) -> Path:
        folder = self.place / str(number)
        folder.mkdir(exist_ok=True)
        return folder


def furthest_losses(one: Trainings, other: Trainings, number: int, column: str) -> float:
    """How far two logs are apart, which must have the same lines."""
    apart = 0.0
    for mine, theirs in zip(one.rows(number), other.rows(number), strict=True):
        assert {k: v == "" for k, v in mine.items()} == {k: v == "" for k, v in theirs.items()}
        assert mine["step"] == theirs["step"]
        assert float(mine["epoch"]) == float(theirs["epoch"])
        assert mine["learning_rate"] == theirs["learning_rate"]
        if mine[column]:
            apart = max(apart, abs(float(mine[column]) - float(theirs[column])))
    return apart


def furthest_weights(one: Trainings, other: Trainings, number: int) -> float:
    mine, theirs = one.weights(number), other.weights(number)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def even_specs(source: Path) -> list[TrialSpec]:
    """Three whose optimiser steps end together, some steps before the first of them ends."""
    return [
        tiny_spec(
            source,
            DeltaSettings(peft_type="lora", rank=rank, dropout=0.1),
            seed=rank,
            batch_size=1 + rank % 2,
            gradient_accumulation_steps=2,
            epochs=3,
            max_steps=steps,
        )
        for rank, steps in ((2, None), (3, 5), (5, None))
    ]


def main() -> None:
    from trainers.fused import train_fused

    source, place, asked, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    trainings = Trainings(
        Path(source), Path(place), even_specs(Path(source)), checkpoints=EVERY_STEP
    )
    train_fused(trainings.tasks, after(int(asked), kill))
    print(json.dumps("was not killed"))


if __name__ == "__main__":
    main()
