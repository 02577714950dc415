"""Replies and their acts learnt together: the act head's loss beside the language model's.

Source: READER (Srivastava et al. 2023), whose model has a head for the act beside that for the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from trainers.act_head import find_head, last_states, summed_act_loss
from trainers.encoding import IGNORED_LABEL
from trainers.loss import collate
from trainers.resumable import ResumableTrainer

if TYPE_CHECKING:
    from torch import nn


def collate_with_acts(examples: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad B examples on the right to the longest, T tokens.

    Args:
        examples: `input_ids`, `labels` and `act_labels`.

    Returns:
        As `collate`, and `act_labels` [B, T], -100 where no act is read.
    """
    batch = collate(examples)
    longest = batch["input_ids"].shape[1]
    rows = [example["act_labels"] for example in examples]
    padded = [labels + [IGNORED_LABEL] * (longest - len(labels)) for labels in rows]
    return batch | {"act_labels": torch.tensor(padded)}


class JointTrainer(ResumableTrainer):
    """Minimises the mean loss per counted token + `act_loss_weight` x the mean loss per act read.

    Both are means over the whole optimiser step, however it is cut into forward passes.
    """

    act_loss_weight = 1.0
    _acts_in_step = 1
    _act_share = 0.0
    """What the acts added to the last forward pass's loss."""

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The forward passes of one optimiser step; counts the acts that are read in it."""
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        reads = sum(int((batch["act_labels"] != IGNORED_LABEL).sum()) for batch in batches)
        self._acts_in_step = max(1, reads)
        return batches, tokens

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The joint loss of one forward pass."""
        act_labels_bt = inputs.pop("act_labels")
        head = find_head(self.model)
        if head is None:
            raise RuntimeError("acts are to be learnt, and the model has no act head")
        with last_states(self.model) as states:
            loss: Any = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        act_loss = summed_act_loss(head, states[0], act_labels_bt) / self._acts_in_step
        if num_items_in_batch is None:
            # The Trainer then divides a forward pass's loss by their number.
            act_loss = act_loss * self.current_gradient_accumulation_steps
        share = self.act_loss_weight * act_loss
        self._act_share = share.item()
        return loss + share

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One forward and backward pass; what is logged is the loss per counted token."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.around.course.add_loss(self.state.global_step + 1, -self._act_share)
        return loss
