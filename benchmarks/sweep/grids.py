"""The grids that are run by everyone: as a search space of ours, and as trials for a plain script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from search_spaces.spec import BaseSettings, DeltaSettings, SftSettings, TrialSpec
from trainers.delta import virtual_tokens
from trainers.encoder_files import BUNDLED_ENCODER

Grid = Literal["delta", "mixed"]

_PEFT_KINDS = ("lora", "prefix", "prompt", "p-tuning", "ia3", "ln-tuning")
"""What PEFT offers of our delta methods."""


@dataclass(frozen=True)
class Sizes:
    """How much work a trial is."""

    train_pairs: int
    valid_pairs: int
    test_pairs: int
    epochs: int
    new_tokens: int
    max_length: int


@dataclass(frozen=True)
class Axes:
    """What a grid varies."""

    learning_rates: tuple[float, ...]
    ranks: tuple[int, ...]
    batch_sizes: tuple[int, ...]


DEFAULT_AXES: Mapping[Grid, Axes] = {
    "delta": Axes((1e-3, 5e-4, 2e-4, 1e-4), (4, 8), (2, 4)),
    "mixed": Axes((1e-3, 3e-4), (8,), (4,)),
}


def write_space(grid: Grid, axes: Axes, sizes: Sizes, model: Path, file: Path) -> None:
    """Write a grid as a search space.

    Args:
        grid: `delta`: LoRA over learning rate, rank and batch size. `mixed`: the untrained model, and full
            fine-tuning and PEFT's methods over learning rate, batch size and both loaders.
        axes: values of the axes; `mixed` takes the first rank alone.
        sizes: of each trial.
        model: folder of the model.
        file: YAML file to write.
    """
    values: dict[str, Any] = {
        "learning_rate": list(axes.learning_rates),
        "batch_size": list(axes.batch_sizes),
    }
    lora = {"kind": "delta", "peft_type": "lora"}
    if grid == "delta":
        values["rank"] = list(axes.ranks)
        methods: list[dict[str, Any]] = [lora]
    else:
        values["loader"] = ["v1", "v2"]
        others = [{"kind": "delta", "peft_type": kind} for kind in _PEFT_KINDS if kind != "lora"]
        methods = [{"kind": "base"}, {"kind": "sft"}, {**lora, "rank": axes.ranks[0]}, *others]
    space = {
        "name": f"sweep_{grid}",
        "defaults": {
            "model": str(model),
            "epochs": sizes.epochs,
            "max_train_pairs": sizes.train_pairs,
            "max_valid_pairs": sizes.valid_pairs,
            "max_test_pairs": sizes.test_pairs,
            "max_length": sizes.max_length,
            "max_new_tokens": sizes.new_tokens,
            "bertscore_model": BUNDLED_ENCODER,
        },
        "stages": [{"name": grid, "grid": values, "methods": methods}],
    }
    file.write_text(yaml.safe_dump(space, sort_keys=False), encoding="utf-8")


def plain_trial(name: str, spec: TrialSpec, data: Path) -> dict[str, Any]:
    """A trial as the plain script is told of it.

    Args:
        name: by which its outcome is told from others'.
        spec: the trial.
        data: folder of its data.

    Raises:
        ValueError: the plain script knows no such method.
    """
    rank, alpha, tokens = 0, 0.0, 0
    match spec.method:
        case BaseSettings() | SftSettings():
            method: str = spec.method.kind
        case DeltaSettings(peft_type=kind, dropout=0.0, target_modules=None) if kind in _PEFT_KINDS:
            method, rank, alpha = kind, spec.method.rank, spec.method.alpha
            tokens = virtual_tokens(spec.method)
        case _:
            raise ValueError(f"the plain script has no {spec.method}")
    return {
        "id": name,
        "method": method,
        "rank": rank,
        "alpha": alpha,
        "num_virtual_tokens": tokens,
        "learning_rate": spec.training.learning_rate,
        "batch_size": spec.training.batch_size,
        "epochs": spec.training.epochs,
        "seed": spec.seed,
        "data": str(data),
    }


def plain_settings(spec: TrialSpec, model: Path, encoder: Path, layer: int) -> dict[str, Any]:
    """What all trials of a grid share, as the plain script is told of it.

    Args:
        spec: any of the grid's trials.
        model: folder of the model.
        encoder: folder of BERTScore's encoder.
        layer: that is read of it.
    """
    return {
        "model": str(model),
        "encoder": str(encoder),
        "encoder_layer": layer,
        "precision": spec.training.precision,
        "max_length": spec.training.max_length,
        "max_new_tokens": spec.decoding.max_new_tokens,
        "beams": list(spec.decoding.beams),
        "valid_beams": list(spec.decoding.valid_beams),
        "eval_batch_size": spec.decoding.eval_batch_size,
    }
