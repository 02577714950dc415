"""Beams of many prompts that a model reads token by token, as one kind of model or another allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from evaluators.causal_model import CausalModel, ReadPrompts
from evaluators.token_tree import TokenTree


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


def start_beams(model: CausalModel, read: ReadPrompts, owners: Tensor) -> Beams:
    """Beams that have read their prompts and nothing else.

    Args:
        model: has read the prompts.
        read: what that left; its cache is emptied.
        owners: the prompt of each beam, int (R,).
    """
    return TokenTree(model, read, owners) if model.reads_trees else _Rows(model, read, owners)


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

    def __init__(self, model: CausalModel, read: ReadPrompts, owners: Tensor) -> None:
        self._model, self._cache = model, read.cache
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
        if self._mask is not None:
            self._mask = self._mask.index_select(0, beams)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token a row; see `Beams.step`."""
        if self._mask is not None:
            self._mask = _longer(self._mask)
        scores = self._model.step(
            tokens[:, None], self._cache, self._mask, self._positions[:, None]
        )
        self._positions = self._positions + 1
        return scores[:, 0]


def _longer(mask: Tensor) -> Tensor:
    """A mask of padding, int (R, T), that a real token follows in each row: (R, T + 1)."""
    longer = mask.new_ones(len(mask), mask.shape[1] + 1)
    longer[:, :-1] = mask
    return longer
