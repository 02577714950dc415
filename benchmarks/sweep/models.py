"""The models that are swept over: small enough for a CPU, made here."""

from __future__ import annotations

from dataclasses import replace
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
    shape = replace(_SMALL, n_layer=layers or _SMALL.n_layer)
    return make_random_gpt2(shape, folder)


def make_random_gpt2(
    shape: LaptopModel, folder: Path, *, dropout: float = 0.1, embeddings: int | None = None
) -> Path:
    """A GPT-2 with random weights, and a tokenizer of the bundled corpus.

    Args:
        shape: all but what it says of training is used.
        folder: where it is made.
        dropout: of all parts of a block.
        embeddings: rows of the embedding, at least `vocab_size`; absent: as many.
    """
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    pairs = build_pairs(read_corpus(CorpusSpec()), "v1", SplitSpec()).train
    tokenizer = train_tokenizer([f"{pair.prompt} {pair.reference}" for pair in pairs], shape)
    set_seed(shape.seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=embeddings or len(tokenizer),
            n_positions=shape.n_positions,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
