"""A tuned model: what every trainer returns and every evaluation starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
