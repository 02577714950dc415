"""Act tokens in a tokenizer, a model and a training text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from corpora.act_labels import known_acts, require_acts
from corpora.dialogue import CorpusError, Pair, PairSplits
from tests.tiny import tiny_pairs
from trainers.act_tokens import ActTokens, add_act_tokens, label_replies
from trainers.encoding import encode_reply
from trainers.loading import load_model

ACTS = ("irq", "therapist_input")


@pytest.fixture(params=["tiny_gpt2", "tiny_llama"])
def source(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def embeddings(model: Any) -> list[torch.Tensor]:
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    return [layer.weight.detach().clone() for layer in layers]


def test_new_rows_are_the_mean_of_their_names(source: Path) -> None:
    model, tokenizer = load_model(source)
    before = embeddings(model)
    named = {
        "irq": " information request",  # What HOPE's label stands for.
        "therapist_input": " therapist input",
        "unknown": " unknown",
    }
    words = {act: tokenizer(name, add_special_tokens=False) for act, name in named.items()}
    ids = add_act_tokens(model, tokenizer, ACTS)
    assert ids == {"irq": 400, "therapist_input": 401, "unknown": 402}
    for old, new in zip(before, embeddings(model), strict=True):
        assert new.shape == (403, 32)
        assert torch.equal(new[:400], old)
        for act, row in ids.items():
            expected = old[words[act]["input_ids"]].mean(dim=0)
            torch.testing.assert_close(new[row], expected, rtol=0, atol=1e-7)
    tied: Any = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied is bool(model.config.tie_word_embeddings)
    assert model.config.vocab_size == 403


def test_tokens_that_are_there_keep_their_rows(source: Path) -> None:
    model: Any
    model, tokenizer = load_model(source)
    first = add_act_tokens(model, tokenizer, ACTS)
    with torch.no_grad():
        model.get_input_embeddings().weight[first["irq"]] = 7.0
    again = add_act_tokens(model, tokenizer, ("irq", "new one"))
    assert (again["irq"], again["unknown"], again["new one"]) == (400, 402, 403)
    assert bool((model.get_input_embeddings().weight[400] == 7.0).all())


def test_a_reply_is_its_act_and_the_same_tokens_as_without(source: Path) -> None:
    model, tokenizer = load_model(source)
    plain = encode_reply(tokenizer, "Since when?")
    ids = add_act_tokens(model, tokenizer, ("a b", "Q&A <x>"))
    for act in ("a b", "Q&A <x>"):
        pair = Pair("s:1", "s", "I am tired.", "Since when?", act)
        labelled = label_replies(PairSplits((pair,), (pair,), ()), ("a b", "Q&A <x>"))
        assert encode_reply(tokenizer, labelled.train[0].reference) == [ids[act], *plain]
        assert labelled.valid[0].reference == labelled.train[0].reference
    with_act = tokenizer.decode([ids["a b"], *plain], skip_special_tokens=True)
    assert with_act.strip() == "Since when?"


def test_acts_that_training_does_not_have_are_unknown() -> None:
    pairs = label_replies(tiny_pairs(), ("question",))
    starts = [pair.reference.split(" ")[0] for pair in pairs.train]
    assert starts == ["<act:question>", "<act:unknown>", "<act:unknown>"] * 2
    tokens = ActTokens({"question": 1, "unknown": 2}, given=True)
    assert [tokens.known(act) for act in ("question", "reflection", None, "unknown")] == [
        "question",
        "unknown",
        "unknown",
        "unknown",
    ]


def test_known_acts_are_any_labels_but_unknown() -> None:
    def pair(act: str | None) -> Pair:
        return Pair("s:1", "s", "p", "r", act)

    some = tuple(map(pair, ("reflection", None, "unknown", "irq", "irq")))
    assert known_acts(some) == ("irq", "reflection")
    none = tuple(map(pair, (None, "unknown", "")))
    with pytest.raises(CorpusError) as refused:
        require_acts("talks.csv", PairSplits(none, some, some))
    assert str(refused.value).startswith(
        "talks.csv: acts: dialogue_act and reader must have dialogue acts"
    )
    assert "HOPE and AnnoMI" in str(refused.value)
