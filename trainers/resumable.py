"""TRL's trainer, made to continue where an earlier process was killed, as if nothing had been.

The Trainer's own checkpoints are written in place and hold pickles; here are the hooks by which it
saves and restores, put on `checkpoint_files.py`. Imported late: TRL is slow to import.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from trainers.checkpoint_files import WEIGHTS, Checkpoint, write_checkpoint
from trainers.checkpoints import CheckpointClock
from trainers.course import Course
from trainers.encoding import EncodedPair
from trainers.errors import DivergedError, StoppedError
from trainers.loss import mean_token_loss
from trainers.progress import OnEpoch, ShouldStop, write_steps

if TYPE_CHECKING:
    from torch import nn

_OPTIMIZER = "optimizer/"
_RANDOM = "random/"


class NothingLeftError(Exception):
    """The checkpoint is of the last step: there is nothing to train."""


@dataclass(frozen=True)
class Surroundings:
    """What a training needs to know beside what the Trainer does."""

    workdir: Path
    """The trial's folder."""
    identity: str
    """What a checkpoint must say to be this training's."""
    batch_size: int
    """Pairs per forward pass."""
    steps_per_epoch: int
    valid: Sequence[EncodedPair]
    on_epoch: OnEpoch
    should_stop: ShouldStop
    clock: CheckpointClock
    course: Course
    checkpoint: Checkpoint | None
    """Where to continue from."""


class ResumableTrainer(SFTTrainer):  # type: ignore[misc]
    """An SFTTrainer that saves and restores everything that its next step depends on."""

    around: Surroundings
    stopping = False
    """Whether to raise StoppedError after the next save."""
    restored: frozenset[str] = frozenset()
    """Which parts of the checkpoint were asked for so far."""

    def begin(self, around: Surroundings) -> None:
        """Train to the end.

        Args:
            around: set once, before training.

        Raises:
            DivergedError: a loss or gradient became NaN or infinite.
            StoppedError: `should_stop` said so; a checkpoint is in place.
        """
        self.around = around
        self.add_callback(_Listener(self))
        folder = _write_trainer_state(self, around.checkpoint) if around.checkpoint else None
        try:
            self.train(resume_from_checkpoint=folder)
        except NothingLeftError:
            return

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; ends the training where the loss is no number."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.around.course.add_loss(self.state.global_step + 1, loss.item())
        return loss

    def save(self) -> None:
        """Write a checkpoint of the last optimiser step."""
        around, began = self.around, time.monotonic()
        step, epoch = int(self.state.global_step), float(self.state.epoch or 0.0)
        if around.checkpoint is not None and around.checkpoint.step == step:
            return  # It is there already, and the random states may not be restored from it yet.
        tensors, state = _capture(self)
        write_checkpoint(around.workdir, step, around.identity, tensors, state)
        write_steps(around.workdir / "train.csv", around.course.rows)
        around.clock.saved(step, epoch, around.course.seconds, time.monotonic() - began)

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


class _Listener(TrainerCallback):
    """Measures validation loss at each epoch's end; says when to save and when to stop."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.around = trainer.around

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.around.checkpoint is None:
            return
        self._expect("weights", "optimizer")
        if self._ends_epoch(state) and self.around.course.validated_step != state.global_step:
            self._end_epoch(state, rest["model"])  # It was stopped in between.
        if state.global_step >= state.max_steps:
            raise NothingLeftError

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.around.course.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.around.course.end_step()
        if self.around.checkpoint is not None:
            self._expect("random")
        if self.around.should_stop():
            self.trainer.stopping = control.should_save = True
        elif not self._ends_epoch(state):  # Else after the validation.
            control.should_save = self._is_due(state)

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        logs = rest["logs"]
        if "loss" not in logs:
            return  # The Trainer's closing summary is no step.
        norm = float(logs["grad_norm"]) if logs.get("grad_norm") is not None else None
        self.around.course.log(state.global_step, state.epoch, logs.get("learning_rate"), norm)
        # In fp16 an infinite gradient is a matter of scale: the step is left out and the scale cut.
        if norm is not None and not math.isfinite(norm) and not args.fp16:
            raise DivergedError(state.global_step, norm, "gradient norm")

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._end_epoch(state, rest["model"])
        if state.global_step < state.max_steps:
            control.should_save = self._is_due(state)

    def _end_epoch(self, state: Any, model: Any) -> None:
        around = self.around
        try:
            loss = mean_token_loss(model, around.valid, around.should_stop)
        except StoppedError:
            self.trainer.save()
            raise
        around.course.end_epoch(state.global_step, state.max_steps, state.epoch, loss)
        write_steps(around.workdir / "train.csv", around.course.rows)
        if around.course.report is not None:
            around.on_epoch(around.course.report)

    def _ends_epoch(self, state: Any) -> bool:
        step: int = state.global_step
        return step % self.around.steps_per_epoch == 0 or step >= state.max_steps

    def _is_due(self, state: Any) -> bool:
        around = self.around
        return around.clock.is_due(state.global_step, state.epoch, around.course.seconds)

    def _expect(self, *parts: str) -> None:
        """A Trainer that no longer calls a hook must not train on as if it had."""
        if missed := sorted(set(parts) - self.trainer.restored):
            raise RuntimeError(
                f"this version of transformers restores no {' and '.join(missed)} from a checkpoint"
            )


def _capture(trainer: ResumableTrainer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
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
        "batch_size": trainer.around.batch_size,
        "course": trainer.around.course.to_json(),
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


def _restore_weights(trainer: ResumableTrainer, checkpoint: Checkpoint) -> None:
    tensors = checkpoint.tensors(WEIGHTS)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[name])


def _restore_optimizer(trainer: ResumableTrainer, checkpoint: Checkpoint) -> None:
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


def _write_trainer_state(trainer: ResumableTrainer, checkpoint: Checkpoint) -> str:
    """Where the Trainer is to go on, in the file in which it looks for that."""
    folder = Path(trainer.args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "global_step": checkpoint.step,
        "epoch": checkpoint.state["epoch"],
        "logging_steps": int(trainer.args.logging_steps),
        "train_batch_size": trainer.around.batch_size,
    }
    (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return str(folder)
