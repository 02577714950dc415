"""Beams as branches of a tree: each prompt's keys and values are held once, and nothing follows.

All beams of a prompt, of all widths, are read as one sequence of the model: a step appends one token
a beam to the prompt's keys and values, and a mask says which of them each beam has passed through.
A beam that goes on from another takes over its row of the mask; keys and values stay where they are.
So the prompt's keys are read once a step for all its beams, and linear layers see rows as before.
Shapes: P prompts, Q slots for beams a prompt, R beams in all, H key-value heads, T tokens held, D
head size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from evaluators.causal_model import CausalModel, ReadPrompts

_ROOM_STEPS = 16
"""Steps that buffers have room for; then what no beam has passed through is dropped from them."""


class TokenTree:
    """The beams of a batch of prompts; see `evaluators/beams.py` for how it is used.

    Args:
        model: has read the prompts.
        reads: what that left, slice by slice; their caches are emptied.
        members: whose adapter reads each prompt, int (P,).
        owners: the prompt of each beam, int (R,).
    """

    def __init__(
        self, model: CausalModel, reads: Sequence[ReadPrompts], members: Tensor, owners: Tensor
    ) -> None:
        self._model, self._cache = model, reads[0].cache
        self._members = members
        self._layers = _join([read.cache for read in reads])
        self._cache.layers = list(self._layers)
        self._owners = owners
        positions = torch.cat([read.positions for read in reads])
        self._positions = positions.index_select(0, owners)
        real = owners.new_zeros(len(members), self._layers[0].length)
        first = 0
        for read in reads:
            rows, tokens = len(read.positions), read.tokens
            real[first : first + rows, :tokens] = 1 if read.mask is None else read.mask
            first += rows
        self._passed = real.bool().index_select(0, owners)
        """Tokens that each beam has passed through, bool (R, T)."""
        self._prompts, self._slots = len(members), 0
        self._lay_out()

    def follow(self, parents: Tensor, first: int) -> None:
        """Let beams go on from others of the same prompt; see `Beams.follow`."""
        if first < len(parents):
            self._passed = self._passed.index_select(0, parents)

    def keep(self, beams: Tensor) -> None:
        """Drop every beam but these; see `Beams.keep`."""
        self._passed = self._passed.index_select(0, beams)
        self._positions = self._positions.index_select(0, beams)
        self._owners = self._owners.index_select(0, beams)
        self._lay_out()

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token a beam; see `Beams.step`."""
        if self._layers[0].length + self._slots > self._layers[0].room:
            self._clear(torch.arange(self._prompts, device=tokens.device))
        places = self._prompts * self._slots
        new = self._passed.new_zeros(len(tokens), self._slots)
        new.scatter_(1, self._places[:, None] % self._slots, True)
        self._passed = torch.cat((self._passed, new), dim=1)
        # A slot without a beam reads a token that no beam passes through.
        ids, positions = (
            given.new_zeros(places).index_copy_(0, self._places, given)
            for given in (tokens, self._positions)
        )
        dtype = self._model.dtype
        hidden = (~self._passed).to(dtype) * torch.finfo(dtype).min
        mask = hidden.new_zeros(places, hidden.shape[1]).index_copy_(0, self._places, hidden)
        shape = (self._prompts, self._slots)
        scores = self._model.step(
            ids.view(shape),
            self._cache,
            mask.view(self._prompts, 1, self._slots, -1),
            positions.view(shape),
            self._members,
        )
        self._positions = self._positions + 1
        return scores.view(places, -1).index_select(0, self._places)

    def _lay_out(self) -> None:
        """Give every beam a slot at its prompt, and let go of prompts and slots that none needs."""
        owners: list[int] = self._owners.tolist()
        beams = Counter(owners)
        slots = max(beams.values(), default=0)
        if len(beams) < self._prompts or slots != self._slots:
            staying = sorted(beams)
            number = {prompt: place for place, prompt in enumerate(staying)}
            owners = [number[prompt] for prompt in owners]
            self._owners = self._owners.new_tensor(owners)
            self._prompts, self._slots = len(staying), slots
            self._clear(self._owners.new_tensor(staying))
        taken: Counter[int] = Counter()
        places = []
        for owner in owners:
            places.append(owner * self._slots + taken[owner])
            taken[owner] += 1
        self._places = self._owners.new_tensor(places)
        """Where each beam stands among P*Q slots, int (R,)."""

    def _clear(self, staying: Tensor) -> None:
        """Hold only what a beam has passed through, with room for steps to come.

        Args:
            staying: the prompts that beams still belong to, as the buffers number them, int (P,).
        """
        counts = torch.zeros(
            self._prompts, self._passed.shape[1], dtype=torch.int, device=staying.device
        ).index_add_(0, self._owners, self._passed.int())
        used = counts > 0
        tokens = int(used.sum(dim=1).max())
        # Stable: tokens stay in their order, those to hold first.
        order = used.int().argsort(dim=1, descending=True, stable=True)[:, :tokens]
        self._members = self._members.index_select(0, staying)
        self._passed = self._passed.gather(1, order.index_select(0, self._owners))
        room = tokens + _ROOM_STEPS * self._slots
        for layer in self._layers:
            keys, values = (
                _move(kept, staying, order, room) for kept in (layer.keys, layer.values)
            )
            layer.show(keys, values, tokens)


class _TreeLayer(DynamicLayer):
    """One layer's window on its buffers."""

    keys: Tensor
    values: Tensor
    length = 0

    @property
    def room(self) -> int:
        """Tokens that the buffers have room for."""
        return int(self.buffers[0].shape[2])

    def show(self, keys: Tensor, values: Tensor, length: int) -> None:
        """Look at the first `length` tokens of the buffers (P, H, room, D)."""
        self.buffers, self.length = (keys, values), length
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the old; keys and values of all of them."""
        keys, values = self.buffers
        end = self.length + key_states.shape[-2]
        keys[:, :, self.length : end] = key_states
        values[:, :, self.length : end] = value_states
        self.show(keys, values, end)
        return self.keys, self.values


def _join(caches: Sequence[Cache]) -> list[_TreeLayer]:
    """The layers of several caches as those of one, shorter ones filled up behind; empties them."""
    joined = []
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        kept: list[Any] = list(layers)
        length = max(layer.keys.shape[2] for layer in kept)
        keys, values = (
            torch.cat([pad(tensor, (0, 0, 0, length - tensor.shape[2])) for tensor in tensors])
            for tensors in ([layer.keys for layer in kept], [layer.values for layer in kept])
        )
        for layer in kept:
            layer.keys = layer.values = None
        layer = _TreeLayer()  # type: ignore[no-untyped-call]
        layer.show(keys, values, length)
        joined.append(layer)
    return joined


def _move(kept: Tensor, prompts: Tensor, order: Tensor, room: int) -> Tensor:
    """Chosen prompts and tokens of (P, H, T, D), with room behind.

    Args:
        kept: keys or values.
        prompts: those that stay, int (K,).
        order: the tokens that stay of each of them, int (K, T').
        room: tokens that the result has room for.
    """
    _, heads, _, size = kept.shape
    count, tokens = order.shape
    moved = kept.new_empty(count, heads, room, size)
    index = order[:, None, :, None].expand(-1, heads, -1, size)
    torch.gather(kept.index_select(0, prompts), 2, index, out=moved[:, :, :tokens])
    return moved
