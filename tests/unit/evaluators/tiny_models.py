"""Tiny causal models with sharp next-token scores, so that equal replies mean equal searches."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from corpora.dialogue import Pair
from trainers.tuned import TunedModel

LETTERS = "abcdefghijklmnopqrstuvwxyzPT:.,?' \n"
EOS_ID = len(LETTERS)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    vocabulary["<eos>"] = EOS_ID
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def make_model(family: str, *, positions: int = 96, seed: int = 0) -> PreTrainedModel:
    """A random model in fp32 that ends about one reply in three early."""
    torch.manual_seed(seed)
    vocabulary = EOS_ID + 1
    special = {"bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,
        **special,
    }
    model: PreTrainedModel
    if family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=positions,
                initializer_range=0.3,
                **special,
            )
        )
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif family == "mistral":
        model = MistralForCausalLM(MistralConfig(**shape, sliding_window=24))
    else:
        raise ValueError(family)
    # Two tokens end a text, one of them one that random models like.
    model.generation_config.eos_token_id = [EOS_ID, LETTERS.index("p" if family == "gpt2" else "j")]
    return model.float().eval()


def make_tuned(model: object) -> TunedModel:
    return TunedModel(
        model=model,  # type: ignore[arg-type]
        tokenizer=make_tokenizer(),
        folder=Path("unused"),
        trainable_parameters=0,
        total_parameters=0,
    )


def make_pairs(count: int = 22) -> list[Pair]:
    """Prompts of 1 to about 60 characters."""
    text = "i feel tired and nobody asks me why, so i stay in bed and wait for it to pass"
    return [
        Pair(
            pair_id=f"s{number % 5}:{number}",
            session=f"s{number % 5}",
            prompt=text[number * 3 % 17 : number * 3 % 17 + 1 + number * 13 % 60],
            reference="tell me more about that",
            act=None,
        )
        for number in range(count)
    ]
