from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from search_spaces.spec import DeltaSettings, PeftType
from tests.tiny import tiny_pairs, tiny_spec
from trainers import delta, loss
from trainers.encoding import IGNORED_LABEL, EncodedPair
from trainers.examples import encode_splits
from trainers.loading import load_model
from trainers.loss import collate, mean_token_loss


def examples_of(tokenizer: Any, count: int = 7) -> list[EncodedPair]:
    return encode_splits(tokenizer, tiny_pairs(train=count), tiny_spec())[0]


def by_hand(model: Any, examples: list[EncodedPair]) -> float:
    """Each example alone, unpadded, token by token."""
    total, tokens = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits_tv = model(input_ids=torch.tensor([example.input_ids])).logits[0].double()
        log_p_tv = logits_tv[-len(example.input_ids) :].log_softmax(-1)
        for place, label in enumerate(example.labels[1:]):
            if label != IGNORED_LABEL:
                total -= float(log_p_tv[place, label])
                tokens += 1
    return total / tokens


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_is_the_cross_entropy(family: str, request: pytest.FixtureRequest) -> None:
    model, tokenizer = load_model(request.getfixturevalue(f"tiny_{family}"))
    examples = examples_of(tokenizer)
    assert mean_token_loss(model, examples) == pytest.approx(by_hand(model.eval(), examples))


@pytest.mark.parametrize("peft_type", ["prefix", "prompt", "p-tuning"])
def test_virtual_tokens_have_no_loss(tiny_gpt2: Path, peft_type: PeftType) -> None:
    base, tokenizer = load_model(tiny_gpt2)
    model = delta.adapt(base, DeltaSettings(peft_type=peft_type, num_virtual_tokens=5))
    examples = examples_of(tokenizer)
    assert mean_token_loss(model, examples) == pytest.approx(by_hand(model.eval(), examples))


def test_it_does_not_depend_on_batches(tiny_gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_model(tiny_gpt2)
    examples = examples_of(tokenizer, 20)
    whole = mean_token_loss(model, examples)
    random.Random(0).shuffle(examples)
    for rows in (1, 3, 64):
        monkeypatch.setattr(loss, "_ROWS", rows)
        assert mean_token_loss(model, examples) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(tiny_gpt2: Path, training: bool) -> None:
    model, tokenizer = load_model(tiny_gpt2)
    model.train(training)
    examples = examples_of(tokenizer, 2)
    assert mean_token_loss(model, examples) == mean_token_loss(model, examples)
    assert model.training is training


def test_padding_counts_nowhere() -> None:
    short, long = EncodedPair([5, 6], [-100, 6], False), EncodedPair([1, 2, 3], [1, 2, 3], False)
    batch = collate([short, {"input_ids": long.input_ids, "labels": long.labels}])
    assert batch["input_ids"].tolist() == [[5, 6, 0], [1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[-100, 6, -100], [1, 2, 3]]
