"""Keys and values of many beams, in buffers that beams are appended to, moved in and dropped from.

transformers' own cache copies every key and value twice a step: once to append, once to follow the
beams. Beams of a prompt share the prompt's keys and values, so here only the generated part follows
them, and appending is a write. Shapes: P prompts, R rows, H key-value heads, T tokens, D head
size.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

_CPU_CACHE_BYTES = 1 << 30
"""Memory for one batch's keys and values on a CPU; a GPU gives two fifths of what is free."""


class BeamCache(Protocol):
    """A cache whose rows can be followed and dropped."""

    cache: Cache
    """What the model reads and appends to."""

    def follow(self, parents: Tensor, first: int) -> None:
        """Let rows from `first` on go on from other rows of the same prompt.

        Args:
            parents: the row each row continues, int (R,).
            first: rows before this one continue themselves.
        """
        ...

    def keep(self, rows: Tensor) -> None:
        """Drop every row but these, int (K,), ascending."""
        ...


def can_hold(config: PretrainedConfig) -> bool:
    """Whether a model's cache consists of keys and values alone, so that its rows can be moved."""
    layers = DynamicCache(config=config).layers
    return all(isinstance(layer, DynamicLayer) for layer in layers)


def expand(prompt_cache: Cache, rows: Tensor, new_tokens: int) -> BeamCache:
    """A cache with a row for every beam, from one with a row for every prompt.

    Args:
        prompt_cache: what reading the prompts left; is emptied.
        rows: the prompt of each row, int (R,).
        new_tokens: room that is needed after the prompts' tokens.
    """
    if all(type(layer) is DynamicLayer for layer in prompt_cache.layers):
        return _Buffers(prompt_cache, rows, new_tokens)
    return _Layers(prompt_cache, rows)


class _BufferedLayer(DynamicLayer):
    """One layer's window on its buffers."""

    buffers: tuple[Tensor, Tensor]
    """Keys and values (R, H, T, D) with room behind."""
    keys: Tensor
    values: Tensor
    length = 0

    def show(self, keys: Tensor, values: Tensor, length: int) -> None:
        """Look at the first `length` tokens of the buffers."""
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


class _Buffers:
    """Every layer's keys and values in tensors (R, H, T, D) with room for what will come."""

    def __init__(self, prompt_cache: Cache, rows: Tensor, new_tokens: int) -> None:
        layers: list[Any] = list(prompt_cache.layers)
        self._prompt_tokens: int = layers[0].keys.shape[-2]
        self._layers: list[_BufferedLayer] = []
        for layer in layers:
            buffered = _BufferedLayer()  # type: ignore[no-untyped-call]
            keys, values = (_grow(kept, rows, new_tokens) for kept in (layer.keys, layer.values))
            buffered.show(keys, values, self._prompt_tokens)
            self._layers.append(buffered)
            layer.keys = layer.values = None
        prompt_cache.layers = list(self._layers)
        self.cache = prompt_cache

    def follow(self, parents: Tensor, first: int) -> None:
        """Move the generated part only; see `BeamCache.follow`."""
        if first == len(parents) or self._layers[0].length == self._prompt_tokens:
            return
        moved = parents[first:] - first
        for layer in self._layers:
            for tensor in (layer.keys, layer.values):
                generated = tensor[first:, :, self._prompt_tokens :]
                generated.copy_(generated.index_select(0, moved))

    def keep(self, rows: Tensor) -> None:
        """Move the rows that stay into smaller tensors, a layer at a time; see `BeamCache.keep`."""
        for layer in self._layers:
            keys, values = (kept.index_select(0, rows) for kept in layer.buffers)
            layer.show(keys, values, layer.length)


def _grow(kept: Tensor, rows: Tensor, new_tokens: int) -> Tensor:
    """Rows of (P, H, T, D) with room for new tokens behind: (R, H, T + new tokens, D)."""
    _, heads, tokens, size = kept.shape
    grown = kept.new_empty(len(rows), heads, tokens + new_tokens, size)
    grown[:, :, :tokens] = kept.index_select(0, rows)
    return grown


class _Layers:
    """Layers that differ (sliding windows), moved by transformers' own means."""

    def __init__(self, prompt_cache: Cache, rows: Tensor) -> None:
        self.cache = prompt_cache
        self.keep(rows)

    def follow(self, parents: Tensor, first: int) -> None:
        """Reorder every key and value; see `BeamCache.follow`."""
        if first < len(parents):
            self.cache.batch_select_indices(parents)

    def keep(self, rows: Tensor) -> None:
        """Select rows of every layer; see `BeamCache.keep`."""
        self.cache.batch_select_indices(rows)


def bytes_per_token(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """Memory that one token of one row takes in the cache.

    Args:
        config: of the text model.
        dtype: of keys and values.
    """
    heads = getattr(config, "num_attention_heads", None) or 1
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * size * dtype.itemsize)


def bytes_for_batch(device: torch.device) -> int:
    """Memory that one batch's keys and values may take.

    Args:
        device: where the model is; on a GPU this process's share of the memory counts.
    """
    if device.type != "cuda":
        return _CPU_CACHE_BYTES
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    free += reserved - torch.cuda.memory_allocated(device)
    share = getattr(torch.cuda, "get_per_process_memory_fraction", lambda _: 1.0)(device)
    free = min(free, int(total * share) - torch.cuda.memory_allocated(device))
    return max(0, free * 2 // 5)
