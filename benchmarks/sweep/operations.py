"""Floating-point operations that a sweep cannot do without, counted by formula, and what the machine can do.

A product of matrices [m, k] and [k, n] is 2 m k n operations. A block of width d reads a token with
4 d^2 weights of its attention and 2 d f of its MLP (f = 4 d in GPT-2), twice that in operations, and
attends with 4 d operations to each position that it sees; a scored position takes 2 d V.

| work | operations |
|---|---|
| full fine-tuning | 3 forward passes: forward, gradients of activations, gradients of weights (6 N a token) |
| delta tuning | 2 forward passes, and 6 operations a token for each trained weight (4 N a token + adapter) |
| validation loss | 1 forward pass |
| decoding | each prompt once for all beam widths; then at width w a reply of n tokens is w (n - 1) tokens read, each with its scores (2 N a token and beam) |
| BERTScore | each different text of a trial once, bidirectional |

Scores are counted where they are used: at tokens that count in the loss, at a prompt's last token, at
each token of a beam. Nothing is counted for padding, recomputation, optimisers, norms, embeddings, search,
adapters while decoding (they could be merged), or steps after the best hypothesis is found.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

_SIDE = 1024
"""Of the square matrices by which a machine is measured."""


@dataclass(frozen=True)
class Shape:
    """Of a transformer, as far as operations depend on it."""

    layers: int
    width: int
    inner: int
    """Width of the MLP's hidden layer."""
    vocabulary: int = 0


@dataclass(frozen=True)
class Adapter:
    """What is trained beside a frozen model."""

    weights: int = 0
    """Trained weights that every token is multiplied with."""
    read_tokens: int = 0
    """Learned tokens in front of a text that pass through the model."""
    attended_positions: int = 0
    """Learned keys and values that every token attends to."""


@dataclass(frozen=True)
class Operations:
    """Of one trial or more."""

    training: float = 0.0
    """Training and validation loss."""
    decoding: float = 0.0
    scoring: float = 0.0
    """BERTScore's encoder."""

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.training + other.training,
            self.decoding + other.decoding,
            self.scoring + other.scoring,
        )


def count_forward(shape: Shape, tokens: int, attended: int, scored: int) -> float:
    """Operations of a forward pass.

    Args:
        shape: the model's.
        tokens: that are read.
        attended: positions seen, summed over tokens; a text of T tokens from its beginning sees
            T (T + 1) / 2.
        scored: positions at which the vocabulary is scored.
    """
    block = 2 * (4 * shape.width**2 + 2 * shape.width * shape.inner) * tokens
    attention = 4 * shape.width * attended
    return float(shape.layers * (block + attention) + 2 * shape.width * shape.vocabulary * scored)


def count_training(
    shape: Shape,
    train: Iterable[tuple[int, int]],
    valid: Iterable[tuple[int, int]],
    epochs: int,
    adapter: Adapter | None,
) -> float:
    """Operations of a training and of its validation loss.

    Args:
        shape: the model's.
        train: tokens and scored tokens of each training example.
        valid: of each validation example, likewise.
        epochs: passes over the training examples.
        adapter: what is trained beside a frozen model; absent: all weights are.
    """
    added = adapter or Adapter()
    passes = 3 if adapter is None else 2
    trained = sum(
        passes * _read_example(shape, *example, added) + 6 * added.weights * example[0]
        for example in train
    )
    return epochs * trained + sum(_read_example(shape, *example, added) for example in valid)


def _read_example(shape: Shape, tokens: int, scored: int, added: Adapter) -> float:
    tokens += added.read_tokens
    attended = tokens * (tokens + 1) // 2 + added.attended_positions * tokens
    return count_forward(shape, tokens, attended, scored)


def count_decoding(shape: Shape, prompt: int, replies: Iterable[tuple[int, int]]) -> float:
    """Operations of all replies to one prompt.

    Args:
        shape: the model's.
        prompt: tokens of the prompt.
        replies: beam width and tokens of each reply, its end of text included.
    """
    total = count_forward(shape, prompt, prompt * (prompt + 1) // 2, 1)
    for width, tokens in replies:
        # The prompt's own scores give the first token; the last one is not read.
        read = max(tokens - 1, 0)
        attended = read * prompt + read * (read + 1) // 2
        total += width * count_forward(shape, read, attended, read)
    return total


def count_scoring(shape: Shape, texts: Iterable[int]) -> float:
    """Operations of an encoder's reading.

    Args:
        shape: the encoder's, up to the layer that is read.
        texts: tokens of each different text.
    """
    return sum(count_forward(shape, tokens, tokens**2, 0) for tokens in texts)


def measure_rate(
    seconds: float = 2.0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    side: int = _SIDE,
) -> float:
    """Operations a second of matrix multiplication, the best of several products.

    Args:
        seconds: to spend on it.
        device: where; on a CPU, on all cores that torch uses.
        dtype: of the matrices.
        side: of the square matrices.
    """
    left = torch.rand(side, side, device=device, dtype=dtype)
    right, out = torch.rand_like(left), torch.empty_like(left)
    best, end = float("inf"), time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        torch.mm(left, right, out=out)
        if left.is_cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2.0 * side**3 / best
