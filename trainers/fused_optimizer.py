"""AdamW for K members at once, each with its own learning rate, decay, clipping and step count.

Source: AdamW (Loshchilov and Hutter 2019), in the order of operations of torch.optim.AdamW; clipping
as torch.nn.utils.clip_grad_norm_.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainers.fused_lora import AdapterStorage

_SMALLEST_NORM = 1e-6


@dataclass(frozen=True)
class AdamStep:
    """One member's step."""

    k: int
    """Its place."""
    number: int
    """Counted from 1."""
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    """Infinite where gradients are not clipped."""
    betas: tuple[float, float]
    eps: float


@torch.no_grad()
def step_members(storage: AdapterStorage, steps: Sequence[AdamStep]) -> torch.Tensor:
    """Step some members and clear their gradients; the others' are not touched.

    Args:
        storage: changed in place.
        steps: of S members, in the order of their places.

    Returns:
        [S] norms of their gradients before clipping.
    """
    everyone = len(steps) == len(storage.values)
    device, kind = storage.values.device, storage.values.dtype
    settings_cs = torch.tensor([_settings(step) for step in steps], dtype=kind).T.to(
        device, non_blocking=True
    )
    decay, size, correction, most, mean_share, square_share, eps = settings_cs[..., None]
    index = None if everyone else torch.tensor([step.k for step in steps], device=device)
    buffers = (storage.values, storage.gradients, storage.means, storage.squares)
    values, gradients, means, squares = buffers if index is None else [b[index] for b in buffers]
    norms: torch.Tensor = torch.linalg.vector_norm(gradients, dim=1)
    gradients *= (most / (norms[:, None] + _SMALLEST_NORM)).clamp(max=1)
    means.lerp_(gradients, mean_share)
    squares.mul_(1 - square_share).add_(gradients.square_().mul_(square_share))
    values.mul_(decay).sub_(means / (squares.sqrt().div_(correction).add_(eps)) * size)
    if index is None:
        storage.gradients.zero_()
        return norms
    for buffer, part in ((storage.values, values), (storage.means, means)):
        buffer.index_copy_(0, index, part)
    storage.squares.index_copy_(0, index, squares)
    storage.gradients.index_fill_(0, index, 0)
    return norms


def _settings(step: AdamStep) -> tuple[float, ...]:
    first, second = step.betas
    return (
        1 - step.learning_rate * step.weight_decay,
        step.learning_rate / (1 - first**step.number),
        math.sqrt(1 - second**step.number),
        step.max_grad_norm,
        1 - first,
        1 - second,
        step.eps,
    )
