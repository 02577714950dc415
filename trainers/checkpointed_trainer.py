"""transformers' Trainer, made to continue where an earlier process was killed, as if nothing had been.

The Trainer's own checkpoints are written in place and hold pickles; here are the hooks by which it
saves and restores, put on `checkpoint_files.py`. Imported late: transformers is slow to import.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback, Trainer

from trainers.checkpoint_files import Checkpoint, write_checkpoint
from trainers.errors import StoppedError
from trainers.training_state import (
    capture_training,
    restore_optimizer,
    restore_random,
    restore_weights,
)

if TYPE_CHECKING:
    from torch import nn


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
        tensors, state = capture_training(
            _trained(self),
            self.optimizer,
            self.lr_scheduler,
            getattr(self.accelerator, "scaler", None),
            step,
            float(self.state.epoch or 0.0),
        )
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
            restore_weights(self.around.checkpoint, _trained(self))
            self.restored |= {"weights"}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.around.checkpoint is not None:
            restore_optimizer(
                self.around.checkpoint,
                self.optimizer,
                self.lr_scheduler,
                getattr(self.accelerator, "scaler", None),
            )
            self.restored |= {"optimizer"}

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.around.checkpoint is not None:
            restore_random(self.around.checkpoint)
            self.restored |= {"random"}


def _trained(trainer: CheckpointedTrainer) -> dict[str, nn.Parameter]:
    return {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}


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
