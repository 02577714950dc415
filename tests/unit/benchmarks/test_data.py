from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sweep.data import write_data
from corpora.dialogue import Pair, PairSplits
from tests.tiny import TEXTS, make_tiny_tokenizer, tiny_spec
from trainers.encoding import encode_pair, encode_prompt


def _pairs(*lengths: int) -> tuple[Pair, ...]:
    words = " ".join(TEXTS).split()
    return tuple(
        Pair(f"s:{n}", "s", " ".join(words[:length]), " ".join(words[n : n + 5]))
        for n, length in enumerate(lengths)
    )


def test_joined_texts_have_the_tokens_that_our_trainers_read(tmp_path: Path) -> None:
    tokenizer, spec = make_tiny_tokenizer(), tiny_spec(max_length=48)
    pairs = PairSplits(_pairs(3, 60), _pairs(4), _pairs(5, 70))
    lengths = write_data(pairs, tokenizer, spec, tmp_path)
    for part, some in (("train", pairs.train), ("valid", pairs.valid)):
        for row, pair in zip(
            json.loads((tmp_path / f"{part}.json").read_text()), some, strict=True
        ):
            text = f"{row['prompt']}{row['completion']}{tokenizer.eos_token}"
            encoded = encode_pair(
                tokenizer,
                pair,
                template=spec.decoding.prompt_template,
                max_length=48,
                loss_on_prompt=False,
            )
            assert tokenizer(text)["input_ids"][:48] == encoded.input_ids
    assert max(tokens for tokens, _ in lengths.train) <= 48
    room = 48 - spec.decoding.max_new_tokens
    for row, pair in zip(
        json.loads((tmp_path / "test_prompts.json").read_text()), pairs.test, strict=True
    ):
        ids = encode_prompt(tokenizer, pair.prompt, spec.decoding.prompt_template, room)
        assert tokenizer(row["prompt"])["input_ids"] == ids
        assert lengths.prompts["test", pair.pair_id] == len(ids)
        assert lengths.references["test", pair.pair_id] == row["completion"].strip()


def test_a_prompt_that_reads_otherwise_once_it_is_text_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tiny_tokenizer(opening=True)
    pairs = PairSplits(_pairs(3), _pairs(3), _pairs(3))
    with pytest.raises(ValueError, match="other tokens when read again"):
        write_data(pairs, tokenizer, replace(tiny_spec(), seed=1), tmp_path)
