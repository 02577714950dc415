"""Two small GPT-2s for machines without a GPU or a network, made from the bundled corpus.

They stand in for GPT-2 medium and large so that the whole experiment runs anywhere; their scores
are not those of the published models, and every table that shows them says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from corpora.dialogue import Corpus
from corpora.read import read_corpus
from corpora.splits import split_sessions
from search_spaces.spec import CorpusSpec, SplitSpec
from trainers.storage import cache_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class LaptopModel:
    """Shape and training of a small GPT-2."""

    n_layer: int
    n_embd: int
    n_head: int
    epochs: int
    learning_rate: float = 2e-3
    n_positions: int = 512
    """Longest text, in tokens."""
    vocab_size: int = 2000
    """Size of the byte-level BPE vocabulary."""
    block_tokens: int = 128
    batch_size: int = 8
    seed: int = 0
    revision: int = 1
    """Raised when the making itself changes, so that old caches are not taken for new ones."""


LAPTOP_MODELS = {
    "laptop-medium": LaptopModel(n_layer=4, n_embd=128, n_head=4, epochs=8),
    "laptop-large": LaptopModel(n_layer=6, n_embd=160, n_head=5, epochs=8),
}
"""Stand-ins for `medium` and `large` at laptop scale."""


def laptop_recipe(name: str, split: SplitSpec) -> str:
    """Fingerprint of a laptop model: everything that its weights are made from.

    Args:
        name: a key of `LAPTOP_MODELS`.
        split: division of the bundled corpus; its training sessions are the text.
    """
    recipe = {
        "shape": asdict(LAPTOP_MODELS[name]),
        "corpus": _sample().content_hash,
        "sessions": _training_sessions(split),
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"recipe:{digest}"


def laptop_folder(name: str, split: SplitSpec) -> Path:
    """Where a laptop model lies, or will lie once it is made.

    Args:
        name: a key of `LAPTOP_MODELS`.
        split: as for `laptop_recipe`.
    """
    digest = laptop_recipe(name, split).removeprefix("recipe:")
    return cache_folder() / "models" / f"{name}-{digest[:12]}"


def make_laptop_model(name: str, split: SplitSpec) -> Path:
    """Train a laptop model from scratch, or find it made.

    Args:
        name: a key of `LAPTOP_MODELS`.
        split: division of the bundled corpus; only its training sessions are read, so that no
            test reply is ever seen.

    Returns:
        The folder, complete: it appears under its name only once everything is in it.
    """
    folder = laptop_folder(name, split)
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, set_seed

    shape = LAPTOP_MODELS[name]
    texts = list(_training_texts(split))
    tokenizer = train_tokenizer(texts, shape)
    set_seed(shape.seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=shape.n_positions,
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    _pretrain(model, _blocks(texts, tokenizer, shape.block_tokens), shape)
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}")
    aside.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    del model
    torch.manual_seed(shape.seed)
    try:
        os.replace(aside, folder)
    except OSError:
        # Another process was first with the same recipe: its folder is as good as ours.
        if not (folder / "config.json").is_file():
            raise
        shutil.rmtree(aside)
    return folder


@cache
def _sample() -> Corpus:
    """The bundled corpus, which does not change while the program runs."""
    return read_corpus(CorpusSpec())


def _training_sessions(split: SplitSpec) -> list[str]:
    sessions = [dialogue.session for dialogue in _sample().dialogues]
    parts = split_sessions(sessions, split)
    return [session for session in sessions if parts[session] == "train"]


def _training_texts(split: SplitSpec) -> Iterator[str]:
    kept = set(_training_sessions(split))
    for dialogue in _sample().dialogues:
        if dialogue.session in kept:
            yield "\n".join(utterance.text for utterance in dialogue.utterances)


def train_tokenizer(texts: list[str], shape: LaptopModel) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of the texts, with one special token that begins, ends and pads.

    Args:
        texts: what its merges are learned from.
        shape: `vocab_size` and `n_positions` are used.
    """
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=shape.vocab_size,
        special_tokens=[_END_OF_TEXT],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_END_OF_TEXT,
        eos_token=_END_OF_TEXT,
        pad_token=_END_OF_TEXT,
        model_max_length=shape.n_positions,
        clean_up_tokenization_spaces=False,
    )


def _blocks(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, block_tokens: int
) -> torch.Tensor:
    """All texts end to end, cut into blocks: [B, block_tokens]."""
    import torch

    stream: list[int] = []
    for text in texts:
        stream += [*tokenizer(text, verbose=False)["input_ids"], tokenizer.eos_token_id]
    count = len(stream) // block_tokens
    return torch.tensor(stream[: count * block_tokens]).view(count, block_tokens)


def _pretrain(model: torch.nn.Module, blocks_bt: torch.Tensor, shape: LaptopModel) -> None:
    """Next-token training with AdamW and a one-cycle schedule; too small to need a Trainer."""
    import torch

    steps_per_epoch = -(-len(blocks_bt) // shape.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=shape.learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, shape.learning_rate, total_steps=shape.epochs * steps_per_epoch, pct_start=0.1
    )
    order = torch.Generator().manual_seed(shape.seed)
    model.train()
    for _ in range(shape.epochs):
        shuffled = torch.randperm(len(blocks_bt), generator=order)
        for rows in shuffled.split(shape.batch_size):
            batch_bt = blocks_bt[rows]
            loss = model(input_ids=batch_bt, labels=batch_bt).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
    model.eval()
