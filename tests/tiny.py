"""Tiny random models in folders, as a user would have them: weights, configuration, byte-level BPE.

`tests/conftest.py` makes them once a session, as `tiny_gpt2` and `tiny_llama`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from corpora.dialogue import Pair, PairSplits
from search_spaces.spec import (
    DecodingSpec,
    Method,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from tests.unit.evaluators.tiny_models import make_model
from trainers.laptop_models import LaptopModel, train_tokenizer

POSITIONS = 128
END_OF_TEXT = "<|endoftext|>"
TEXTS = [
    "Patient: I feel tired and nobody asks me why, so I stay in bed and wait for it to pass.",
    "Therapist: What would you like somebody to ask you when you stay in bed?",
    "Patient: Whether I slept. I do not sleep; I lie awake and count what I did wrong.",
    "Therapist: That sounds exhausting. Tell me more about what you count at night.",
    "Patient: My work, my mother, the letters that I have not opened since the summer.",
    "Therapist: We could look at one of those letters together, if you would like to.",
]


def make_tiny_folder(family: str, folder: Path) -> Path:
    """A random model of `gpt2` or `llama` kind; the Llama's tokenizer opens texts as Llamas' do."""
    tokenizer = make_tiny_tokenizer(opening=family == "llama")
    model = make_model(family, positions=POSITIONS)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny_tokenizer(*, opening: bool = False) -> PreTrainedTokenizerBase:
    """Byte-level BPE over 400 tokens; with `opening`, it puts its first token before a text."""
    tokenizer = train_tokenizer(
        TEXTS, LaptopModel(n_layer=1, n_embd=1, n_head=1, epochs=1, vocab_size=400, n_positions=128)
    )
    if opening:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, tokenizer.bos_token_id)]
        )
    return tokenizer


def tiny_spec(
    model: Path | str = "tiny",
    method: Method | None = None,
    *,
    max_new_tokens: int = 8,
    seed: int = 0,
    **training: Any,
) -> TrialSpec:
    """A trial of 2 optimiser steps on 2 pairs each, unless `training` says otherwise."""
    settings = {
        "max_length": 64,
        "batch_size": 2,
        "max_steps": 2,
        "learning_rate": 1e-2,
        **training,
    }
    return TrialSpec(
        model=str(model),
        method=method or SftSettings(),
        seed=seed,
        training=TrainingSpec(**settings),
        decoding=DecodingSpec(max_new_tokens=max_new_tokens),
    )


def tiny_pairs(train: int = 6, valid: int = 2, test: int = 3) -> PairSplits:
    """Pairs of unlike lengths, no two alike."""

    def pair(number: int) -> Pair:
        prompt = TEXTS[2 * number % 6].removeprefix("Patient: ")
        reply = TEXTS[(2 * number + 1) % 6].removeprefix("Therapist: ")
        words = prompt.split()
        return Pair(
            pair_id=f"s{number}:1",
            session=f"s{number}",
            prompt=" ".join(words[: 3 + number * 5 % len(words)]),
            reference=" ".join(reply.split()[: 2 + number * 3 % 7]),
            act=("question", "reflection", None)[number % 3],
        )

    pairs = [pair(number) for number in range(train + valid + test)]
    return PairSplits(
        train=tuple(pairs[:train]),
        valid=tuple(pairs[train : train + valid]),
        test=tuple(pairs[train + valid :]),
    )
