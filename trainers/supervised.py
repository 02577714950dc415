"""The supervised loop that methods share: TRL's SFTTrainer, set as the trial says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import one_problem
from search_spaces.spec import ReaderSettings, TrialSpec
from trainers.checkpoint_files import Checkpoint
from trainers.checkpoints import CheckpointClock, CheckpointSettings, checkpoint_bytes
from trainers.course import Course
from trainers.encoding import EncodedPair
from trainers.errors import ModelError
from trainers.loading import device_here
from trainers.loss import collate
from trainers.micro_batch import MicroBatch, micro_batch
from trainers.progress import OnEpoch, ShouldStop, never, write_steps

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
    from trl import SFTConfig

    from trainers.resumable import ResumableTrainer

_LOGGED_POINTS = 200
"""Training curves have at most about this many points."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a training: from where, and how."""

    batch: MicroBatch
    """How an optimiser step is cut."""
    identity: str = ""
    """What its checkpoints say they belong to."""
    checkpoint: Checkpoint | None = None
    """Where to continue from; absent: from the beginning."""
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    """How often to save."""
    should_stop: ShouldStop = never
    """Asked after every optimiser step."""


def train_supervised(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    train: Sequence[EncodedPair],
    valid: Sequence[EncodedPair],
    workdir: Path,
    on_epoch: OnEpoch,
    attempt: Attempt | None = None,
) -> Course:
    """Train the model's open parameters in place.

    Args:
        model: parameters with `requires_grad` are trained.
        tokenizer: the model's.
        spec: the trial; its `training` part is used.
        train: training examples.
        valid: validation examples.
        workdir: the trial's folder; `train.csv` and checkpoints are written there.
        on_epoch: told of every finished epoch.
        attempt: where to begin; absent: at the beginning, as specified.

    Returns:
        Losses in nats per token, log and time.

    Raises:
        DivergedError: a loss or gradient became NaN or infinite.
        StoppedError: `should_stop` said so; a checkpoint is in place.
    """
    from trainers.resumable import SupervisedSurroundings

    attempt = attempt or Attempt(micro_batch(spec, spec.training.batch_size))
    batch, checkpoint = attempt.batch, attempt.checkpoint
    use_cache = model.config.use_cache
    trainer = make_trainer(
        model, tokenizer, spec, train, sft_config(spec, len(train), batch, workdir)
    )
    course = Course(checkpoint.state["course"] if checkpoint else None)
    around = SupervisedSurroundings(
        workdir=workdir,
        identity=attempt.identity,
        batch_size=batch.batch_size,
        steps_per_epoch=steps_per_epoch(spec, len(train)),
        valid=valid,
        on_epoch=on_epoch,
        should_stop=attempt.should_stop,
        clock=_clock(model, attempt.checkpoints, checkpoint, course),
        course=course,
        checkpoint=checkpoint,
        content=lambda: {"course": course.to_json()},
    )
    try:
        trainer.begin(around)
    finally:
        # A curve that ends in NaN is a result too.
        write_steps(workdir / "train.csv", course.rows)
        take_off_training(model, use_cache)
    return course


def make_trainer(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: TrialSpec,
    train: Sequence[EncodedPair],
    config: SFTConfig,
) -> ResumableTrainer:
    """The Trainer of a training, before it begins.

    Args:
        model: parameters with `requires_grad` are trained.
        tokenizer: the model's.
        spec: the trial.
        train: training examples.
        config: as `sft_config` gives it.
    """
    from trainers.resumable import ResumableTrainer

    if not isinstance(spec.method, ReaderSettings):
        return ResumableTrainer(
            model=model,
            args=config,
            train_dataset=_dataset(train, ("input_ids", "labels")),
            processing_class=tokenizer,
            data_collator=collate,
        )
    from trainers.joint_trainer import JointTrainer, collate_with_acts

    joint = JointTrainer(
        model=model,
        args=config,
        train_dataset=_dataset(train, ("input_ids", "labels", "act_labels")),
        processing_class=tokenizer,
        data_collator=collate_with_acts,
    )
    joint.act_loss_weight = spec.method.act_loss_weight
    return joint


def _dataset(train: Sequence[EncodedPair], columns: Sequence[str]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list([{name: getattr(one, name) for name in columns} for one in train])


def optimizer_steps(spec: TrialSpec, examples: int) -> int:
    """Optimiser steps that training over `examples` pairs takes.

    Args:
        spec: the trial.
        examples: number of training pairs.
    """
    steps = steps_per_epoch(spec, examples) * spec.training.epochs
    return min(steps, spec.training.max_steps or steps)


def steps_per_epoch(spec: TrialSpec, examples: int) -> int:
    """Optimiser steps in a pass over the pairs.

    Args:
        spec: the trial.
        examples: number of training pairs.
    """
    batches = math.ceil(examples / spec.training.batch_size)
    return math.ceil(batches / spec.training.gradient_accumulation_steps)


def _clock(
    model: PreTrainedModel | PeftModel,
    settings: CheckpointSettings,
    checkpoint: Checkpoint | None,
    course: Course,
) -> CheckpointClock:
    return CheckpointClock(
        settings,
        checkpoint_bytes(p for p in model.parameters() if p.requires_grad),
        step=checkpoint.step if checkpoint else 0,
        epoch=float(checkpoint.state["epoch"]) if checkpoint else 0.0,
        seconds=course.seconds,
    )


def trainer_folder(workdir: Path) -> Path:
    """Where the Trainer wants a place of its own; nothing in it outlives the training.

    Args:
        workdir: the trial's folder.
    """
    return workdir / "trainer"


def take_off_training(model: PreTrainedModel | PeftModel, use_cache: bool | None) -> None:
    """Leave a model as loading it would give it.

    TRL and Accelerate put a fused head and autocasting over `forward`; a tuned model would be
    evaluated in another precision than the one that is loaded from its folder, and sft in another
    than delta. Accelerate would leave the model out the next time, TRL tags it with its own name, and
    the Trainer turns off `use_cache` in the configuration that is saved.

    Args:
        model: that a Trainer had.
        use_cache: what its configuration said before.
    """
    outer: Any = model
    inner: Any = outer.get_base_model() if hasattr(outer, "peft_config") else outer
    for module in (outer, inner):
        for name in ("forward", "_original_forward", "_is_accelerate_prepared", "model_tags"):
            vars(module).pop(name, None)
    inner.config.use_cache = use_cache
    model.eval()


def sft_config(spec: TrialSpec, examples: int, batch: MicroBatch, workdir: Path) -> SFTConfig:
    """A trial's settings as TRL takes them.

    Args:
        spec: the trial.
        examples: number of training pairs.
        batch: how an optimiser step is cut.
        workdir: the trial's folder.

    Raises:
        ModelError: the precision needs a device that is not here.
    """
    from trl import SFTConfig

    training = spec.training
    on_cpu = device_here().type == "cpu"
    if training.precision == "fp16" and on_cpu:
        raise ModelError(
            one_problem(
                "search space", "precision", "fp16 needs a GPU, and none is here", "fp16", "fp32"
            )
        )
    return SFTConfig(
        output_dir=str(trainer_folder(workdir)),
        per_device_train_batch_size=batch.batch_size,
        gradient_accumulation_steps=batch.gradient_accumulation_steps,
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
        **checkpointing_argument(SFTConfig, training.gradient_checkpointing),
    )


def checkpointing_argument(config: type[TrainingArguments], wanted: bool) -> dict[str, bool]:
    """Whether activations are computed again instead of kept, by the name that a config has for it.

    Args:
        config: the class of a Trainer's arguments.
        wanted: whether they are.
    """
    # Renamed in transformers 5: the old name warns where the new one is known.
    new, old = "activation_checkpointing", "gradient_checkpointing"
    return {new if new in config.__dataclass_fields__ else old: wanted}
