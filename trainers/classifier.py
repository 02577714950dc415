"""A sequence classifier with one output, from any encoder (DistilBERT, MiniLM) or GPT-2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import one_problem
from trainers.errors import ModelError, StoppedError, is_out_of_memory
from trainers.loading import device_here
from trainers.loss import free_memory
from trainers.model_files import find_dangers
from trainers.progress import ShouldStop, never

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_READ_TOGETHER = 32


def load_classifier(folder: Path, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A classifier in evaluation mode, and its tokenizer.

    Args:
        folder: of a classifier, or of an encoder or a causal language model, which gets a new head.
        seed: of the new head.

    Raises:
        ModelError: no sequence classifier can be made of it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if dangers := find_dangers(folder, known_code=True):
        raise ModelError(dangers)
    torch.manual_seed(seed)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder,
            num_labels=1,
            dtype=torch.float32,
            trust_remote_code=False,
            weights_only=True,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        message = f"no sequence classifier can be made of it: {first}"
        raise ModelError(one_problem("reward model", str(folder), message)) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # GPT-2 reads its output off the last token that is not this one.
    model.config.pad_token_id = tokenizer.pad_token_id
    torch.nn.Module.to(model, device_here())
    return model.eval(), tokenizer


def classify(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, str]],
    max_length: int,
) -> torch.Tensor:
    """[N] outputs for N questions and answers, in one forward pass.

    Args:
        model: the classifier.
        tokenizer: its tokenizer.
        texts: N questions with an answer each.
        max_length: tokens of both together; the longer of the two is cut.
    """
    batch = tokenizer(
        [f"Human: {question}\n\nAssistant:" for question, _ in texts],
        [f" {answer}" for _, answer in texts],
        truncation=True,
        max_length=max_length,
        padding=True,
        return_tensors="pt",
    ).to(model.device)
    outputs_n: torch.Tensor = model(**batch).logits[:, 0].float()
    return outputs_n


def classify_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, str]],
    max_length: int,
    should_stop: ShouldStop = never,
) -> list[float]:
    """Outputs in the texts' order, computed by length so that little is padded.

    Where memory runs out, fewer texts are read at once.

    Args:
        model: the classifier, in evaluation mode.
        tokenizer: its tokenizer.
        texts: N questions with an answer each.
        max_length: tokens of both together; the longer of the two is cut.
        should_stop: asked between forward passes.

    Raises:
        StoppedError: `should_stop` said so.
        torch.OutOfMemoryError: one text at a time does not fit.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    outputs = [0.0] * len(texts)
    start, rows = 0, _READ_TOGETHER
    while start < len(order):
        if should_stop():
            raise StoppedError("stopped while answers were scored")
        part = order[start : start + rows]
        values = _classify_if_it_fits(model, tokenizer, [texts[i] for i in part], max_length)
        if values is None:
            free_memory()
            rows = len(part) // 2
            continue
        for place, value in zip(part, values, strict=True):
            outputs[place] = value
        start += len(part)
    return outputs


def _classify_if_it_fits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[tuple[str, str]],
    max_length: int,
) -> list[float] | None:
    """Outputs; None where memory runs out and fewer texts can do."""
    import torch

    try:
        with torch.inference_mode():
            values: list[float] = classify(model, tokenizer, texts, max_length).tolist()
            return values
    except (RuntimeError, MemoryError) as error:
        if len(texts) == 1 or not is_out_of_memory(error):
            raise
    return None
