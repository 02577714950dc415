"""Beams of many prompts that a model reads token by token, as one kind of model or another allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from evaluators.causal_model import CausalModel, ReadPrompts
from evaluators.token_tree import TokenTree

_PADDING = {False: 256, True: 8192}
"""Tokens of padding that cost less than reading apart: on a CPU, and on a GPU."""


class Beams(Protocol):
    """What a model has read of R beams."""

    def follow(self, parents: Tensor, first: int) -> None:
        """Let beams from `first` on go on from other beams of the same prompt.

        Args:
            parents: the beam each beam continues, int (R,).
            first: beams before this one continue themselves.
        """
        ...

    def keep(self, beams: Tensor) -> None:
        """Drop every beam but these, int (K,), ascending."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token a beam.

        Args:
            tokens: int (R,).

        Returns:
            Scores of the token after it, fp32 (R, V).
        """
        ...


def start_beams(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    members: Sequence[int],
    owners: Tensor,
) -> tuple[Beams, Tensor]:
    """Beams that have read their prompts and nothing else, and the scores of their first tokens.

    Args:
        model: reads the prompts.
        prompts: P prompts of token ids, the longest first.
        members: whose adapter reads each prompt, P of them.
        owners: the prompt of each beam, int (R,).

    Returns:
        The beams, and fp32 (R, V).
    """
    whose = owners.new_tensor(members)
    if not model.reads_trees:
        read = model.read(prompts, whose)
        return _Rows(model, read, whose, owners), read.logits.index_select(0, owners)
    slices = list(_like_lengths([len(prompt) for prompt in prompts], model.device))
    reads = [model.read(prompts[some], whose[some]) for some in slices]
    logits = torch.cat([read.logits for read in reads])
    return TokenTree(model, reads, whose, owners), logits.index_select(0, owners)


def _like_lengths(lengths: Sequence[int], device: torch.device) -> Iterator[slice]:
    """Slices of prompts that are read together; none is padded with much."""
    bearable = _PADDING[device.type == "cuda"]
    start, padding = 0, 0
    for end, length in enumerate(lengths):
        padding += lengths[start] - length
        if padding > bearable:
            yield slice(start, end)
            start, padding = end, 0
    yield slice(start, len(lengths))


def cached_tokens(model: CausalModel, prompt: int, widths: Sequence[int], new_tokens: int) -> int:
    """Tokens whose keys and values a prompt's beams hold at the most.

    Args:
        model: decodes it.
        prompt: the prompt's tokens, virtual ones included.
        widths: beam widths.
        new_tokens: longest reply in tokens.
    """
    beams = sum(widths)
    return prompt + beams * new_tokens if model.reads_trees else beams * (prompt + new_tokens)


class _Rows:
    """A row of the model for each beam, moved by transformers' own means.

    For layers that differ (sliding windows) and models that read no mask but one of padding.
    """

    def __init__(
        self, model: CausalModel, read: ReadPrompts, members: Tensor, owners: Tensor
    ) -> None:
        self._model, self._cache, self._members = model, read.cache, members
        self._mask, self._positions = read.mask, read.positions
        self.keep(owners)

    def follow(self, parents: Tensor, first: int) -> None:
        """Reorder every key and value; see `Beams.follow`."""
        if first < len(parents):
            self._cache.batch_select_indices(parents)

    def keep(self, beams: Tensor) -> None:
        """Select rows of every layer; see `Beams.keep`."""
        self._cache.batch_select_indices(beams)
        self._positions = self._positions.index_select(0, beams)
        self._members = self._members.index_select(0, beams)
        if self._mask is not None:
            self._mask = self._mask.index_select(0, beams)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token a row; see `Beams.step`."""
        if self._mask is not None:
            self._mask = _longer(self._mask)
        scores = self._model.step(
            tokens[:, None], self._cache, self._mask, self._positions[:, None], self._members
        )
        self._positions = self._positions + 1
        return scores[:, 0]


def _longer(mask: Tensor) -> Tensor:
    """A mask of padding, int (R, T), that a real token follows in each row: (R, T + 1)."""
    longer = mask.new_ones(len(mask), mask.shape[1] + 1)
    longer[:, :-1] = mask
    return longer
