"""Dropout for members that share a forward pass, each with the random numbers it would draw alone.

On the CPU each member draws from its own generator, in the shapes and the order of its training
alone, padding included, so that its masks are those bits. On a GPU one draw serves all members: masks
are equal in distribution only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainers.fused_rows import Rows


class MemberDropout:
    """Draws masks.

    Args:
        generators: each member's, on the CPU.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def mask_tokens(self, like_nc: torch.Tensor, rows: Rows, p: Sequence[float]) -> torch.Tensor:
        """What to multiply the tokens' values by, [N, C].

        Args:
            like_nc: [N, C]; its type and device are used.
            rows: whose tokens they are.
            p: each member's chance of a zero.
        """
        if like_nc.device.type != "cpu":
            return _mask_by_chance(like_nc, rows, p)
        mask_nc = torch.empty(like_nc.shape, dtype=like_nc.dtype)
        for share, chance, generator in zip(rows.shares, p, self.generators, strict=True):
            part = mask_nc[share.first : share.first + share.tokens]
            if not share.lengths:
                continue
            if not chance:
                part.fill_(1)
            elif share.real is None:
                part.bernoulli_(1 - chance, generator=generator).div_(1 - chance)
            else:
                padded = part.new_empty(share.longest * len(share.lengths), part.shape[1])
                padded.bernoulli_(1 - chance, generator=generator).div_(1 - chance)
                torch.index_select(padded, 0, share.real, out=part)
        return mask_nc

    def mask_pairs(self, like_rhtt: torch.Tensor, rows: Rows, p: float) -> torch.Tensor:
        """What to multiply attention by, [R, H, T, T]; zeros at padding.

        Args:
            like_rhtt: attention of every token of a pair to every other.
            rows: whose they are.
            p: chance of a zero.
        """
        if like_rhtt.device.type != "cpu":
            return torch.empty_like(like_rhtt).bernoulli_(1 - p).div_(1 - p)
        mask_rhtt = torch.zeros(like_rhtt.shape, dtype=like_rhtt.dtype)
        for share, generator in zip(rows.shares, self.generators, strict=True):
            longest, pairs = share.longest, len(share.lengths)
            part = mask_rhtt[share.first_row : share.first_row + pairs, :, :longest, :longest]
            if not pairs:
                continue
            if part.is_contiguous():
                part.bernoulli_(1 - p, generator=generator)
            else:
                part.copy_(part.new_empty(part.shape).bernoulli_(1 - p, generator=generator))
        return mask_rhtt.div_(1 - p)


def _mask_by_chance(like_nc: torch.Tensor, rows: Rows, p: Sequence[float]) -> torch.Tensor:
    counts = torch.tensor([share.tokens for share in rows.shares])
    keep_n1 = torch.repeat_interleave(1 - torch.tensor(p), counts)[:, None].to(
        like_nc, non_blocking=True
    )
    return torch.bernoulli(keep_n1.expand_as(like_nc)).div_(keep_n1)
