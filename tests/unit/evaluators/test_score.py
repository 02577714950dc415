from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest
import torch

from corpora.dialogue import Pair
from evaluators.bertscore import BertScorer
from evaluators.decoding import generate
from evaluators.errors import EvaluationError
from evaluators.metric_versions import METRIC_NAMES
from evaluators.replies import Reply, reply_to_pair
from evaluators.score import StreamingScorer, check_replies, score
from evaluators.word_worker import WordWorker
from search_spaces.spec import DecodingSpec, MetricsSpec
from tests.unit.evaluators.tiny_models import make_model, make_pairs, make_tuned

WORDS = MetricsSpec(bertscore_model=None)


def replies_of(*texts: str, beam: int = 1) -> list[Reply]:
    return [
        reply_to_pair(pair, beam, text, "clean")
        for pair, text in zip(make_pairs(len(texts)), texts, strict=True)
    ]


@pytest.mark.usefixtures("wordnet")
def test_scoring_while_generating_gives_what_scoring_afterwards_gives(metrics: MetricsSpec) -> None:
    tuned = make_tuned(make_model("llama"))
    decoding = DecodingSpec(max_new_tokens=12, eval_batch_size=8)
    with closing(StreamingScorer(metrics, device="cpu")) as scorer:
        replies = generate(tuned, make_pairs(), decoding, (1, 2), 96, 0, on_replies=scorer.add)
        streamed = scorer.finish(replies)
        again = generate(tuned, make_pairs(5), decoding, (2,), 96, 0, on_replies=scorer.add)
        second = scorer.finish(again)
        assert second == score(again, metrics, scorer)
    assert streamed == score(replies, metrics)
    assert set(streamed.means) == {1, 2}
    assert set(streamed.means[1]) == set(METRIC_NAMES)
    assert len(streamed.rows) == len(replies)


@pytest.mark.usefixtures("wordnet")
def test_rows_stand_by_their_replies_and_means_by_their_width() -> None:
    replies = [*replies_of("tell me more about that", "no"), *replies_of("", beam=4)]
    scores = score(replies, WORDS)
    assert [row["rouge1"] for row in scores.rows] == [pytest.approx(100.0), 0.0, 0.0]
    assert scores.means[1]["rouge1"] == pytest.approx(50.0)
    assert scores.means[4] == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0, "meteor": 0.0}
    named = scores.named("test")
    assert named["test/rouge1_beam1"] == named["test/rouge1"] == pytest.approx(50.0)
    assert named["test/rouge1_beam4"] == 0.0
    assert scores.encoder is None
    assert not any("bertscore" in name for name in named)


@pytest.mark.usefixtures("wordnet")
def test_chatmgl_is_scored_with_its_prompt() -> None:
    pair = Pair("s:1", "s", "tell me", "tell me more about that")
    bare, whole = (
        score([reply_to_pair(pair, 1, "no", protocol)], WORDS) for protocol in ("clean", "chatmgl")
    )
    echo = score([reply_to_pair(pair, 1, f"{pair.prompt} no", "clean")], WORDS)
    assert whole.means == echo.means != bare.means


def test_no_replies_have_no_scores() -> None:
    scores = score([], WORDS)
    assert (scores.means, scores.rows, scores.named("test")) == ({}, (), {})


def test_replies_that_do_not_listen_are_counted() -> None:
    replies = [*replies_of("", "same", "same", "other"), *replies_of("same", "x", beam=2)]
    assert check_replies(replies) == {"empty_replies": 1, "identical_replies": 2}
    twice = [Reply("a:1", 1, "hi", "ref", "same"), Reply("a:2", 1, "hi", "ref", "same")]
    assert check_replies(twice)["identical_replies"] == 0, "one prompt, one reply"


def test_a_scorer_of_other_metrics_is_refused(metrics: MetricsSpec) -> None:
    with pytest.raises(ValueError, match="the scorer must be of"):
        score([], metrics, StreamingScorer(WORDS))


@pytest.mark.usefixtures("wordnet")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("name", ["meteor", "rouge2", "bertscore_f1"])
def test_a_score_that_is_missing_or_not_finite_is_no_score(
    name: str, value: float | None, metrics: MetricsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(rows: list[dict[str, float]]) -> list[dict[str, float]]:
        rows = [dict(row) for row in rows]
        if name in rows[1]:
            del rows[1][name]
            rows[1] |= {} if value is None else {name: value}
        return rows

    collect, match = WordWorker.collect, BertScorer.score
    monkeypatch.setattr(WordWorker, "collect", lambda *given: spoilt(collect(*given)))
    monkeypatch.setattr(BertScorer, "score", lambda *given: spoilt(match(*given)))
    replies = replies_of("tell me", "no", "yes")
    shown = "nothing" if value is None else str(value)
    said = rf"{name}: s1:1: .* 1 of 3 have none, the first at beam 1, got {shown}$"
    with pytest.raises(EvaluationError, match=said) as caught:
        score(replies, metrics)
    assert len(caught.value.problems) == 1


@pytest.mark.usefixtures("wordnet")
def test_an_encoder_of_broken_weights_gives_no_result(metrics: MetricsSpec) -> None:
    with closing(StreamingScorer(metrics, device="cpu")) as scorer:
        scorer.finish(replies_of("tell me"))
        assert scorer._bert is not None
        with torch.no_grad():
            scorer._bert._model.embeddings.word_embeddings.weight.fill_(float("nan"))
        with pytest.raises(EvaluationError, match=r"bertscore_precision: s0:0: .* got nan"):
            scorer.finish(replies_of("tell me"))


def test_names_and_versions_cost_no_torch() -> None:
    code = (
        "import sys; from evaluators.score import METRIC_VERSIONS as v; "
        "assert set(v) == {'decoding', 'rouge', 'meteor', 'bertscore'}, v; "
        "assert 'torch' not in sys.modules and 'nltk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
