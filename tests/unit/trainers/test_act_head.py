"""Replies and acts learnt together: the loss against one worked out by hand, the head, its files."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpora.dialogue import Pair, PairSplits
from evaluators.causal_model import CausalModel
from evaluators.decoding import generate
from evaluators.dialogue_acts import predict_acts
from search_spaces.spec import ReaderSettings, TrialSpec
from tests.tiny import make_tiny_tokenizer, tiny_pairs, tiny_spec
from trainers.act_head import (
    ActHead,
    act_scores,
    attach_head,
    detach_head,
    find_head,
    load_head,
    new_head,
    save_head,
)
from trainers.encoding import EncodedPair, encode_pair, encode_prompt, encode_reply
from trainers.examples import encode_splits, pack
from trainers.joint_trainer import JointTrainer, collate_with_acts
from trainers.loading import load_model
from trainers.micro_batch import micro_batch
from trainers.select import train
from trainers.supervised import Attempt, train_supervised

ACTS = ("question", "reflection")
PAIRS = tiny_pairs()


def reader_spec(source: Path | str = "tiny", weight: float = 1.0, **training: Any) -> TrialSpec:
    return tiny_spec(source, ReaderSettings(rl="none", act_loss_weight=weight), **training)


def without_dropout(source: Path) -> tuple[Any, Any]:
    model, tokenizer = load_model(source)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model, tokenizer


def test_where_acts_are_read() -> None:
    tokenizer = make_tiny_tokenizer()
    pair = Pair("s:1", "s", "I do not sleep.", "Since when?", "reflection")
    limits: dict[str, Any] = {"template": "P: {prompt}\nT:", "loss_on_prompt": False}
    encoded = encode_pair(tokenizer, pair, max_length=64, acts=ACTS, **limits)
    prompt = encode_prompt(tokenizer, pair.prompt, limits["template"], 64)
    reply = encode_reply(tokenizer, pair.reference)
    assert encoded.act_labels == (
        [-100] * (len(prompt) - 1) + [1] + [-100] * (len(reply) - 1) + [1]
    )
    cut = encode_pair(tokenizer, pair, max_length=len(reply) + 2, acts=ACTS, **limits)
    assert (cut.act_labels[-1], len(cut.act_labels)) == (1, len(cut.input_ids))
    for act in (None, "strange"):
        unknown = encode_pair(tokenizer, replace(pair, act=act), max_length=64, acts=ACTS, **limits)
        assert set(unknown.act_labels) == {-100}
        assert unknown.labels == encoded.labels
    assert encode_pair(tokenizer, pair, max_length=64, **limits).act_labels == []


def test_packed_examples_keep_their_acts() -> None:
    made = [EncodedPair([5] * n, [5] * n, False, [-100] * (n - 1) + [n % 2]) for n in (3, 4, 6)]
    packed = pack(made, 8)
    assert [one.act_labels for one in packed] == [
        [-100, -100, 1, -100, -100, -100, 0],
        [-100, -100, -100, -100, -100, 0],
    ]


def test_acts_are_those_of_the_training_replies() -> None:
    valid = tuple(replace(pair, act="other") for pair in PAIRS.valid)
    pairs = replace(PAIRS, valid=valid)
    examples, others, _ = encode_splits(make_tiny_tokenizer(), pairs, reader_spec())
    for pair, example in zip(pairs.train, examples, strict=True):
        wanted = set() if pair.act is None else {ACTS.index(pair.act)}
        assert set(example.act_labels) - {-100} == wanted
    assert {label for example in others for label in example.act_labels} == {-100}
    (plain, _, _) = encode_splits(make_tiny_tokenizer(), pairs, tiny_spec())
    assert not any(example.act_labels for example in plain)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("cut", [1, 3])
def test_the_joint_loss_is_the_one_worked_out_by_hand(
    family: str, cut: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One optimiser step of six pairs, whole and in pieces: both losses are means over all of it."""
    source = request.getfixturevalue(f"tiny_{family}")
    spec = reader_spec(source, weight=0.7, max_steps=1, batch_size=6, learning_rate=0.1)
    spec = replace(spec, training=replace(spec.training, optimizer="sgd", max_grad_norm=0.0))
    model, tokenizer = without_dropout(source)
    head = new_head(model, ACTS)
    examples, valid, _ = encode_splits(tokenizer, PAIRS, spec)

    batch = collate_with_acts([vars(one) for one in examples])
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        output_hidden_states=True,
    )
    reply = cross_entropy(
        output.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100
    )
    reads = [
        cross_entropy(head(output.hidden_states[-1][row, place]), torch.tensor(label))
        for row, one in enumerate(examples)
        for place, label in enumerate(one.act_labels)
        if label != -100
    ]
    assert len(reads) == 2 * sum(pair.act is not None for pair in PAIRS.train) == 8
    loss = reply + 0.7 * sum(reads) / len(reads)
    parameters = [*model.parameters(), *head.parameters()]
    expected = [
        parameter.detach() - 0.1 * gradient
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        )
    ]

    attach_head(model, head)
    batch_cut = micro_batch(spec, 6 // cut)
    assert batch_cut.gradient_accumulation_steps == cut
    course = train_supervised(
        model, tokenizer, spec, examples, valid, tmp_path, lambda _: None, Attempt(batch_cut)
    )
    assert course.rows[0].train_loss == pytest.approx(reply.item(), abs=1e-4)
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-4, atol=1e-5)


def test_a_weight_of_zero_is_plain_fine_tuning(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dropout would be drawn after the head's weights.
    monkeypatch.setattr("trainers.reader.load_model", without_dropout)
    monkeypatch.setattr("trainers.sft.load_model", without_dropout)
    joint = train(reader_spec(tiny_gpt2, 0.0), tiny_gpt2, PAIRS, tmp_path / "a", lambda _: None)
    plain = train(tiny_spec(tiny_gpt2), tiny_gpt2, PAIRS, tmp_path / "b", lambda _: None)
    both = [dict(one.model.named_parameters()) for one in (joint, plain)]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert joint.valid_loss == plain.valid_loss
    assert joint.train_loss == pytest.approx(plain.train_loss, rel=1e-6)


def test_a_model_without_a_head_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    spec = reader_spec(tiny_gpt2)
    model, tokenizer = load_model(tiny_gpt2)
    examples, valid, _ = encode_splits(tokenizer, PAIRS, spec)
    with pytest.raises(RuntimeError, match="no act head"):
        train_supervised(model, tokenizer, spec, examples, valid, tmp_path, lambda _: None)


WORDS = {"question": ("tired", "alone", "lost"), "reflection": ("glad", "calm", "sure")}


def toy_pairs(count: int, seed: int) -> tuple[Pair, ...]:
    """The patient's words say which act is to come, the therapist's which one came."""
    drawn = random.Random(seed)
    pairs = []
    for number in range(count):
        act = ACTS[number % 2]
        words = " and ".join(drawn.sample(WORDS[act], 2))
        reply = "Why is that?" if act == "question" else "You say so."
        pairs.append(Pair(f"s{number}:1", f"s{number}", f"I feel {words}.", reply, act))
    return tuple(pairs)


@pytest.fixture(scope="module")
def toy(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pairs = PairSplits(toy_pairs(16, 0), toy_pairs(4, 1), toy_pairs(12, 2))
    spec = reader_spec(tiny_gpt2, max_steps=40, epochs=40, batch_size=8)
    return (
        train(spec, tiny_gpt2, pairs, tmp_path_factory.mktemp("toy"), lambda _: None),
        spec,
        pairs,
    )


def test_the_head_learns_acts_that_can_be_told_apart(toy: Any) -> None:
    tuned, spec, pairs = toy
    replies = generate(tuned, pairs.test, spec.decoding, (1,), spec.training.max_length, 0)
    assert [reply.predicted_act for reply in replies] == [pair.act for pair in pairs.test]
    read = [
        encode_pair(
            tuned.tokenizer,
            pair,
            template=spec.decoding.prompt_template,
            max_length=64,
            loss_on_prompt=False,
        ).input_ids
        for pair in pairs.test
    ]
    found = act_scores(tuned.model, tuned.acts, read).argmax(1)
    assert [tuned.acts.acts[number] for number in found] == [pair.act for pair in pairs.test]


def test_what_is_loaded_predicts_and_replies_as_what_was_trained(toy: Any) -> None:
    tuned, spec, pairs = toy
    model = AutoModelForCausalLM.from_pretrained(tuned.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tuned.folder)
    loaded = replace(tuned, model=model, tokenizer=tokenizer, acts=load_head(model, tuned.folder))
    for beam in (1, 2):
        both = [
            generate(one, pairs.test, spec.decoding, (beam,), spec.training.max_length, 0)
            for one in (tuned, loaded)
        ]
        assert both[0] == both[1]
    texts = [[5, 6, 7], [300, 2], list(range(40))]
    scores = act_scores(tuned.model, tuned.acts, texts)
    assert torch.equal(act_scores(model, loaded.acts, texts), scores)
    for text, row in zip(texts, scores, strict=True):
        alone = act_scores(model, loaded.acts, [text])[0]
        torch.testing.assert_close(alone, row)
        assert predict_acts(CausalModel(loaded), [text], loaded.acts) == [
            loaded.acts.acts[int(alone.argmax())]
        ]


def test_replies_do_not_depend_on_the_head(toy: Any) -> None:
    tuned, spec, pairs = toy
    other = ActHead(("a", "b", "c"), tuned.acts.in_features, tuned.acts.weight.device)
    settings = (pairs.test, spec.decoding, (1, 2), spec.training.max_length, 0)
    bare = generate(replace(tuned, acts=None), *settings)
    for head in (tuned.acts, other):
        replies = generate(replace(tuned, acts=head), *settings)
        assert [replace(reply, predicted_act=None) for reply in replies] == bare
        assert {reply.predicted_act for reply in replies} <= set(head.acts)


def test_the_model_knows_nothing_of_its_head(toy: Any) -> None:
    tuned, _, _ = toy
    assert find_head(tuned.model) is None
    config = json.loads((tuned.folder / "config.json").read_text())
    assert not any("act" in key and "head" in key for key in config)
    assert json.loads((tuned.folder / "act_head.json").read_text()) == {"acts": list(ACTS)}
    with pytest.raises(ValueError, match="without an act head"):
        detach_head(tuned.model)


def test_known_acts() -> None:
    head = ActHead(ACTS, 4, torch.device("cpu"))
    assert [head.known(act) for act in ("question", "strange", None)] == [
        "question",
        "unknown",
        "unknown",
    ]


def test_a_head_is_saved_as_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    model, _ = load_model(tiny_llama)
    head = new_head(model, ACTS)
    torch.nn.init.normal_(head.bias)
    save_head(head, tmp_path)
    again = load_head(model, tmp_path)
    assert again.acts == ACTS
    assert torch.equal(again.weight, head.weight)
    assert torch.equal(again.bias, head.bias)
    assert not again.training


def test_bf16_trains_the_head_too(tiny_gpt2: Path, tmp_path: Path) -> None:
    spec = reader_spec(tiny_gpt2, precision="bf16", gradient_checkpointing=True)
    tuned = train(spec, tiny_gpt2, PAIRS, tmp_path, lambda _: None)
    assert isinstance(tuned.acts, ActHead)
    assert tuned.acts.weight.dtype == torch.float32
    assert tuned.acts.bias.any()


def test_less_at_once_is_the_same_step(
    tiny_gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory with six pairs: three at a time, and the head as it would have been."""
    spec = reader_spec(tiny_gpt2, max_steps=1, batch_size=6)
    monkeypatch.setattr("trainers.reader.load_model", without_dropout)
    whole = train(spec, tiny_gpt2, PAIRS, tmp_path / "whole", lambda _: None)
    step = JointTrainer.training_step

    def full(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(JointTrainer, "training_step", full)
    halved = train(spec, tiny_gpt2, PAIRS, tmp_path / "halved", lambda _: None)
    assert halved.adjusted == {"batch_size": 3, "gradient_accumulation_steps": 2}
    assert isinstance(whole.acts, ActHead)
    assert isinstance(halved.acts, ActHead)
    torch.testing.assert_close(halved.acts.weight, whole.acts.weight, rtol=1e-4, atol=1e-5)
    assert halved.valid_loss == pytest.approx(whole.valid_loss, rel=1e-4)
