"""Packing: whole examples one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from search_spaces.spec import SftSettings
from tests.tiny import tiny_pairs, tiny_spec
from trainers.encoding import EncodedPair
from trainers.examples import encode_splits, pack
from trainers.loading import load_model
from trainers.progress import EpochReport
from trainers.select import train


def examples(lengths: list[int]) -> list[EncodedPair]:
    start, made = 0, []
    for length in lengths:
        ids = list(range(start, start + length))
        made.append(EncodedPair(ids, [-100, *ids[1:]], reply_truncated=length == 10))
        start += length
    return made


def test_as_many_whole_ones_as_fit() -> None:
    packed = pack(examples([3, 4, 3, 5, 10, 1]), 10)
    assert [len(one.input_ids) for one in packed] == [10, 5, 10, 1]
    assert packed[0].labels == [-100, 1, 2, -100, 4, 5, 6, -100, 8, 9]
    assert [one.reply_truncated for one in packed] == [False, False, True, False]
    assert pack([], 10) == []


@given(st.lists(st.integers(1, 10)))
def test_nothing_is_lost_and_nothing_is_too_long(lengths: list[int]) -> None:
    made = examples(lengths)
    packed = pack(made, 10)
    assert [i for one in packed for i in one.input_ids] == list(range(sum(lengths)))
    assert [x for one in packed for x in one.labels] == [x for one in made for x in one.labels]
    assert all(len(one.input_ids) <= 10 for one in packed)


def test_training_on_packed_examples_takes_fewer_steps(tiny_gpt2: Path, tmp_path: Path) -> None:
    """The training part alone is packed; validation losses stay comparable."""
    spec = tiny_spec(
        tiny_gpt2, SftSettings(), max_steps=None, epochs=1, batch_size=1, max_length=128
    )
    packing = replace(spec, training=replace(spec.training, packing=True))
    _, tokenizer = load_model(tiny_gpt2)
    pairs = tiny_pairs(train=8)
    (plain, valid, _), (packed, same, _) = (
        encode_splits(tokenizer, pairs, s) for s in (spec, packing)
    )
    assert len(packed) < len(plain)
    assert valid == same
    told: list[EpochReport] = []
    train(packing, tiny_gpt2, pairs, tmp_path, told.append)
    assert told[-1].step == len(packed)
