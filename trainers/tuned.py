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
    """A model ready to generate, and what it cost in parameters."""

    model: PreTrainedModel | PeftModel
    """In evaluation mode, on the device it was tuned on."""
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    """Where the model is saved as Hugging Face users expect it."""
    trainable_parameters: int
    """Parameters that training could change; 0 for an untrained model."""
    total_parameters: int
    """All parameters, the trainable ones included."""
