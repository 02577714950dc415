from __future__ import annotations

import pytest

from corpora.dialogue import Pair
from evaluators.floors import FIXED_REPLY, floor_scores
from evaluators.score import score
from search_spaces.spec import DecodingSpec, MetricsSpec
from tests.unit.evaluators.tiny_models import make_pairs

pytestmark = pytest.mark.usefixtures("wordnet")

WORDS = MetricsSpec(bertscore_model=None)
PAIRS = [
    Pair("s:1", "s", "i feel sad", "why do you feel sad"),
    Pair("s:3", "s", "dunno", "Okay. And how do you feel about that?"),
]


def test_floors_are_the_patients_words_and_one_sentence() -> None:
    floors = floor_scores(PAIRS, WORDS, DecodingSpec(beams=(1, 4)))
    assert set(floors) == {"echo", "fixed"}
    # Echo: 2 of 3 and 2 of 5 words; fixed: 3 of 8 and 3 of 5, then all.
    assert floors["echo"]["test/rouge1"] == pytest.approx(
        100 * (2 / 3 * 2 / 5 * 2 / (2 / 3 + 2 / 5)) / 2
    )
    assert floors["fixed"]["test/rouge1"] == pytest.approx((100 * 2 * 3 / 13 + 100) / 2)
    for floor in floors.values():
        assert set(floor) == {
            f"test/{metric}{suffix}"
            for metric in ("rouge1", "rouge2", "rougeL", "meteor")
            for suffix in ("", "_beam1", "_beam4")
        }
        assert floor["test/meteor"] == floor["test/meteor_beam1"] == floor["test/meteor_beam4"]


def test_chatmgls_floors_have_the_prompt_in_front_and_60_pairs() -> None:
    pairs = [*(PAIRS[:1] * 60), *make_pairs(10)]
    chatmgl = floor_scores(pairs, WORDS, DecodingSpec(protocol="chatmgl"))
    assert chatmgl["fixed"]["test/rouge1"] == pytest.approx(
        score_text(f"{PAIRS[0].prompt} {FIXED_REPLY}", PAIRS[0])
    )


def score_text(text: str, pair: Pair) -> float:
    from evaluators.replies import reply_to_pair

    return score([reply_to_pair(pair, 1, text, "clean")], WORDS).means[1]["rouge1"]


def test_no_pairs_no_floors() -> None:
    assert floor_scores([], WORDS) == {"echo": {}, "fixed": {}}
