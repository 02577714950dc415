"""One training among those that share a frozen base: all that is its own.

Initial weights, order of the pairs, optimiser groups and schedule are those of the Trainer that would
train it alone, because that Trainer is asked for them. Imported late: TRL is slow to import.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import set_seed

from search_spaces.spec import DeltaSettings
from trainers.checkpoint_files import write_checkpoint
from trainers.checkpoints import CheckpointClock, checkpoint_bytes
from trainers.course import Course
from trainers.delta import adapt
from trainers.errors import DivergedError
from trainers.examples import check_length, encode_splits
from trainers.finished import write_finished
from trainers.fused_lora import AdapterStorage, Site
from trainers.fused_optimizer import AdamStep
from trainers.fused_rows import Example, as_example
from trainers.micro_batch import remembered_at_once
from trainers.progress import write_steps
from trainers.supervised import (
    make_trainer,
    optimizer_steps,
    sft_config,
    steps_per_epoch,
    take_off_training,
)
from trainers.task import TrainingTask
from trainers.training_state import (
    OwnRandomness,
    capture_training,
    restore_optimizer,
    restore_random,
    restore_weights,
)
from trainers.tune import begin_attempt, clear_attempts, finish_course

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SharedTime:
    """A training's share of its process's time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        """Seconds so far."""
        return self.seconds


class Member:
    """A LoRA training that goes on step by step, where its last attempt left off.

    Args:
        task: what is trained.
        identity: of the training.
        base: the frozen model; as it was afterwards.
        tokenizer: the model's.
        fused_with: how many others it trains together with.

    Raises:
        ModelError: the model and the settings do not fit.
    """

    def __init__(
        self,
        task: TrainingTask,
        identity: str,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        fused_with: int,
    ) -> None:
        spec = task.spec
        self.task, self.spec, self.settings = task, spec, _lora(task)
        self._identity = identity
        check_length(base.config, spec)
        train, self.valid, self._truncated = encode_splits(tokenizer, task.pairs, spec)
        self._examples = [as_example(pair) for pair in train]
        self.steps_per_epoch = steps_per_epoch(spec, len(train))
        self.max_steps = optimizer_steps(spec, len(train))
        self.random = OwnRandomness()
        with self.random.in_place():
            set_seed(spec.seed)
            model = adapt(base, self.settings)
            self.sites = _sites(model)
            self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
            shapes = {name: tuple(p.shape) for name, p in self.parameters.items()}
            self._total_parameters = sum(p.numel() for p in model.parameters())
            most = remembered_at_once(task.workdir, spec.training.batch_size)
            self._attempt, _ = begin_attempt(task, identity, shapes, most)
            use_cache = base.config.use_cache
            config = sft_config(spec, len(train), self._attempt.batch, task.workdir)
            # The order alone is wanted: the pairs are here, as arrays.
            trainer: Any = make_trainer(model, tokenizer, spec, train[:1], config)
            trainer.train_dataset, trainer.data_collator = list(range(len(train))), list
            self._loader = trainer.get_train_dataloader()
            trainer.create_optimizer()
            trainer.create_scheduler(self.max_steps)
            take_off_training(model, use_cache)
            model.unload()
        self._optimizer, self._scheduler = trainer.optimizer, trainer.lr_scheduler
        self._optimizer.step()  # Steps nothing; the schedule warns where the optimiser never did.
        self._logging_steps = int(config.logging_steps)
        self._begin(fused_with)

    def _begin(self, fused_with: int) -> None:
        checkpoint = self._attempt.checkpoint
        self.step = self._saved_step = checkpoint.step if checkpoint else 0
        self.time = SharedTime()
        self.course = Course(
            checkpoint.state["course"] if checkpoint else None, self.time, fused_with
        )
        self._epoch, done = divmod(self.step, self.steps_per_epoch)
        if checkpoint is None:
            self._shuffle()
        else:
            restore_weights(checkpoint, self.parameters)
            restore_optimizer(checkpoint, self._optimizer, self._scheduler, None)
            if done:
                self._shuffle()  # It was shuffled before what the checkpoint remembers.
            with self.random.in_place():
                restore_random(checkpoint)
            if not done:
                self._shuffle()
        self._place = done * self._attempt.batch.gradient_accumulation_steps
        self._began = time.monotonic()
        self._clock = CheckpointClock(
            self._attempt.checkpoints,
            # Its companions are saved with it.
            checkpoint_bytes(self.parameters.values()) * (1 + fused_with),
            step=self.step,
            epoch=float(checkpoint.state["epoch"]) if checkpoint else 0.0,
        )

    def _shuffle(self) -> None:
        """Draw the order of an epoch."""
        with self.random.in_place():
            self._loader.set_epoch(self._epoch)
            self._batches: list[list[int]] = list(self._loader)

    @property
    def between_steps(self) -> bool:
        """Whether no optimiser step is begun."""
        window = self._attempt.batch.gradient_accumulation_steps
        return self._place % window == 0 or self._place == len(self._batches)

    @property
    def ends_epoch(self) -> bool:
        """Whether the last step was the last of an epoch, or of all."""
        ended = self.step % self.steps_per_epoch == 0 or self.step >= self.max_steps
        return self.step > 0 and ended and self.between_steps

    @property
    def is_validated(self) -> bool:
        """Whether an epoch that has ended was validated."""
        return not self.ends_epoch or self.course.validated_step == self.step

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.max_steps

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step."""
        return self._attempt.batch.gradient_accumulation_steps

    @property
    def is_logged(self) -> bool:
        """Whether the last step gets a line in the log."""
        return self.step % self._logging_steps == 0

    @property
    def epoch(self) -> float:
        """Epochs done."""
        return self._epoch + self._place / len(self._batches)

    def take(self) -> tuple[list[Example], int]:
        """The next micro-batch, and the counted tokens of the optimiser step that it is a part of."""
        if self._place == len(self._batches):
            self._epoch, self._place = self._epoch + 1, 0
            self._shuffle()
        if self.between_steps:
            self.course.begin_step()
            window = self._batches[self._place : self._place + self.accumulation]
            self._counted = sum(len(self._examples[i].kept) for batch in window for i in batch)
        batch = self._batches[self._place]
        self._place += 1
        return [self._examples[i] for i in batch], self._counted

    def next_step(self, k: int) -> AdamStep:
        """The optimiser step that is due.

        Args:
            k: its place in the storage.
        """
        group = self._optimizer.param_groups[0]
        return AdamStep(
            k=k,
            number=self.step + 1,
            learning_rate=self._scheduler.get_last_lr()[0],
            weight_decay=group["weight_decay"],
            max_grad_norm=self.spec.training.max_grad_norm or math.inf,
            betas=group["betas"],
            eps=group["eps"],
        )

    def end_step(self) -> None:
        """The optimiser step is done."""
        self._learning_rate = self._scheduler.get_last_lr()[0]
        self._scheduler.step()
        self.step += 1
        self.course.end_step()

    def log(self, grad_norm: float) -> None:
        """Add a line on the steps since the last one.

        Args:
            grad_norm: of the last step, before clipping.

        Raises:
            DivergedError: it is NaN or infinite.
        """
        self.course.log(self.step, self.epoch, self._learning_rate, grad_norm)
        if not math.isfinite(grad_norm):
            raise DivergedError(self.step, grad_norm, "gradient norm")

    def end_epoch(self, valid_loss: float) -> None:
        """Write down and tell what an epoch came to.

        Args:
            valid_loss: mean loss per counted token over the validation pairs.

        Raises:
            DivergedError: it is NaN or infinite.
        """
        self.course.end_epoch(self.step, self.max_steps, self.epoch, valid_loss)
        self.write_log()
        if self.course.report is not None:
            self.task.on_epoch(self.course.report)

    def write_log(self) -> None:
        """Write `train.csv`."""
        write_steps(self.task.workdir / "train.csv", self.course.rows)

    @property
    def is_due(self) -> bool:
        """Whether to write a checkpoint of the last optimiser step."""
        if self.is_done or self.step == self._saved_step:
            return False
        return self._clock.is_due(self.step, self.epoch, time.monotonic() - self._began)

    def save(self, k: int, storage: AdapterStorage) -> None:
        """Write a checkpoint of the last optimiser step, where there is none, and the log.

        Args:
            k: its place in the storage.
            storage: holds its adapter.

        Raises:
            OSError: the disk is full; the checkpoint before is kept.
        """
        if self.step == self._saved_step:
            return
        began = time.monotonic()
        storage.unload(k, self.parameters, self._optimizer, self.step)
        with self.random.in_place():
            tensors, state = capture_training(
                self.parameters, self._optimizer, self._scheduler, None, self.step, self.epoch
            )
        own = {"batch_size": self._attempt.batch.batch_size, "course": self.course.to_json()}
        write_checkpoint(self.task.workdir, self.step, self._identity, tensors, {**state, **own})
        self.write_log()
        self._saved_step = self.step
        now, took = time.monotonic(), time.monotonic() - began
        together = took * (1 + self.course.fused_with)
        self._clock.saved(self.step, self.epoch, now - self._began, together)

    def load(self, k: int, storage: AdapterStorage) -> None:
        """Put its adapter into the storage.

        Args:
            k: its place.
            storage: changed in place.
        """
        storage.load(k, self.parameters, self._optimizer)

    def finish(
        self,
        k: int,
        storage: AdapterStorage,
        base: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Save the tuned model as training alone would, and clear away what led to it.

        Args:
            k: its place in the storage.
            storage: holds its adapter.
            base: the frozen model; as it was afterwards.
            tokenizer: the model's.

        Raises:
            OSError: the disk is full; the last checkpoint is kept.
        """
        storage.unload(k, self.parameters, self._optimizer, self.step)
        finished = finish_course(
            self.course,
            self.spec,
            self._attempt,
            trainable_parameters=sum(p.numel() for p in self.parameters.values()),
            total_parameters=self._total_parameters,
            truncated_references=self._truncated,
        )
        model = adapt(base, self.settings)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(self.parameters[name])
        workdir: Path = self.task.workdir
        try:
            write_finished(workdir, self._identity, self.spec, model.eval(), tokenizer, finished)
        finally:
            model.unload()
        clear_attempts(workdir)


def _lora(task: TrainingTask) -> DeltaSettings:
    method = task.spec.method
    if not isinstance(method, DeltaSettings):
        raise TypeError(f"a fused training must be delta tuning, but got {method.kind!r}")
    return method


def _sites(model: PeftModel) -> tuple[Site, ...]:
    """The layers that PEFT has adapted, in the model's order."""
    from peft.tuners.lora import LoraLayer

    prefix = "base_model.model."
    return tuple(
        Site(name.removeprefix(prefix), prefix, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    )


def why_not_adapted(member: Member, base: PreTrainedModel) -> str:
    """Why a member's adapter cannot be trained beside others; empty where it can.

    Args:
        member: as it begins.
        base: the frozen model.
    """
    from transformers.pytorch_utils import Conv1D

    layers: list[Any] = [base.get_submodule(site.name) for site in member.sites]
    odd = [type(layer).__name__ for layer in layers if type(layer) not in (torch.nn.Linear, Conv1D)]
    if odd:
        return f"it adapts a {odd[0]}"
    known = {site.parameter(kind) for site in member.sites for kind in "AB"}
    if known != set(member.parameters):
        return "it trains more than LoRA's two factors"
    if any(group["params"] for group in member._optimizer.param_groups[1:]):
        return "its parameters decay differently"
    return ""
