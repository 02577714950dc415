"""TRL's SFTTrainer, made to continue where it was interrupted, to validate and to stop.

Imported late: TRL is slow to import.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer

from trainers.checkpointed_trainer import CheckpointedTrainer, NothingLeftError, Surroundings
from trainers.checkpoints import CheckpointClock
from trainers.course import Course
from trainers.encoding import EncodedPair
from trainers.errors import DivergedError, StoppedError
from trainers.loss import mean_token_loss
from trainers.progress import OnEpoch, ShouldStop, write_steps

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SupervisedSurroundings(Surroundings):
    """What a supervised training needs to know beside what the Trainer does."""

    steps_per_epoch: int
    valid: Sequence[EncodedPair]
    on_epoch: OnEpoch
    should_stop: ShouldStop
    clock: CheckpointClock
    course: Course


class ResumableTrainer(CheckpointedTrainer, SFTTrainer):  # type: ignore[misc]
    """An SFTTrainer that saves and restores everything that its next step depends on."""

    around: SupervisedSurroundings

    def begin(self, around: SupervisedSurroundings) -> None:
        """Train to the end.

        Args:
            around: set once, before training.

        Raises:
            DivergedError: a loss or gradient became NaN or infinite.
            StoppedError: `should_stop` said so; a checkpoint is in place.
        """
        self.around = around
        self.add_callback(_Listener(self))
        self.run()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; ends the training where the loss is no number."""
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.around.course.add_loss(self.state.global_step + 1, loss.item())
        return loss

    def save(self) -> bool:
        """Write a checkpoint of the last optimiser step, and the log; False where it is there."""
        around, began = self.around, time.monotonic()
        if not super().save():
            return False
        step, epoch = int(self.state.global_step), float(self.state.epoch or 0.0)
        write_steps(around.workdir / "train.csv", around.course.rows)
        around.clock.saved(step, epoch, around.course.seconds, time.monotonic() - began)
        return True


class _Listener(TrainerCallback):
    """Measures validation loss at each epoch's end; says when to save and when to stop."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.around = trainer.around

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.around.checkpoint is None:
            return
        self.trainer.expect_restored("weights", "optimizer")
        if self._ends_epoch(state) and self.around.course.validated_step != state.global_step:
            self._end_epoch(state, rest["model"])  # It was stopped in between.
        if state.global_step >= state.max_steps:
            raise NothingLeftError

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.around.course.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.around.course.end_step()
        self.trainer.expect_restored("random")
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
