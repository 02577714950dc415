"""What every use of PEFT needs: an adapter from its folder, and silence about what is known."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """A base model with the adapter that a folder holds, in evaluation mode.

    Args:
        base: the model that the adapter was trained on; changed in place.
        folder: as PEFT's `save_pretrained` writes it.
    """
    from peft import PeftModel

    with peft_warnings_ignored():
        model: PeftModel = PeftModel.from_pretrained(base, str(folder))
    model.eval()
    return model


@contextlib.contextmanager
def peft_warnings_ignored() -> Iterator[None]:
    """Within it, PEFT does not warn of what is as it should be."""
    with warnings.catch_warnings():
        # LN tuning has no use for the layer's widths that PEFT looks for and misses.
        warnings.filterwarnings("ignore", message="Unsupported layer type")
        # PEFT's own call of a name that transformers is about to drop.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield
