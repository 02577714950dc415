"""Every metric: its range, its best pair, empty texts, and no memory of other pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evaluators.bertscore import BertScorer
from evaluators.encoders import resolve_encoder
from evaluators.metric_versions import METRIC_NAMES, METRIC_VERSIONS
from evaluators.metrics import Meteor, Metric, Rouge
from evaluators.wordnet import install_wordnet
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import BUNDLED_ENCODER

REPLIES = [
    "I see. And how does that make you feel?",
    "okay",
    "Tell me more about your mother, please.",
    "Don't worry!",
    "ünïcode ☃ 123",
]
REFERENCES = [
    "How did you feel about it?",
    "And what happened then, when you came home from work?",
    "Tell me more about your mother, please.",
    "I would not worry",
    "Mm-hmm.",
]


def make_bertscore() -> Metric:
    encoder = resolve_encoder(MetricsSpec(bertscore_model=BUNDLED_ENCODER))
    assert encoder is not None
    return BertScorer(encoder, device="cpu")


MAKERS: dict[str, Callable[[], Metric]] = {
    "rouge": Rouge,
    "meteor": Meteor,
    "bertscore": make_bertscore,
}
BEST = {name: 100.0 if name.startswith("rouge") else 1.0 for name in METRIC_NAMES}


@pytest.fixture(scope="module")
def metrics() -> dict[str, Metric]:
    install_wordnet()
    return {family: make() for family, make in MAKERS.items()}


def test_all_seven_were_found(metrics: dict[str, Metric]) -> None:
    names = [name for metric in metrics.values() for name in metric.names]
    assert sorted(names) == sorted(METRIC_NAMES)
    assert len(names) == 7
    assert set(MAKERS) < set(METRIC_VERSIONS)


@pytest.mark.parametrize("family", MAKERS)
def test_rows_have_the_metrics_names_in_range(metrics: dict[str, Metric], family: str) -> None:
    metric = metrics[family]
    rows = metric.score(REPLIES, REFERENCES)
    assert len(rows) == len(REPLIES)
    for row in rows:
        assert tuple(row) == metric.names
        for name, value in row.items():
            assert isinstance(value, float)
            assert -1e-5 <= value <= BEST[name] * (1 + 1e-5)


@pytest.mark.parametrize("family", MAKERS)
def test_no_reply_beats_the_reference_itself(metrics: dict[str, Metric], family: str) -> None:
    metric = metrics[family]
    # A single word, or a pair without n-grams, has no best score in some metrics.
    texts = [text for text in REFERENCES if len(text.split()) > 1]
    for text in texts:
        own = metric.score([text], [text])[0]
        others = metric.score(REPLIES, [text] * len(REPLIES))
        for name in metric.names:
            assert own[name] == pytest.approx(BEST[name], rel=0.01)
            assert all(own[name] >= other[name] - 1e-5 for other in others)


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_texts_score_nothing(metrics: dict[str, Metric], family: str, empty: str) -> None:
    for row in metrics[family].score([empty, "okay"], ["okay", empty]):
        assert set(row.values()) == {0.0}
    assert metrics[family].score([], []) == []
    assert len(metrics[family].score([empty], [empty])) == 1


@pytest.mark.parametrize("family", MAKERS)
def test_order_and_company_change_nothing(metrics: dict[str, Metric], family: str) -> None:
    metric = metrics[family]
    forwards = metric.score(REPLIES, REFERENCES)
    backwards = metric.score(REPLIES[::-1], REFERENCES[::-1])[::-1]
    alone = [metric.score([a], [b])[0] for a, b in zip(REPLIES, REFERENCES, strict=True)]
    for row, other, single in zip(forwards, backwards, alone, strict=True):
        assert other == row
        assert single == pytest.approx(row, abs=1e-5)


@pytest.mark.parametrize("family", MAKERS)
def test_lists_of_different_lengths_are_refused(metrics: dict[str, Metric], family: str) -> None:
    with pytest.raises(ValueError, match="shorter"):
        metrics[family].score(["a", "b"], ["a"])
