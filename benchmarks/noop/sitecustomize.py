"""Trials that do no work, for workers of a real sweep: Python imports this where its folder is on PYTHONPATH.

Training and evaluation are replaced; reading the corpus, the trial's lock, its files, its result and
whatever the sweep does with them are as always.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

_COLUMNS = "step,epoch,train_loss,valid_loss,learning_rate,grad_norm,seconds"


@dataclass(frozen=True)
class _Tuned:
    """What `trainers.tuned.TunedModel` says of a training, without a model."""

    train_loss: float
    valid_loss: float
    digest: str = "0" * 64
    seconds: float = 0.01
    seconds_per_step: float = 0.001
    trainable_parameters: int = 1000
    total_parameters: int = 100_000
    truncated_references: int = 0
    adjusted: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Evaluation:
    """What `evaluators.evaluate.Evaluation` says of two replies that nobody generated."""

    scores: dict[str, float]
    scored_test_pairs: int = 2
    checks: dict[str, int] = field(
        default_factory=lambda: {"empty_replies": 0, "identical_replies": 0}
    )
    encoder: None = None
    adjusted: dict[str, int] = field(default_factory=dict)

    def write_replies(self, file: Path) -> None:
        rows = [
            {
                "part": "test",
                "beam": 1,
                "pair_id": f"s{number}:1",
                "prompt": "I cannot sleep.",
                "reference": "What keeps you awake?",
                "reply": "Tell me more.",
                "act": "irq",
                "rouge1": 10.0,
                "meteor": 0.1,
            }
            for number in range(2)
        ]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def _loss(spec: Any) -> float:
    """A number that differs from trial to trial, so that there is a winner."""
    rate = spec.training.learning_rate * 1000
    return float(2 + rate % 1 + spec.training.batch_size / 100 + spec.seed / 10_000)


def _train(spec: Any, source: Path, pairs: Any, folder: Path, *rest: Any, **named: Any) -> _Tuned:
    loss = _loss(spec)
    rows = [
        f"{step},{step / 4},{loss + 1 / step:.4f},,1e-4,1.0,{step / 100}" for step in range(1, 5)
    ]
    text = "\n".join([_COLUMNS, *rows, f"4,1.0,,{loss:.4f},,,0.05"])
    (folder / "train.csv").write_text(f"{text}\n")
    return _Tuned(loss + 0.25, loss)


def _evaluate(tuned: _Tuned, pairs: Any, spec: Any, *rest: Any, **named: Any) -> _Evaluation:
    level = 20 - tuned.valid_loss
    scores = {
        f"{part}/{name}_beam{beam}": value
        for part in ("valid", "test")
        for beam in (1, 2, 4)
        for name, value in (("rouge1", level), ("rouge2", level / 2), ("meteor", level / 100))
    }
    return _Evaluation(scores)


def _replace(name: str, **functions: Any) -> None:
    module = ModuleType(name)
    vars(module).update(functions)
    sys.modules[name] = module


_replace("trainers.select", train=_train)
_replace("evaluators.evaluate", evaluate=_evaluate)
