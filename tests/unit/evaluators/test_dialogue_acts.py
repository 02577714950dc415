"""Act scores against numbers worked out by hand, and replies that follow an act."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corpora.dialogue import CorpusError, Pair, PairSplits
from evaluators.causal_model import CausalModel
from evaluators.decoding import generate
from evaluators.dialogue_acts import ActScores, predict_acts, score_acts
from evaluators.evaluate import evaluate
from evaluators.replies import Reply
from evaluators.score import StreamingScorer
from search_spaces.spec import (
    DialogueActSettings,
    MetricsSpec,
    ReaderSettings,
    SftSettings,
    TrialSpec,
)
from tests.tiny import tiny_pairs, tiny_spec
from trainers.act_tokens import ActTokens
from trainers.select import train
from trainers.tuned import TunedModel

pytestmark = pytest.mark.usefixtures("no_network")
ACTS = ActTokens({"a": 10, "b": 11, "c": 12, "unknown": 13}, given=False)
PAIRS = tiny_pairs()


def replies(*pairs: tuple[str, str | None]) -> list[Reply]:
    """Replies by (predicted act, act of the reference), at two beam widths."""
    return [
        Reply(f"s:{number}", beam, "p", "r", "x", act=true, predicted_act=guess)
        for beam in (1, 4)
        for number, (guess, true) in enumerate(pairs)
    ]


def test_scores_are_those_worked_out_by_hand() -> None:
    # a: 2 of 3 found, guessed 3 times: F1 = 2*2/(3+3) = 2/3. b: 1 of 2, guessed once: 2*1/(1+2) = 2/3.
    # c is guessed once and in no reference; `unknown` is a guess like any other.
    found = replies(("a", "a"), ("a", "a"), ("c", "a"), ("b", "b"), ("a", "b"))
    scores = score_acts(found, ACTS)
    assert scores.accuracy == pytest.approx(3 / 5, abs=1e-12)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 2 / 3) / 2, abs=1e-12)
    assert scores.unknown == 0


def test_an_act_never_found_counts_as_zero() -> None:
    scores = score_acts(replies(("a", "a"), ("a", "b"), ("unknown", "c")), ACTS)
    # a: 2*1/(2+1); b and c: 0.
    assert scores == ActScores(1 / 3, pytest.approx((2 / 3 + 0 + 0) / 3, abs=1e-12), 0)


def test_unknown_references_are_counted_and_left_out() -> None:
    found = replies(("a", "a"), ("a", None), ("unknown", "unknown"), ("unknown", "strange"))
    assert score_acts(found, ACTS) == ActScores(1.0, 1.0, 3)
    nothing = score_acts(replies(("a", None)), ACTS)
    assert nothing == ActScores(None, None, 1)
    assert nothing.named("test") == {}
    assert score_acts(found, ACTS).named("valid") == {
        "valid/act_accuracy": 1.0,
        "valid/act_macro_f1": 1.0,
    }


@pytest.fixture(scope="module")
def spec(tiny_gpt2: Path) -> TrialSpec:
    return tiny_spec(tiny_gpt2, DialogueActSettings(), max_steps=30, epochs=30, batch_size=6)


@pytest.fixture(scope="module")
def tuned(tiny_gpt2: Path, spec: TrialSpec, tmp_path_factory: pytest.TempPathFactory) -> TunedModel:
    """Trained long enough to know its six training pairs' acts."""
    return train(spec, tiny_gpt2, PAIRS, tmp_path_factory.mktemp("acts"), lambda _: None)


def given(tuned: TunedModel) -> TunedModel:
    assert tuned.acts is not None
    return replace(tuned, acts=replace(tuned.acts, given=True))


def answers(tuned: TunedModel, pairs: tuple[Pair, ...], spec: TrialSpec, beam: int) -> list[Reply]:
    return generate(tuned, pairs, spec.decoding, (beam,), spec.training.max_length, 0)


def test_acts_are_predicted_and_cut_off(tuned: TunedModel, spec: TrialSpec) -> None:
    found = answers(tuned, PAIRS.train, spec, 1)
    expected = [pair.act or "unknown" for pair in PAIRS.train]
    right = [r.predicted_act == act for r, act in zip(found, expected, strict=True)]
    assert sum(right) >= 5, [reply.predicted_act for reply in found]
    assert not any("<act:" in reply.reply for reply in found)


@pytest.mark.parametrize("beam", [1, 3])
def test_the_reply_follows_the_given_act(
    tiny_gpt2: Path, tmp_path: Path, spec: TrialSpec, beam: int
) -> None:
    """One prompt, two replies: nothing but the act tells which."""
    asked, mirrored = (
        Pair(f"s{n}:1", "s", "I feel tired.", text, act)
        for n, (text, act) in enumerate((("Since when?", "question"), ("You are.", "reflection")))
    )
    both = PairSplits(train=(asked, mirrored), valid=(asked,), test=(asked, mirrored))
    tuned = train(spec, tiny_gpt2, both, tmp_path, lambda _: None)
    odd = replace(asked, act="strange")
    found = answers(given(tuned), (*both.test, odd), spec, beam)
    assert [reply.reply for reply in found[:2]] == ["Since when?", "You are."]
    inputs = [str(reply.model_input).partition("Therapist:")[2] for reply in found]
    assert inputs == ["<act:question>", "<act:reflection>", "<act:unknown>"]
    # What is given is no prediction.
    own = answers(tuned, both.test, spec, beam)
    assert [r.predicted_act for r in found[:2]] == [r.predicted_act for r in own]
    assert len({r.predicted_act for r in own}) == len({r.reply for r in own}) == 1


def test_only_acts_are_predicted(tuned: TunedModel) -> None:
    model = CausalModel(tuned)
    assert tuned.acts is not None
    prompts = [[5, 6, 7], [300, 2]]
    names = predict_acts(model, prompts, tuned.acts)
    for prompt, name in zip(prompts, names, strict=True):
        with torch.inference_mode():
            scores = tuned.model(input_ids=torch.tensor([prompt])).logits[0, -1]
        assert name == max(tuned.acts.ids, key=lambda act: float(scores[tuned.acts.ids[act]]))


def test_results_name_the_scores_and_lines_the_act(
    tuned: TunedModel, spec: TrialSpec, tmp_path: Path
) -> None:
    spec = replace(spec, metrics=MetricsSpec(bertscore_model=None))
    with closing(StreamingScorer(spec.metrics)) as scorer:
        evaluation = evaluate(tuned, PAIRS, spec, scorer)
    assert {"test/act_accuracy", "test/act_macro_f1", "valid/act_accuracy"} <= set(
        evaluation.scores
    )
    assert evaluation.checks["unknown_acts"] == sum(pair.act is None for pair in PAIRS.test) == 1
    evaluation.write_replies(tmp_path / "replies.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "replies.jsonl").read_text().splitlines()]
    assert {line["predicted_act"] for line in lines} <= {"question", "reflection", "unknown"}


def test_predictions_of_a_head_are_scored_and_stand_in_no_prompt(
    tiny_gpt2: Path, tmp_path: Path, spec: TrialSpec
) -> None:
    spec = replace(
        spec, method=ReaderSettings(rl="none"), metrics=MetricsSpec(bertscore_model=None)
    )
    tuned = train(spec, tiny_gpt2, PAIRS, tmp_path, lambda _: None)
    found = answers(tuned, PAIRS.train, spec, 1)
    known = [(r.predicted_act, p.act) for r, p in zip(found, PAIRS.train, strict=True) if p.act]
    assert sum(guess == true for guess, true in known) == len(known) == 4
    with closing(StreamingScorer(spec.metrics)) as scorer:
        evaluation = evaluate(tuned, PAIRS, spec, scorer)
    assert {"test/act_accuracy", "test/act_macro_f1", "valid/act_accuracy"} <= set(
        evaluation.scores
    )
    assert evaluation.checks["unknown_acts"] == 1
    replies, _ = evaluation.parts["test"]
    assert {reply.predicted_act for reply in replies} <= {"question", "reflection"}
    assert all(str(reply.model_input).endswith("Therapist:") for reply in replies)


def test_replies_are_taken_again_where_the_act_is_the_same(
    tuned: TunedModel, spec: TrialSpec
) -> None:
    first = answers(tuned, PAIRS.test, spec, 1)
    known = {(reply.beam, reply.pair_id): reply for reply in first}
    other = {
        key: replace(reply, reply="kept", predicted_act="none of them")
        for key, reply in known.items()
    }
    arguments = (PAIRS.test, spec.decoding, (1,), spec.training.max_length, 0)
    kept = {key: replace(reply, reply="kept") for key, reply in known.items()}
    assert {r.reply for r in generate(tuned, *arguments, known=kept)} == {"kept"}
    assert generate(tuned, *arguments, known=other) == first


def test_without_acts_it_is_plain_fine_tuning(
    tiny_gpt2: Path, tmp_path: Path, spec: TrialSpec
) -> None:
    control = replace(spec, method=DialogueActSettings(acts="none"))
    plain = replace(spec, method=SftSettings())
    results = [
        train(one, tiny_gpt2, PAIRS, tmp_path / name, lambda _: None)
        for name, one in (("control", control), ("plain", plain))
    ]
    assert results[0].acts is None
    assert results[0].valid_loss == results[1].valid_loss
    both = [dict(one.model.named_parameters()) for one in results]
    assert both[0].keys() == both[1].keys()
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


def test_a_corpus_without_acts_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    bare = PairSplits(
        *(tuple(replace(p, act=None) for p in part) for part in (PAIRS.train, PAIRS.valid, ()))
    )
    refused = tiny_spec(tiny_gpt2, DialogueActSettings())
    with pytest.raises(CorpusError, match=r"sample: acts: .* none of the 6 training replies"):
        train(refused, tiny_gpt2, bare, tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_adapter_holds_what_was_trained_and_no_more(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = request.getfixturevalue(f"tiny_{family}")
    lora = tiny_spec(source, DialogueActSettings(tuning="lora"))
    tuned = train(lora, source, PAIRS, tmp_path, lambda _: None)
    tensors = load_file(tuned.folder / "adapter_model.safetensors")
    rows = [tensor for name, tensor in tensors.items() if "token" in name]
    assert {tuple(tensor.shape) for tensor in rows} == {(3, 32)}
    assert max(tensor.numel() for tensor in tensors.values()) < 400 * 32
    names = " ".join(tensors)
    assert "lora_A" in names
    if family == "llama":  # Its output layer is its own, and learns which act to write.
        assert len(rows) == 2
        assert not torch.equal(*rows)
