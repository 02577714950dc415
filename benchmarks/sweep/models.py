"""The models that are swept over: small enough for a CPU, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from corpora.loaders import build_pairs
from corpora.read import read_corpus
from search_spaces.spec import CorpusSpec, SplitSpec
from trainers.laptop_models import LaptopModel, make_laptop_model, train_tokenizer

Width = Literal["small", "medium"]

_SMALL = LaptopModel(n_layer=2, n_embd=64, n_head=2, epochs=0)
"""Its weights stay as they are drawn."""


def make_model(width: Width, layers: int | None, folder: Path) -> Path:
    """A model's folder.

    Args:
        width: `small`: a GPT-2 of width 64 with random weights and a tokenizer of the bundled corpus;
            `medium`: the stand-in for GPT-2 medium at laptop scale, trained once and kept.
        layers: of the small one; absent: 2.
        folder: where the small one is made.
    """
    if width == "medium":
        return make_laptop_model("laptop-medium", SplitSpec())
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    pairs = build_pairs(read_corpus(CorpusSpec()), "v1", SplitSpec()).train
    tokenizer = train_tokenizer([f"{pair.prompt} {pair.reference}" for pair in pairs], _SMALL)
    set_seed(_SMALL.seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=_SMALL.n_positions,
            n_embd=_SMALL.n_embd,
            n_layer=layers or _SMALL.n_layer,
            n_head=_SMALL.n_head,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
