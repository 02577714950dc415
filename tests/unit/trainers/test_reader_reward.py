"""READER's reward, term by term, against numbers worked out by hand or by other code."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from evaluators.bertscore import BertScorer
from evaluators.encoders import resolve_encoder
from search_spaces.spec import MetricsSpec, ReaderSettings
from trainers.act_head import new_head
from trainers.encoder_files import BUNDLED_ENCODER, fetch_encoder
from trainers.encoding import encode_reply
from trainers.errors import ModelError
from trainers.loading import load_model
from trainers.reader_reward import ActJudge, ReaderReward, Term, make_reward, reward_fingerprints
from trainers.text_similarity import BertScore, CosineSimilarity, fetch_bertscore
from trainers.word_overlap import Rouge, bleu1

REFERENCES = ["How long have you felt this way?", "That sounds exhausting.", "Tell me more."]
REPLIES = ["How long has it been?", "That sounds exhausting.", "Okay"]
ACTS = ("question", "reflection")
METRICS = MetricsSpec(bertscore_model=BUNDLED_ENCODER)
WITHOUT_ENCODERS = ReaderSettings(similarity_weight=0)


def test_bleu1_by_hand() -> None:
    # 5 words of 7 with 3 of them found; clipped counts; too short by exp(1 - 8/6).
    found = bleu1(
        ["How long has it been?", "that that sounds exhausting.", "Tell", "nothing shared", ""],
        [REFERENCES[0], REFERENCES[1], REFERENCES[2], REFERENCES[2], REFERENCES[2]],
    )
    assert found == pytest.approx(
        [3 / 6 * math.exp(1 - 8 / 6), 4 / 5, math.exp(1 - 4), 0.0, 0.0], abs=1e-12
    )
    assert bleu1(["said"], [""]) == [0.0]


def test_rouge_by_hand() -> None:
    # 2 words of 5 and of 7; 1 pair of words of 4 and of 6.
    assert Rouge("rouge1").score(REPLIES, REFERENCES) == pytest.approx([2 * 2 / 12, 1.0, 0.0])
    assert Rouge("rouge2").score(REPLIES, REFERENCES) == pytest.approx([2 * 1 / 10, 1.0, 0.0])
    reordered = Rouge("rougeL").score(["sounds that exhausting"], REFERENCES[1:2])
    assert reordered == pytest.approx([2 / 3])
    for name in ("rouge1", "rouge2", "rougeL"):
        assert Rouge(name).score(["", " "], REFERENCES[:2]) == [0.0, 0.0]


def test_cosine_of_mean_pooled_embeddings() -> None:
    folder, _ = fetch_encoder(BUNDLED_ENCODER, "similarity_model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def embed(text: str) -> Any:
        with torch.inference_mode():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    found = CosineSimilarity(folder).score(REPLIES, REFERENCES)
    for cosine, reply, reference in zip(found, REPLIES, REFERENCES, strict=True):
        expected = torch.nn.functional.cosine_similarity(embed(reply), embed(reference), dim=0)
        assert cosine == pytest.approx(float(expected), abs=1e-5)
    assert found[1] == pytest.approx(1.0, abs=1e-5)
    assert max(found[0], found[2]) < 0.9
    assert CosineSimilarity(folder).score(["", "Okay"], ["Okay", " "]) == [0.0, 0.0]
    (long,) = CosineSimilarity(folder).score(["word " * 2000], ["word " * 3000])
    assert long == pytest.approx(1.0, abs=1e-3)


def test_bertscore_is_that_of_the_scores() -> None:
    encoder = resolve_encoder(METRICS)
    assert encoder is not None
    folder, fingerprint, layer = fetch_bertscore(METRICS)
    assert (folder, fingerprint, layer) == (encoder.folder, encoder.fingerprint, encoder.layer)
    replies, references = [*REPLIES, "word " * 700, ""], [*REFERENCES, "word", "Okay"]
    expected = BertScorer(encoder, "cpu").score(replies, references)
    found = BertScore(folder, layer).score(replies, references)
    assert found == pytest.approx([one["bertscore_f1"] for one in expected], abs=1e-5)


def test_the_layer_that_is_asked_for() -> None:
    assert fetch_bertscore(replace(METRICS, bertscore_layer=2))[2] == 2
    assert fetch_bertscore(replace(METRICS, bertscore_layer=99))[2] == 6
    with pytest.raises(ModelError, match="bertscore_model: must name an encoder"):
        fetch_bertscore(MetricsSpec(bertscore_model=None))


def judge(source: Path, acts: list[str | None], max_length: int = 64) -> ActJudge:
    torch.manual_seed(3)
    model, tokenizer = load_model(source)
    head = new_head(model, ACTS)
    prompts = [[7, 8, 9], [10, 11], [12]]
    return ActJudge(model.eval(), head, tokenizer, prompts, acts, max_length)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_act_of_a_reply_is_read_at_its_end(family: str, request: pytest.FixtureRequest) -> None:
    one = judge(request.getfixturevalue(f"tiny_{family}"), ["reflection", None, "question"])
    numbers, replies = [2, 0, 1, 2], [REPLIES[0], "", REPLIES[1], REPLIES[2]]
    found = one.score(numbers, replies)
    for score, number, reply in zip(found, numbers, replies, strict=True):
        act = one.acts[number]
        ids = torch.tensor([[*one.prompts[number], *encode_reply(one.tokenizer, reply)]])
        with torch.inference_mode():
            state = one.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            logits = one.head(state)
        assert score == pytest.approx(
            0.0 if act is None else float(logits[ACTS.index(act)]), abs=1e-5
        )
    assert found[2] == 0.0
    assert found[0] != found[3]


def test_an_act_that_no_training_reply_has_is_unknown(tiny_gpt2: Path) -> None:
    assert judge(tiny_gpt2, ["strange"]).score([0, 0], ["a", "b"]) == [0.0, 0.0]


def test_a_reply_longer_than_the_text_is_cut(tiny_gpt2: Path) -> None:
    short = judge(tiny_gpt2, ["question"] * 3, max_length=6)
    long = "I feel tired and nobody asks me why. " * 50
    assert short.score([0], [long]) == pytest.approx(short.score([0], [long + long]))


def test_terms_are_weighted_and_shifted() -> None:
    terms = (
        Term("rouge1", 4.0, lambda numbers, replies: [0.5, 0.25]),
        Term("act_reward", 0.1, lambda numbers, replies: [float(number) for number in numbers]),
    )
    rewards = ReaderReward(terms, -0.2)([10, 20], ["a", "b"])
    assert rewards == pytest.approx([2.0 + 1.0 - 0.2, 1.0 + 2.0 - 0.2])


def test_the_published_sum(tiny_gpt2: Path) -> None:
    """MiniLM cosine + 0.1 x act logit + (BLEU-1 + R1 + 4 R2 + 2 RL) - 0.2; each reply its own."""
    settings = ReaderSettings(similarity_model=BUNDLED_ENCODER)
    one = judge(tiny_gpt2, ["reflection", "question", None])
    reward = make_reward(settings, METRICS, REFERENCES, one)
    numbers = [2, 0, 1]
    replies, references = [REPLIES[n] for n in numbers], [REFERENCES[n] for n in numbers]
    folder, _ = fetch_encoder(BUNDLED_ENCODER, "similarity_model")
    parts = [
        (1.0, CosineSimilarity(folder).score(replies, references)),
        (0.1, one.score(numbers, replies)),
        (1.0, bleu1(replies, references)),
        *(
            (weight, Rouge(name).score(replies, references))
            for name, weight in (("rouge1", 1.0), ("rouge2", 4.0), ("rougeL", 2.0))
        ),
    ]
    expected = [sum(weight * scores[n] for weight, scores in parts) - 0.2 for n in range(3)]
    assert reward(numbers, replies) == pytest.approx(expected, abs=1e-6)
    assert {term.name for term in reward.terms} == {
        *("similarity", "act_reward", "bleu1", "rouge1", "rouge2", "rouge_l")
    }


def test_an_empty_reply_earns_its_act_alone(tiny_gpt2: Path) -> None:
    settings = ReaderSettings(similarity_model=BUNDLED_ENCODER, bertscore_weight=1.0)
    one = judge(tiny_gpt2, ["reflection", "question", None])
    reward = make_reward(settings, METRICS, REFERENCES, one)
    assert reward([0, 2], ["", ""]) == pytest.approx([0.1 * one.score([0], [""])[0] - 0.2, -0.2])


def test_terms_without_weight_are_not_computed(tiny_gpt2: Path) -> None:
    """Nor are their encoders looked for."""
    settings = replace(WITHOUT_ENCODERS, act_reward_weight=0, rouge1_weight=0)
    one = judge(tiny_gpt2, [None] * 3)
    terms = make_reward(settings, METRICS, REFERENCES, one).terms
    assert [term.name for term in terms] == ["bleu1", "rouge2", "rouge_l"]
    assert reward_fingerprints(settings, METRICS) == {}
    both = replace(settings, similarity_weight=1, similarity_model=BUNDLED_ENCODER)
    found = reward_fingerprints(replace(both, bertscore_weight=1), METRICS)
    assert found["bertscore"] == f"{found['similarity']} layer 6"


def test_an_encoder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ModelError, match="similarity_model: cannot be loaded as an encoder"):
        CosineSimilarity(tmp_path)
