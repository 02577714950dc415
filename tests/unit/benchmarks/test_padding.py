from __future__ import annotations

import pytest

from benchmarks.sweep.data import Lengths
from benchmarks.sweep.padding import PossibleScores
from evaluators.bertscore import BertScorer
from evaluators.encoders import resolve_encoder
from search_spaces.spec import MetricsSpec
from trainers.encoder_files import BUNDLED_ENCODER


def test_the_scores_that_a_batch_allows_are_told_for_unlike_texts_and_are_one_for_like_ones() -> (
    None
):
    encoder = resolve_encoder(MetricsSpec(bertscore_model=BUNDLED_ENCODER))
    assert encoder is not None
    reply = "right " * 24
    reference = (
        "Looking at it from here, what do you think would be the risk in telling her the truth?"
    )
    lengths = Lengths((), (), {}, {("test", "unlike"): reference, ("test", "like"): reference})
    possible = PossibleScores(encoder, {"a": lengths})
    unlike = possible("a", ("test", 1, "unlike"), reply)
    like = possible("a", ("test", 1, "like"), "What would be the risk in telling her?")
    assert max(unlike) - min(unlike) > 1e-4
    assert max(like) - min(like) < 1e-4
    # Our own, alone in its batch.
    alone = BertScorer(encoder, "cpu").score([reply], [reference])[0]["bertscore_f1"]
    assert unlike[0] == pytest.approx(alone, abs=1e-5)
