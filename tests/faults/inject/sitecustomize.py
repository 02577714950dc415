"""Faults for workers of a real sweep: Python imports this where its folder is on PYTHONPATH.

`FAULTS` says what happens to which trials: a JSON object from learning rates to names of faults.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FAULTS = {float(rate): name for rate, name in json.loads(os.environ.get("FAULTS", "{}")).items()}
_fault = ""
"""Of the trial at work."""


def _die_once() -> None:
    mark = Path(os.environ["FAULT_MARK"])
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _eat() -> None:
    """Take memory until somebody minds."""
    import numpy as np

    taken = []
    while True:
        taken.append(np.ones(20_000_000))
        time.sleep(0.05)


def _set_clock_back() -> None:
    """As when a laptop wakes up and is told the right time: a day earlier than it thought."""
    now = time.time
    time.time = lambda: now() - 86_400


def _patch_select(module: ModuleType) -> None:
    train_task = module.train_task

    def faulty(task: Any) -> Any:
        global _fault
        _fault = FAULTS.get(task.spec.training.learning_rate, "")
        if _fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return train_task(task)

    module.train_task = faulty  # type: ignore[attr-defined]


def _patch_trl(module: ModuleType) -> None:
    import torch

    step = module.SFTTrainer.training_step

    def faulty(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        rows = len(inputs["input_ids"])
        if _fault == "oom" and rows > 1:
            raise torch.OutOfMemoryError("injected: tried to allocate 9.00 GiB")
        if _fault == "oom_always":
            raise torch.OutOfMemoryError("injected: tried to allocate 9.00 GiB")
        if _fault == "eat" and rows > 1:
            _eat()
        if _fault == "die_once" and self.state.global_step == 7:
            _die_once()
        if _fault == "clock" and self.state.global_step == 5:
            _set_clock_back()
        loss = step(self, model, inputs, *rest, **named)
        if _fault == "nan" and self.state.global_step == 5:
            return loss * float("nan")
        return loss

    module.SFTTrainer.training_step = faulty  # type: ignore[attr-defined]


def _patch_evaluate(module: ModuleType) -> None:
    evaluate = module.evaluate

    def faulty(*arguments: Any, **named: Any) -> Any:
        if _fault == "error":
            raise RuntimeError("injected: the first line\nand a second")
        return evaluate(*arguments, **named)

    module.evaluate = faulty  # type: ignore[attr-defined]


_PATCHES = {
    "trainers.select": _patch_select,
    "trl.trainer.sft_trainer": _patch_trl,
    "evaluators.evaluate": _patch_evaluate,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module right after it was imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        patch = _PATCHES.pop(name, None)
        if patch is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_patch(module: ModuleType) -> None:
            run(module)
            patch(module)

        spec.loader.exec_module = run_and_patch  # type: ignore[method-assign]
        return spec


if FAULTS:
    sys.meta_path.insert(0, _Finder())
