"""Supervised training of whatever parameters a model leaves open: the loop that sft and delta share.

The loop itself is TRL's SFTTrainer; here are only its settings and what it says while it runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corpora.dialogue import PairSplits
from search_spaces.errors import one_problem
from search_spaces.spec import TrialSpec
from trainers.encoding import EncodedPair
from trainers.errors import DivergedError, ModelError
from trainers.examples import encode_splits
from trainers.loading import device_here
from trainers.loss import collate, mean_token_loss
from trainers.progress import EpochReport, OnEpoch, StepRow, write_steps
from trainers.saving import save_model
from trainers.tuned import TunedModel

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

_LOGGED_POINTS = 200
"""Training curves have at most about this many points."""


def tune(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    pairs: PairSplits,
    workdir: Path,
    on_epoch: OnEpoch,
) -> TunedModel:
    """Train the model's open parameters on pairs and save it under `model/`.

    Args:
        model: parameters with `requires_grad` are trained, in place.
        tokenizer: the model's.
        spec: the trial.
        pairs: training and validation pairs.
        workdir: the trial's folder.
        on_epoch: told of every finished epoch.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    train, valid, truncated = encode_splits(tokenizer, pairs, spec)
    train_loss, valid_loss = train_supervised(
        model, tokenizer, spec, train, valid, workdir, on_epoch
    )
    folder = workdir / "model"
    save_model(model, tokenizer, spec, folder)
    return TunedModel(
        model=model,
        tokenizer=tokenizer,
        folder=folder,
        trainable_parameters=trainable,
        total_parameters=total,
        train_loss=train_loss,
        valid_loss=valid_loss,
        truncated_references=truncated,
    )


def train_supervised(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    train: Sequence[EncodedPair],
    valid: Sequence[EncodedPair],
    workdir: Path,
    on_epoch: OnEpoch,
) -> tuple[float, float]:
    """Train the model's open parameters in place.

    Args:
        model: parameters with `requires_grad` are trained.
        tokenizer: the model's.
        spec: the trial; its `training` part is used.
        train: training examples.
        valid: validation examples.
        workdir: the trial's folder; `train.csv` is written there.
        on_epoch: told of every finished epoch.

    Returns:
        The last logged training loss and the final validation loss, in nats per token.

    Raises:
        DivergedError: the loss became NaN or infinite.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback
    from trl import SFTTrainer

    log = _StepLog(valid, on_epoch)
    use_cache = model.config.use_cache
    rows = [{"input_ids": e.input_ids, "labels": e.labels} for e in train]
    trainer = SFTTrainer(
        model=model,
        args=_sft_config(spec, len(rows), workdir),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=collate,
        callbacks=[log.callback()],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        # A curve that ends in NaN is a result too.
        write_steps(workdir / "train.csv", log.rows)
        _take_off_training(model, use_cache)
    return log.last_train_loss, log.last_valid_loss


def optimizer_steps(spec: TrialSpec, examples: int) -> int:
    """Optimiser steps that training over `examples` pairs takes.

    Args:
        spec: the trial.
        examples: number of training pairs.
    """
    training = spec.training
    batches = math.ceil(examples / training.batch_size)
    steps = math.ceil(batches / training.gradient_accumulation_steps) * training.epochs
    return min(steps, training.max_steps or steps)


def _take_off_training(model: PreTrainedModel | PeftModel, use_cache: bool | None) -> None:
    """Leave a model as loading it would give it.

    TRL and Accelerate put a fused head and autocasting over `forward`; a tuned model would be
    evaluated in another precision than the one that is loaded from its folder, and sft in another
    than delta. The Trainer turns off `use_cache` in the configuration that is saved.
    """
    outer: Any = model
    inner: Any = outer.get_base_model() if hasattr(outer, "peft_config") else outer
    for module in (outer, inner):
        vars(module).pop("forward", None)
        vars(module).pop("_original_forward", None)
    inner.config.use_cache = use_cache
    model.eval()


def _sft_config(spec: TrialSpec, examples: int, workdir: Path) -> SFTConfig:
    from trl import SFTConfig

    training = spec.training
    on_cpu = device_here().type == "cpu"
    if training.precision == "fp16" and on_cpu:
        raise ModelError(
            one_problem(
                "search space", "precision", "fp16 needs a GPU, and none is here", "fp16", "fp32"
            )
        )
    # Renamed in transformers 5: the old name warns where the new one is known.
    fields = SFTConfig.__dataclass_fields__
    new, old = "activation_checkpointing", "gradient_checkpointing"
    checkpointing = {new if new in fields else old: training.gradient_checkpointing}
    return SFTConfig(
        output_dir=str(workdir / "trainer"),
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        num_train_epochs=training.epochs,
        # The Trainer would go round again until `max_steps`; here it only ends the epochs early.
        max_steps=optimizer_steps(spec, examples) if training.max_steps else -1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        bf16=training.precision == "bf16",
        fp16=training.precision == "fp16",
        max_length=training.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        packing=False,
        seed=spec.seed,
        data_seed=spec.seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        logging_steps=max(1, optimizer_steps(spec, examples) // _LOGGED_POINTS),
        # The filter would replace NaN by a plausible number; a diverged trial must say so.
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **checkpointing,
    )


class _StepLog:
    """Collects the trainer's logs; measures validation loss at each epoch's end."""

    def __init__(self, valid: Sequence[EncodedPair], on_epoch: OnEpoch) -> None:
        self.valid = valid
        self.on_epoch = on_epoch
        self.rows: list[StepRow] = []
        self.last_train_loss = math.nan
        self.last_valid_loss = math.nan
        self.began = time.monotonic()

    def callback(self) -> Any:
        """A Trainer callback that feeds this log (made late: transformers is slow to import)."""
        from transformers import TrainerCallback

        log = self

        class Listener(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                log.began = time.monotonic()

            def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                log.step(state.global_step, state.epoch or 0.0, rest["logs"])

            def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
                log.epoch(state.global_step, state.max_steps, state.epoch or 0.0, rest["model"])

        return Listener()

    def step(self, step: int, epoch: float, logs: dict[str, Any]) -> None:
        if "loss" not in logs:
            return  # The trainer's closing summary is no step.
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise DivergedError(step, loss)
        self.last_train_loss = loss
        self.rows.append(
            StepRow(
                step,
                epoch,
                train_loss=loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=float(logs["grad_norm"]) if "grad_norm" in logs else None,
                seconds=round(time.monotonic() - self.began, 3),
            )
        )

    def epoch(self, step: int, total: int, epoch: float, model: PreTrainedModel) -> None:
        self.last_valid_loss = mean_token_loss(model, self.valid)
        if not math.isfinite(self.last_valid_loss):
            raise DivergedError(step, self.last_valid_loss)
        self.rows.append(
            StepRow(
                step,
                epoch,
                valid_loss=self.last_valid_loss,
                seconds=round(time.monotonic() - self.began, 3),
            )
        )
        known = math.isfinite(self.last_train_loss)
        self.on_epoch(
            EpochReport(
                epoch, step, total, self.last_train_loss if known else None, self.last_valid_loss
            )
        )
