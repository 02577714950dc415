"""The course of a training: its losses and its log, in a form that a checkpoint carries on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from trainers.errors import DivergedError
from trainers.progress import EpochReport, StepRow


class Course:
    """What training has come to.

    Args:
        earlier: what `to_json` gave in an earlier attempt; absent at the beginning.
        now_s: gives the seconds that its time is counted in; a training that shares its process's
            time with others has a clock of its own, others the system's.
        fused_with: how many others it trains together with.
    """

    def __init__(
        self,
        earlier: Mapping[str, Any] | None = None,
        now_s: Callable[[], float] | None = None,
        fused_with: int = 0,
    ) -> None:
        known = earlier or {}
        self._now_s = now_s or time.monotonic
        self.fused_with = max(fused_with, int(known.get("fused_with", 0)))
        """How many others it trained together with, at most, over all attempts."""
        self.rows = [StepRow(**row) for row in known.get("rows", ())]
        self.train_loss: float | None = known.get("train_loss")
        """Mean loss per counted token over the last logged steps."""
        self.valid_loss: float | None = known.get("valid_loss")
        self.validated_step = int(known.get("validated_step", 0))
        """Optimiser steps done at the last validation."""
        self.report = EpochReport(**known["report"]) if known.get("report") else None
        """The last finished epoch's."""
        # Kept here, not by the Trainer, whose sum since the last log does not outlive a process.
        self._loss_sum = float(known.get("loss_sum", 0.0))
        self._logged_step = int(known.get("logged_step", 0))
        self._earlier_s = float(known.get("seconds", 0.0))
        self._began = self._now_s()
        self._steps_s = float(known.get("steps_s", 0.0))
        self._timed_steps = int(known.get("timed_steps", 0))
        self._first_step_s: float | None = known.get("first_step_s")
        self._is_first = True
        self._step_began = self._began

    @property
    def seconds(self) -> float:
        """Training time over all attempts; what was lost with a killed one does not count."""
        return self._earlier_s + self._now_s() - self._began

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time of an optimiser step, over all attempts; absent where none was done.

        Validation and checkpoints are not in it, nor the first step of each attempt: it is slower
        than the others, for what is set up in it. A training of one step has that alone.
        """
        if self._timed_steps:
            return self._steps_s / self._timed_steps
        return self._first_step_s

    def begin_step(self) -> None:
        """An optimiser step begins."""
        self._step_began = self._now_s()

    def end_step(self) -> None:
        """The optimiser step that was begun is done."""
        took = self._now_s() - self._step_began
        if self._is_first:
            self._first_step_s, self._is_first = took, False
        else:
            self._steps_s += took
            self._timed_steps += 1

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON data."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "train_loss": self.train_loss,
            "valid_loss": self.valid_loss,
            "validated_step": self.validated_step,
            "report": asdict(self.report) if self.report else None,
            "loss_sum": self._loss_sum,
            "logged_step": self._logged_step,
            "seconds": self.seconds,
            "steps_s": self._steps_s,
            "timed_steps": self._timed_steps,
            "first_step_s": self._first_step_s,
            "fused_with": self.fused_with,
        }

    def add_loss(self, step: int, loss: float) -> None:
        """Count a forward pass.

        Args:
            step: the optimiser step it belongs to.
            loss: its share of the step's mean loss per counted token.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        self._loss_sum += loss

    def log(
        self, step: int, epoch: float, learning_rate: float | None, grad_norm: float | None
    ) -> None:
        """Add a line on the optimiser steps since the last one.

        Args:
            step: optimiser steps done.
            epoch: epochs done.
            learning_rate: of the last step.
            grad_norm: of the last step, before clipping; absent where it was not measured.
        """
        self.train_loss = self._loss_sum / (step - self._logged_step)
        self._loss_sum, self._logged_step = 0.0, step
        self.rows.append(
            StepRow(
                step,
                epoch,
                train_loss=self.train_loss,
                learning_rate=learning_rate,
                # An overflow of fp16 has no number that a file could keep.
                grad_norm=grad_norm if grad_norm is None or math.isfinite(grad_norm) else None,
                seconds=round(self.seconds, 3),
            )
        )

    def end_epoch(self, step: int, total_steps: int, epoch: float, valid_loss: float) -> None:
        """Add a line on a finished epoch.

        Args:
            step: optimiser steps done.
            total_steps: of the whole training.
            epoch: epochs done.
            valid_loss: mean loss per counted token over the validation pairs.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        if not math.isfinite(valid_loss):
            raise DivergedError(step, valid_loss, "validation loss")
        self.valid_loss, self.validated_step = valid_loss, step
        self.rows.append(
            StepRow(step, epoch, valid_loss=valid_loss, seconds=round(self.seconds, 3))
        )
        self.report = EpochReport(epoch, step, total_steps, self.train_loss, valid_loss)
