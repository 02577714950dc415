"""Micro-batches of several trainings as one row of tokens, without padding.

Shapes: K members, each with B_k pairs of at most T_k tokens; R = sum of B_k rows, T the longest of
all, N tokens in all, M of them with a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from trainers.encoding import IGNORED_LABEL, EncodedPair

_Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Example:
    """An encoded pair of T tokens, as arrays."""

    ids: _Ints
    """[T] token ids."""
    kept: _Ints
    """Positions whose next token counts in the loss."""
    targets: _Ints
    """These tokens."""


def as_example(pair: EncodedPair) -> Example:
    """A pair as arrays.

    Args:
        pair: its first label does not count: nothing predicts it.
    """
    labels = np.array(pair.labels[1:], dtype=np.int64)
    kept = np.flatnonzero(labels != IGNORED_LABEL)
    return Example(np.array(pair.input_ids, dtype=np.int64), kept, labels[kept])


@dataclass(frozen=True)
class Share:
    """One member's part of a row of tokens."""

    first: int
    """Its first token."""
    lengths: tuple[int, ...]
    """Tokens of each of its B_k pairs, which follow each other."""
    first_row: int
    """Its first pair, counted over all members."""

    @property
    def tokens(self) -> int:
        """Tokens of all its pairs."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """T_k, the length that it alone would pad its pairs to."""
        return max(self.lengths, default=0)

    @cached_property
    def real(self) -> torch.Tensor | None:
        """Where its tokens are in [B_k * T_k]; None where nothing would be padded."""
        longest = self.longest
        if all(length == longest for length in self.lengths):
            return None
        starts = range(0, longest * len(self.lengths), longest)
        return torch.cat(
            [torch.arange(s, s + n) for s, n in zip(starts, self.lengths, strict=True)]
        )


@dataclass(frozen=True)
class Rows:
    """The micro-batches of K members, one after the other."""

    shares: tuple[Share, ...]
    """Of every member; one that rests has no pairs."""
    ids: torch.Tensor
    """[N] token ids."""
    positions: torch.Tensor
    """[N] places within their pairs."""
    slots: torch.Tensor
    """[N] places in [R * T]."""
    member_slots: torch.Tensor
    """[N] places in [K * n], where n is the most tokens that a member has."""
    kept: torch.Tensor
    """[M] tokens whose next one counts in the loss."""
    targets: torch.Tensor
    """[M] these next ones."""
    owners: torch.Tensor
    """[M] the member that each belongs to."""
    pairs: int
    """R."""
    longest: int
    """T."""
    most: int
    """n."""

    @property
    def even(self) -> bool:
        """Whether all members have as many tokens, so that nothing is padded for them."""
        return all(share.tokens == self.most for share in self.shares)

    def pad_pairs(self, x_nc: torch.Tensor) -> torch.Tensor:
        """The tokens as padded pairs, [R, T, C]; gradients at padding do not come back.

        Args:
            x_nc: [N, C].
        """
        scatter: Any = _Scatter.apply
        padded: torch.Tensor = scatter(x_nc, self.slots, self.pairs * self.longest)
        return padded.view(self.pairs, self.longest, x_nc.shape[1])

    def unpad_pairs(self, x_rtc: torch.Tensor) -> torch.Tensor:
        """The tokens of padded pairs, [N, C].

        Args:
            x_rtc: [R, T, C].
        """
        gather: Any = _Gather.apply
        tokens: torch.Tensor = gather(x_rtc.flatten(0, 1), self.slots)
        return tokens


class _Scatter(torch.autograd.Function):
    """Rows put into zeros; a member's padding must not hold another's NaN."""

    @staticmethod
    def forward(ctx: Any, x_nc: torch.Tensor, slots_n: torch.Tensor, size: int) -> torch.Tensor:
        ctx.slots_n = slots_n
        return scatter_rows(x_nc, slots_n, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].index_select(0, ctx.slots_n), None, None


class _Gather(torch.autograd.Function):
    """The other way round, so that a gradient is a copy, not a sum over indices."""

    @staticmethod
    def forward(ctx: Any, x_sc: torch.Tensor, slots_n: torch.Tensor) -> torch.Tensor:
        ctx.slots_n, ctx.size = slots_n, x_sc.shape[0]
        return x_sc.index_select(0, slots_n)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return scatter_rows(gradients[0], ctx.slots_n, ctx.size), None


def scatter_rows(x_nc: torch.Tensor, slots_n: torch.Tensor, size: int) -> torch.Tensor:
    """Zeros [size, C] with rows put in, without a gradient of its own.

    Args:
        x_nc: [N, C].
        slots_n: [N] where each goes.
        size: rows of the result.
    """
    return x_nc.new_zeros(size, x_nc.shape[1]).index_copy_(0, slots_n, x_nc)


def lay_out(batches: Sequence[Sequence[Example]], device: torch.device) -> Rows:
    """Put the members' micro-batches into one row of tokens.

    Args:
        batches: each member's pairs; none where it rests.
        device: where the tensors go.
    """
    examples = [example for batch in batches for example in batch]
    lengths = np.array([len(example.ids) for example in examples])
    shares, tokens, row = [], 0, 0
    for batch in batches:
        share = Share(tokens, tuple(len(example.ids) for example in batch), row)
        shares.append(share)
        tokens, row = tokens + share.tokens, row + len(batch)
    longest, most = int(lengths.max()), max(share.tokens for share in shares)
    starts = np.cumsum(lengths) - lengths
    counts = [sum(len(example.kept) for example in batch) for batch in batches]
    firsts = np.repeat([s.first for s in shares], [s.tokens for s in shares])
    member = np.repeat(np.arange(len(shares)), [s.tokens for s in shares])
    positions = np.arange(tokens) - np.repeat(starts, lengths)
    parts = [
        np.concatenate([example.ids for example in examples]),
        positions,
        np.repeat(np.arange(len(examples)) * longest, lengths) + positions,
        member * most + np.arange(tokens) - firsts,
        np.concatenate([e.kept + start for e, start in zip(examples, starts, strict=True)]),
        np.concatenate([example.targets for example in examples]),
        np.repeat(np.arange(len(batches)), counts),
    ]
    # One transfer, not seven.
    joined = torch.from_numpy(np.concatenate(parts)).to(device, non_blocking=True)
    ids, *rest = joined.split([len(part) for part in parts])
    positions, slots, member_slots, kept, targets, owners = rest
    return Rows(
        tuple(shares),
        ids,
        positions,
        slots,
        member_slots,
        kept,
        targets,
        owners,
        pairs=len(examples),
        longest=longest,
        most=most,
    )
