"""Replies from transformers' own `generate`, one prompt at a time.

That is ChatMGL's published protocol, and what models fall back to that our own loop does not cover.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from evaluators.beam_search import until_eos
from evaluators.causal_model import CausalModel
from evaluators.stopping import stop_if_asked
from trainers.progress import ShouldStop, never


def generate_one(
    model: CausalModel,
    prompt: Sequence[int],
    width: int,
    *,
    max_new_tokens: int,
    length_penalty: float,
    sample: bool,
    should_stop: ShouldStop = never,
) -> list[int]:
    """Token ids that transformers' `generate` adds to one prompt, up to the end of text.

    Args:
        model: the model.
        prompt: T token ids.
        width: beams.
        max_new_tokens: longest reply in tokens.
        length_penalty: exponent of the length in a beam's score.
        sample: draw tokens instead of taking the likeliest.
        should_stop: asked at every token.

    Raises:
        StoppedError: `should_stop` said so.
    """
    ids = torch.tensor([list(prompt)], device=model.device)
    settings: dict[str, object] = {"length_penalty": length_penalty} if width > 1 else {}
    with warnings.catch_warnings():
        # PEFT says so of every prompt-tuned model; one unpadded prompt needs no position ids.
        warnings.filterwarnings("ignore", message="Position ids are not supported")
        output = model.outer.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            num_beams=width,
            do_sample=sample,
            early_stopping=False if width > 1 else None,
            max_new_tokens=max_new_tokens,
            pad_token_id=model.pad_id,
            eos_token_id=list(model.eos_ids) or None,
            stopping_criteria=StoppingCriteriaList([_Ask(should_stop)]),
            **settings,
        )
    return until_eos(output[0, ids.shape[1] :].tolist(), model.eos_ids)


def sample_seed(seed: int, beam: int, pair_id: str) -> int:
    """Seed of one prompt's draws: the same whatever is generated before it.

    Args:
        seed: the trial's.
        beam: beam width.
        pair_id: of the prompt.
    """
    digest = hashlib.sha256(f"{seed}:{beam}:{pair_id}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class _Ask(StoppingCriteria):
    """Ends no text; asks at every token whether to go on at all."""

    def __init__(self, should_stop: ShouldStop) -> None:
        self._should_stop = should_stop

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """No row of `input_ids`, int (R, T), ends here."""
        stop_if_asked(self._should_stop)
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
