"""A model and its tokenizer from a folder, on the device where the trial runs."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from search_spaces.errors import one_problem
from trainers.errors import ModelError
from trainers.model_files import find_dangers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def device_here() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model in fp32 and its tokenizer, ready for tuning.

    Weights stay in fp32 as master copy; `precision` decides what they are computed in.

    Args:
        folder: a model folder as `save_pretrained` writes it.

    Raises:
        ModelError: the folder's files do not make a causal language model with a tokenizer that
            can end a text.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if dangers := find_dangers(folder, known_code=True):
        raise ModelError(dangers)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
        )
    except (
        *(OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError),
        # What a configuration that is none makes transformers stumble over.
        *(LookupError, TypeError, AttributeError, ArithmeticError),
    ) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(one_problem("model", str(folder), f"cannot be loaded: {first}")) from error
    model: PreTrainedModel = loaded[0]
    parameters = {parameter for parameter, _ in model.named_parameters()}
    if absent := sorted(parameters.intersection(loaded[1]["missing_keys"])):
        # transformers would put random numbers in their place.
        raise ModelError(
            one_problem(
                "model",
                str(folder),
                f"the weights must be a causal language model's, but {len(absent)} tensors are "
                "missing",
                absent[0],
            )
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            one_problem("model", str(folder), "the tokenizer must have an end-of-text token")
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    if len(tokenizer) > rows:
        raise ModelError(
            one_problem(
                "model",
                str(folder),
                f"the tokenizer's {len(tokenizer)} tokens must fit the model's {rows} embeddings",
            )
        )
    torch.nn.Module.to(model, device_here())
    return model, tokenizer
