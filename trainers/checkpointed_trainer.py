"""transformers' Trainer, made to continue where an earlier process was killed, as if nothing had been.

The Trainer's own checkpoints are written in place and hold pickles; here are the hooks by which it
saves and restores, put on `checkpoint_files.py`. Imported late: transformers is slow to import.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PrinterCallback, ProgressCallback, Trainer

from trainers.checkpoint_files import WEIGHTS, Checkpoint, write_checkpoint
from trainers.errors import StoppedError

if TYPE_CHECKING:
    from torch import nn

_OPTIMIZER = "optimizer/"
_RANDOM = "random/"


class NothingLeftError(Exception):
    """The checkpoint is of the last step: there is nothing to train."""


@dataclass(frozen=True)
class Surroundings:
    """What a Trainer needs to know to save and to continue."""

    workdir: Path
    """The training's folder."""
    identity: str
    """What a checkpoint must say to be this training's."""
    batch_size: int
    """Examples per forward pass."""
    checkpoint: Checkpoint | None
    """Where to continue from."""
    content: Callable[[], Mapping[str, Any]]
    """What else belongs in a checkpoint, as JSON data."""


class CheckpointedTrainer(Trainer):
    """A Trainer that saves and restores everything that its next step depends on.

    It comes before TRL's trainer among the bases of a class.
    """

    around: Surroundings
    # A Trainer that trains has them all, whatever their types say.
    model: Any
    optimizer: Any
    lr_scheduler: Any
    stopping = False
    """Whether to raise StoppedError after the next save."""
    restored: frozenset[str] = frozenset()
    """Which parts of the checkpoint were asked for so far."""

    def run(self) -> None:
        """Train to the end, silently.

        Raises:
            StoppedError: `stopping` was set; a checkpoint is in place.
        """
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)
        checkpoint = self.around.checkpoint
        folder = _write_trainer_state(self, checkpoint) if checkpoint else None
        try:
            self.train(resume_from_checkpoint=folder)
        except NothingLeftError:
            return

    def save(self) -> bool:
        """Write a checkpoint of the last optimiser step; False where it is there already."""
        around, step = self.around, int(self.state.global_step)
        if around.checkpoint is not None and around.checkpoint.step == step:
            return False  # And the random states may not be restored from it yet.
        tensors, state = _capture(self)
        state = {**state, "batch_size": around.batch_size, **around.content()}
        write_checkpoint(around.workdir, step, around.identity, tensors, state)
        return True

    def expect_restored(self, *parts: str) -> None:
        """A Trainer that no longer calls a hook must not train on as if it had.

        Args:
            parts: of `weights`, `optimizer` and `random`, what must be restored by now where
                there is a checkpoint.
        """
        if self.around.checkpoint is None:
            return
        if missed := sorted(set(parts) - self.restored):
            raise RuntimeError(
                f"this version of transformers restores no {' and '.join(missed)} from a checkpoint"
            )

    # The Trainer's hooks, by the names they have had since its version 4.

    def _save_checkpoint(self, model: nn.Module, trial: object = None) -> None:
        self.save()
        if self.stopping:
            raise StoppedError(f"training was asked to stop at step {self.state.global_step}")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.around.checkpoint is not None:
            _restore_weights(self, self.around.checkpoint)
            self.restored |= {"weights"}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.around.checkpoint is not None:
            _restore_optimizer(self, self.around.checkpoint)
            self.restored |= {"optimizer"}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.around.checkpoint is not None:
            _restore_random(self.around.checkpoint)
            self.restored |= {"random"}


def _capture(trainer: CheckpointedTrainer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Everything that the next step depends on, as tensors and JSON data."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {
        WEIGHTS + name: parameter.detach().contiguous()
        for name, parameter in trainer.model.named_parameters()
        if parameter.requires_grad
    }
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in optimizer["state"].items():
        scalars[str(index)] = {}
        for key, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{_OPTIMIZER}{index}/{key}"] = value.detach().contiguous()
            else:
                scalars[str(index)][key] = value
    tensors[_RANDOM + "cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[_RANDOM + "cuda"] = torch.cuda.get_rng_state()
    kind, keys, *position = np.random.get_state()
    scaler = getattr(trainer.accelerator, "scaler", None)
    state = {
        "step": int(trainer.state.global_step),
        "epoch": float(trainer.state.epoch or 0.0),
        "optimizer_state": scalars,
        "optimizer_groups": [_scalars(group) for group in optimizer["param_groups"]],
        "scheduler": trainer.lr_scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "random_python": random.getstate(),
        "random_numpy": [kind, np.asarray(keys).tolist(), *position],
    }
    return tensors, state


def _scalars(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group's settings that can change; tuples (betas) are as the trial says."""
    return {k: v for k, v in group.items() if v is None or isinstance(v, int | float | str)}


def _restore_weights(trainer: CheckpointedTrainer, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors(WEIGHTS)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def _restore_optimizer(trainer: CheckpointedTrainer, checkpoint: Checkpoint) -> None:
    saved = checkpoint.state
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in saved["optimizer_state"].items()
    }
    for name, tensor in checkpoint.tensors(_OPTIMIZER).items():
        index, key = name.split("/", 1)
        state[int(index)][key] = tensor
    groups = [
        {**fresh, **group}
        for fresh, group in zip(
            trainer.optimizer.state_dict()["param_groups"], saved["optimizer_groups"], strict=True
        )
    ]
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
    trainer.lr_scheduler.load_state_dict(dict(saved["scheduler"]))
    scaler = getattr(trainer.accelerator, "scaler", None)
    if scaler is not None and saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])


def _restore_random(checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors(_RANDOM)
    torch.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available() and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])
    version, numbers, gauss = checkpoint.state["random_python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *position = checkpoint.state["random_numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *position))


def _write_trainer_state(trainer: CheckpointedTrainer, checkpoint: Checkpoint) -> str:
    """Where the Trainer is to go on, in the file in which it looks for that."""
    folder = Path(str(trainer.args.output_dir))
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "global_step": checkpoint.step,
        "epoch": checkpoint.state["epoch"],
        "logging_steps": int(trainer.args.logging_steps),
        "train_batch_size": trainer.around.batch_size,
    }
    (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return str(folder)
