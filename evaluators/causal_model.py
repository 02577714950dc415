"""One view of every causal language model that can be decoded: plain, or wrapped by PEFT.

PEFT models that learn a prompt (prefix tuning, prompt tuning, p-tuning) are read through what they
learned - keys and values, or embeddings in front of the text - and their base model. Positions
follow training: the virtual tokens first, the text after them, padding nowhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache

from evaluators.beam_cache import can_hold, has_whole_layers
from trainers.row_adapters import RowAdapters
from trainers.tuned import TunedModel

_NEUTRAL: dict[str, object] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "guidance_scale": 1.0,
    "watermarking_config": None,
    "stop_strings": None,
    "renormalize_logits": False,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
}
"""Generation settings that change scores or stopping, and the value with which they do not."""


@dataclass(frozen=True)
class ReadPrompts:
    """What reading B prompts left behind."""

    logits: Tensor
    """Scores of the first new token, fp32 (B, V)."""
    cache: Cache
    """Keys and values of B rows."""
    mask: Tensor | None
    """Which cached tokens are real, int (B, T); absent where all are."""
    positions: Tensor
    """Position of each row's next token, int (B,)."""
    tokens: int
    """T, virtual and padding tokens included."""


class CausalModel:
    """A model that reads prompts and then one token a row at a time.

    Args:
        tuned: the tuned model; its generation config is read, never written.
        adapters: where `tuned` is the base of several adapters, what tells them which row is whose.
    """

    def __init__(self, tuned: TunedModel, adapters: RowAdapters | None = None) -> None:
        outer: Any = tuned.model
        outer.eval()
        peft_config: Any = getattr(outer, "active_peft_config", None)
        learns_prompt = bool(getattr(peft_config, "is_prompt_learning", False))
        self.outer = outer
        self._adapters = adapters
        self.base: Any = outer if peft_config is None else outer.get_base_model()
        self._learns_prompt = learns_prompt
        self.virtual_tokens = int(peft_config.num_virtual_tokens) if learns_prompt else 0
        self.config: PretrainedConfig = self.base.config.get_text_config(decoder=True)
        self.device = torch.device(self.base.device)
        self.dtype: torch.dtype = self.base.dtype
        self.generation_config: Any = outer.generation_config
        self.eos_ids = _eos_ids(self.generation_config.eos_token_id, tuned.tokenizer.eos_token_id)
        pad = tuned.tokenizer.pad_token_id
        self.pad_id: int = pad if isinstance(pad, int) else self.eos_ids[0] if self.eos_ids else 0
        self._accepts = frozenset(inspect.signature(self.base.forward).parameters)

    @property
    def max_positions(self) -> int | None:
        """Longest text in tokens that the model has positions for, virtual tokens taken off."""
        positions = getattr(self.config, "max_position_embeddings", None)
        return None if positions is None else int(positions) - self.virtual_tokens

    @property
    def can_batch(self) -> bool:
        """Whether our own loop gives what `generate` would.

        It does for caches of keys and values and for generation configs that leave the scores as
        they are; recurrent states and repetition penalties, say, are left to transformers.
        """
        neutral = all(
            getattr(self.generation_config, name, None) in (None, value)
            for name, value in _NEUTRAL.items()
        )
        return neutral and can_hold(self.config)

    @cached_property
    def reads_trees(self) -> bool:
        """Whether the model follows a mask that says which tokens each token comes after.

        It does where attention is transformers' own function and every layer sees the whole text.
        """
        return (
            "position_ids" in self._accepts
            and bool(getattr(self.base, "_supports_attention_backend", False))
            and self.config._attn_implementation in ("sdpa", "eager")
            and has_whole_layers(self.config)
        )

    def read(self, prompts: Sequence[Sequence[int]], members: Tensor | None = None) -> ReadPrompts:
        """Read prompts side by side.

        Args:
            prompts: B prompts of token ids, each of any length above 0.
            members: whose adapter reads each, int (B,); absent where there is one model for all.
        """
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        longest = int(lengths.max())
        ids = torch.tensor(
            [[self.pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts],
            device=self.device,
        )
        mask = torch.arange(longest, device=self.device)[None] >= longest - lengths[:, None]
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0) + self.virtual_tokens
        learned = self._learned_prompt()
        cache: Cache = DynamicCache(config=self.config)
        inputs: dict[str, Tensor] = {"input_ids": ids}
        if learned is not None:
            virtual = mask.new_ones(len(ids), self.virtual_tokens)
            mask = torch.cat((virtual, mask), dim=1)
        if isinstance(learned, Tensor):
            # Embeddings (1, virtual tokens, hidden size) stand in front of the text's.
            text = self.base.get_input_embeddings()(ids)
            front = learned.to(text.dtype).expand(len(ids), -1, -1)
            inputs = {"inputs_embeds": torch.cat((front, text), dim=1)}
            front_positions = torch.arange(self.virtual_tokens, device=self.device)
            positions = torch.cat((front_positions.expand(len(ids), -1), positions), dim=1)
        elif learned is not None:
            for number, layer in enumerate(learned):
                repeats = (len(ids), -1, -1, -1)
                cache.update(layer.keys.expand(repeats), layer.values.expand(repeats), number)
        padded = int(lengths.min()) < longest
        real = mask.long() if padded else None
        logits = self._forward(inputs, cache, real, positions, 1, members)[:, 0]
        return ReadPrompts(
            logits, cache, real, lengths + self.virtual_tokens, longest + self.virtual_tokens
        )

    def first_scores(self, prompt: Sequence[int]) -> Tensor:
        """Scores of the token after a prompt, fp32 (V,), read without a cache.

        Args:
            prompt: token ids; not for models that learn a prompt.
        """
        arguments: dict[str, Any] = {"use_cache": False}
        if "logits_to_keep" in self._accepts:
            arguments["logits_to_keep"] = 1
        ids = torch.tensor([list(prompt)], device=self.device)
        logits: Tensor = self.base(input_ids=ids, **arguments).logits
        return logits[0, -1].float()

    def last_state(self, prompt: Sequence[int]) -> Tensor:
        """Last hidden state of a prompt's last token, fp32 (H,), read without a cache.

        Args:
            prompt: token ids; not for models that learn a prompt.
        """
        ids = torch.tensor([list(prompt)], device=self.device)
        states: Tensor = self.base.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return states[0, -1].float()

    def step(
        self,
        tokens: Tensor,
        cache: Cache,
        mask: Tensor | None,
        positions: Tensor,
        members: Tensor | None = None,
    ) -> Tensor:
        """Read S more tokens a row.

        Args:
            tokens: int (B, S).
            cache: keys and values of T tokens in B rows.
            mask: real tokens of the cache and the new ones, int (B, T+S), absent where all are; or
                what is added to the attention of each new token, float (B, 1, S, T+S).
            positions: of the new tokens, int (B, S).
            members: whose adapter reads each row, int (B,); absent where there is one for all.

        Returns:
            Scores of the token after each, fp32 (B, S, V).
        """
        return self._forward(
            {"input_ids": tokens}, cache, mask, positions, tokens.shape[1], members
        )

    def _forward(
        self,
        inputs: dict[str, Tensor],
        cache: Cache,
        mask: Tensor | None,
        positions: Tensor,
        scored: int,
        members: Tensor | None,
    ) -> Tensor:
        """Scores after the last tokens of each row, fp32 (B, scored, V)."""
        if self._adapters is not None and members is not None:
            self._adapters.members = members
        arguments: dict[str, Any] = {
            **inputs,
            "past_key_values": cache,
            "attention_mask": mask,
            "use_cache": True,
        }
        if "position_ids" in self._accepts:
            arguments["position_ids"] = positions
        if "logits_to_keep" in self._accepts:
            # Scores of every prompt token would take B*T*V numbers for B*V that are used.
            arguments["logits_to_keep"] = scored
        logits: Tensor = self.base(**arguments, return_dict=True).logits
        return logits[:, -scored:].float()

    def _learned_prompt(self) -> Tensor | list[Any] | None:
        """Embeddings (1, virtual tokens, hidden size), or layers of keys and values of one row."""
        if not self._learns_prompt:
            return None
        learned: Any = self.outer.get_prompt(batch_size=1)
        if isinstance(learned, Tensor):
            return learned
        # PEFT wraps the cache of a model that could have an encoder.
        return list(getattr(learned, "self_attention_cache", learned).layers)


def _eos_ids(configured: int | list[int] | None, of_tokenizer: Any) -> tuple[int, ...]:
    chosen = of_tokenizer if configured is None else configured
    if chosen is None:
        return ()
    return (int(chosen),) if isinstance(chosen, int) else tuple(int(token) for token in chosen)
