"""What decoding may hold: which caches its beams can be kept in, and how much memory they take."""

from __future__ import annotations

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_CPU_CACHE_BYTES = 1 << 30
"""Memory for one batch's keys and values on a CPU; a GPU gives two fifths of what is free."""


def can_hold(config: PretrainedConfig) -> bool:
    """Whether a model's cache consists of keys and values alone, so that its rows can be moved."""
    return all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=config).layers)


def has_whole_layers(config: PretrainedConfig) -> bool:
    """Whether every layer of a model's cache keeps all of a text, none a window of it alone."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


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
