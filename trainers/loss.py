"""The validation loss, defined once for every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainers.encoding import IGNORED_LABEL, EncodedPair

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


def mean_token_loss(model: PreTrainedModel, examples: Sequence[EncodedPair]) -> float:
    """Mean negative log-likelihood per counted token, in nats.

    A mean over tokens, not over batches: it does not change with the batch size.

    Args:
        model: causal language model; its training or evaluation mode is restored afterwards.
        examples: encoded pairs, at least one counted token among them.
    """
    import torch

    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    by_length = sorted(examples, key=lambda example: len(example.input_ids))
    with torch.inference_mode():
        for start in range(0, len(by_length), _ROWS):
            batch = {k: v.to(device) for k, v in collate(by_length[start : start + _ROWS]).items()}
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
            total += float(loss)
            tokens += int((labels_bt[:, 1:] != IGNORED_LABEL).sum())
    model.train(was_training)
    return total / tokens
