"""A tuned model: what every trainer returns and every evaluation starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.act_tokens import ActTokens
from trainers.progress import StepRow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from trainers.act_head import ActHead


@dataclass(frozen=True)
class TunedModel:
    """A model ready to generate, and what tuning it came to."""

    model: PreTrainedModel | PeftModel
    """In evaluation mode, on the device it was tuned on."""
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    """Where the model is saved as Hugging Face users expect it."""
    trainable_parameters: int
    """Parameters that training could change; 0 for an untrained model."""
    total_parameters: int
    """All parameters, the trainable ones included."""
    train_loss: float | None = None
    """Mean loss per counted token over the last logged steps; absent for an untrained model."""
    valid_loss: float | None = None
    """Mean loss per counted token over the validation pairs, after training."""
    truncated_references: int = 0
    """Training replies that lost tokens to `max_length`."""
    seconds: float = 0.0
    """Training time over all attempts."""
    seconds_per_step: float | None = None
    """Mean time of an optimiser step; absent where none was done."""
    fused_with: int = 0
    """How many others it trained together with; its times are then its share of the group's."""
    digest: str = ""
    """SHA-256 by which the weights are known; the source's, where nothing was trained."""
    acts: ActTokens | ActHead | None = None
    """Where the model predicts dialogue acts: the tokens that its replies begin with, or a head
    that no reply depends on."""
    adjusted: Mapping[str, int] = field(default_factory=dict)
    """Training settings that are not as specified, because memory ran out; empty where all are."""
    rows: tuple[StepRow, ...] = ()
    """The log of its steps, as `train.csv` has it."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What else the method measured, as results name it, e.g. `reward/accuracy`."""
    notes: tuple[str, ...] = ()
    """What the method has to say of itself, and what was found damaged or foreign in the trial's
    folder, and was passed over."""
