"""Attention over a row of tokens that holds many pairs, as transformers' models call it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from trainers.fused_dropout import MemberDropout
from trainers.fused_rows import Rows

ATTENTION = "fused_rows"
"""Its name among transformers' implementations; one without a mask function gets no mask."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    rows: Rows,
    member_dropout: MemberDropout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each pair.

    Args:
        module: the model's attention.
        query: [1, H, N, D].
        key: [1, G, N, D], where H is a multiple of G.
        value: as `key`.
        attention_mask: none; what a pair sees is in `rows`.
        rows: the pairs.
        member_dropout: draws the members' masks.
        scaling: of the scores; absent: the root of D.
        dropout: chance of a zero.
        rest: what other implementations need.

    Returns:
        [1, N, H, D], and no attention weights.
    """
    heads = query.shape[1]
    query, key, value = (_as_pairs(x, rows, heads) for x in (query, key, value))
    # With a draw for all members there is nothing that must be drawn apart.
    if not dropout or query.device.type != "cpu":
        out_rhtd = scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, scale=scaling, is_causal=True
        )
    else:
        scores_rhtt = query @ key.transpose(-1, -2)
        scores_rhtt = scores_rhtt * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        later = torch.ones(rows.longest, rows.longest, dtype=torch.bool).triu_(1)
        weights_rhtt = scores_rhtt.masked_fill(later, -torch.inf).softmax(-1)
        mask_rhtt = member_dropout.mask_pairs(weights_rhtt, rows, dropout)
        out_rhtd = (weights_rhtt * mask_rhtt) @ value
    out_nc = rows.unpad_pairs(out_rhtd.transpose(1, 2).flatten(2))
    return out_nc.view(1, -1, heads, query.shape[-1]), None


def _as_pairs(x_1gnd: torch.Tensor, rows: Rows, heads: int) -> torch.Tensor:
    """[R, H, T, D]."""
    groups, size = x_1gnd.shape[1], x_1gnd.shape[3]
    x_rtc = rows.pad_pairs(x_1gnd[0].transpose(0, 1).flatten(1))
    x_rgtd = x_rtc.view(rows.pairs, rows.longest, groups, size).transpose(1, 2)
    return x_rgtd if groups == heads else x_rgtd.repeat_interleave(heads // groups, 1)


AttentionInterface.register(ATTENTION, attend)
