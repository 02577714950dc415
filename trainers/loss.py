"""The validation loss, defined once for every method."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trainers.encoding import IGNORED_LABEL, EncodedPair
from trainers.errors import StoppedError, is_out_of_memory
from trainers.progress import ShouldStop, never

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_ROWS = 16


def collate(examples: Sequence[EncodedPair | dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad B examples on the right to the longest, T tokens.

    Args:
        examples: encoded pairs, or their `input_ids` and `labels` as dataset rows.

    Returns:
        `input_ids`, `attention_mask` and `labels`, each [B, T]; padding is id 0 with mask 0 and
        label -100, so the id does not matter.
    """
    import torch

    rows = [
        (e.input_ids, e.labels) if isinstance(e, EncodedPair) else (e["input_ids"], e["labels"])
        for e in examples
    ]
    longest = max(len(ids) for ids, _ in rows)
    return {
        "input_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in rows]
        ),
        "labels": torch.tensor(
            [labels + [IGNORED_LABEL] * (longest - len(labels)) for _, labels in rows]
        ),
    }


def mean_token_loss(
    model: PreTrainedModel, examples: Sequence[EncodedPair], should_stop: ShouldStop = never
) -> float:
    """Mean negative log-likelihood per counted token, in nats.

    A mean over tokens, not over batches: it does not change with the batch size. Where memory runs
    out, fewer examples are read at once.

    Args:
        model: causal language model; its training or evaluation mode is restored afterwards.
        examples: encoded pairs, at least one counted token among them.
        should_stop: asked between batches.

    Raises:
        StoppedError: `should_stop` said so.
        torch.OutOfMemoryError: one example at a time does not fit.
    """
    was_training = model.training
    model.eval()
    try:
        return mean_of_sums(lambda batch: _summed_loss(model, batch), examples, should_stop)
    finally:
        model.train(was_training)


def mean_of_sums(
    summed: Callable[[Sequence[EncodedPair]], tuple[float, int]],
    examples: Sequence[EncodedPair],
    should_stop: ShouldStop = never,
) -> float:
    """Mean negative log-likelihood per counted token, in nats, of whatever can sum it.

    Args:
        summed: gives the summed loss and the counted tokens of some examples.
        examples: as for `mean_token_loss`.
        should_stop: asked between batches.

    Raises:
        StoppedError: `should_stop` said so.
        torch.OutOfMemoryError: one example at a time does not fit.
    """
    import torch

    total, tokens, start, rows = 0.0, 0, 0, _ROWS
    by_length = sorted(examples, key=lambda example: len(example.input_ids))
    while start < len(by_length):
        if should_stop():
            raise StoppedError("stopped while the validation loss was measured")
        batch = by_length[start : start + rows]
        with torch.inference_mode():
            found = _if_it_fits(summed, batch)
        if found is None:
            free_memory()
            rows = len(batch) // 2
            continue
        total, tokens, start = total + found[0], tokens + found[1], start + len(batch)
    return total / tokens


def free_memory() -> None:
    """Give back what a failed attempt held: unreachable tensors, and the GPU's cached blocks."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _if_it_fits(
    summed: Callable[[Sequence[EncodedPair]], tuple[float, int]], examples: Sequence[EncodedPair]
) -> tuple[float, int] | None:
    """What `summed` gives; None where memory runs out and fewer can do."""
    try:
        return summed(examples)
    except (RuntimeError, MemoryError) as error:
        if len(examples) == 1 or not is_out_of_memory(error):
            raise
    return None


def _summed_loss(model: PreTrainedModel, examples: Sequence[EncodedPair]) -> tuple[float, int]:
    """The examples' summed loss and counted tokens."""
    import torch

    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collate(examples).items()}
    labels_bt = batch.pop("labels")
    logits_btv = model(**batch).logits
    # Prompt-learning adapters put virtual positions in front: the last T are the text's.
    logits_btv = logits_btv[:, -labels_bt.shape[1] :]
    loss = torch.nn.functional.cross_entropy(
        logits_btv[:, :-1].float().flatten(0, 1),
        labels_bt[:, 1:].flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="sum",
    )
    return float(loss), int((labels_bt[:, 1:] != IGNORED_LABEL).sum())
