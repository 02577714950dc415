"""Known answers, from the packages' own documentation and by hand."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from evaluators.metric_versions import ROUGE_NAMES
from evaluators.metrics import Meteor, Rouge, WordMetrics, common_words, mean_scores

REFERENCE = (
    "It is a guide to action that ensures that the military will forever heed Party commands"
)
REPLIES = (
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    "It is to insure the troops forever hearing the activity guidebook that party direct",
)
ROUGE = Rouge()


@cache
def word_metrics() -> WordMetrics:
    """One for all examples: what it remembers of some must not change others."""
    return WordMetrics()


def test_rouge_is_the_f_measure_times_100_as_its_readme_has_it() -> None:
    reference = "The quick brown fox jumps over the lazy dog"
    reply = "The quick brown dog jumps on the log."
    # 6 of 8 words, 6 of 9; 2 of 7 and of 8 bigrams; a common subsequence of 5.
    rouge = Rouge().score([reply], [reference])[0]
    assert rouge == pytest.approx(
        {"rouge1": 100 * 12 / 17, "rouge2": 100 * 4 / 15, "rougeL": 100 * 10 / 17}
    )


def test_rouge_does_not_stem() -> None:
    assert Rouge().score(["feelings"], ["feeling"])[0]["rouge1"] == 0.0


@pytest.mark.usefixtures("wordnet")
def test_meteor_is_what_nltk_documents() -> None:
    first, second = Meteor().score(REPLIES, [REFERENCE] * 2)
    assert first["meteor"] == pytest.approx(0.6944, abs=5e-5)
    assert second["meteor"] == pytest.approx(0.3035, abs=5e-5)
    assert Meteor().score(["non matching hypothesis"], ["this is a cat"])[0]["meteor"] == 0.0


@pytest.mark.usefixtures("wordnet")
def test_meteor_knows_synonyms_and_remembers_without_changing_anything() -> None:
    from nltk.translate.meteor_score import single_meteor_score

    meteor = Meteor()
    replies = ["I took my car home", "that is sad", *REPLIES] * 2
    references = ["I took my auto home", "that is sorry", REFERENCE, REFERENCE] * 2
    ours = [row["meteor"] for row in meteor.score(replies, references)]
    theirs = [
        single_meteor_score(reference.split(), reply.split())
        for reply, reference in zip(replies, references, strict=True)
    ]
    assert ours == pytest.approx(theirs)
    assert ours[0] > 0.95


@pytest.mark.usefixtures("wordnet")
def test_meteor_splits_a_full_stop_at_the_end_only() -> None:
    meteor = Meteor()
    end, middle = meteor.score(["no more zebra.", "zebra. no more"], ["zebra", "zebra"])
    assert end["meteor"] > 0.0
    assert middle["meteor"] == 0.0


def test_means_are_plain_means() -> None:
    assert mean_scores([{"rouge1": 1.0}, {"rouge1": 2.0}]) == {"rouge1": 1.5}
    assert mean_scores([]) == {}


WORDS = st.sampled_from(
    [
        "i",
        "my",
        "feel",
        "feeling",
        "feels",
        "felt",
        "sad",
        "sorry",
        "car",
        "auto",
        "don't",
        "won't",
        "you're",
        "okay",
        "okay.",
        "no-one",
        "3",
        "é,",
        "!",
    ]
)
TEXTS = st.lists(WORDS, max_size=40).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4)


@given(PAIRS)
def test_rouge_is_rouge_scores(pairs: list[tuple[str, str]]) -> None:
    theirs = RougeScorer(list(ROUGE_NAMES), use_stemmer=False)
    for (reply, reference), ours in zip(pairs, ROUGE.score(*zip(*pairs, strict=True)), strict=True):
        found = theirs.score(reference, reply)
        assert ours == {name: 100.0 * found[name].fmeasure for name in ROUGE_NAMES}


@pytest.mark.usefixtures("wordnet")
@given(PAIRS)
def test_words_score_as_nltk_and_rouge_score_have_them(pairs: list[tuple[str, str]]) -> None:
    from nltk.tokenize import word_tokenize
    from nltk.translate.meteor_score import single_meteor_score

    metrics = word_metrics()
    rows = metrics.score(*zip(*(pairs * 2), strict=True))
    assert rows[: len(pairs)] == rows[len(pairs) :]
    for (reply, reference), row in zip(pairs, rows, strict=False):
        tokens = [word_tokenize(text.lower(), preserve_line=True) for text in (reference, reply)]
        theirs = single_meteor_score(*tokens) if all(tokens) else 0.0
        assert row == {**ROUGE.score([reply], [reference])[0], "meteor": theirs}


@pytest.mark.usefixtures("wordnet")
def test_rows_can_be_changed_without_changing_what_is_remembered() -> None:
    metrics = word_metrics()
    (row,) = metrics.score(["a b"], ["a c"])
    before = dict(row)
    row["rouge1"] = -1.0
    assert metrics.score(["a b"], ["a c"]) == [before]


def test_the_common_subsequence_may_have_gaps_and_words_that_repeat() -> None:
    assert common_words(["a", "b", "c", "b", "d", "a", "b"], ["b", "d", "c", "a", "b", "a"]) == 4
    assert common_words(["a", "a", "a"], ["a", "a"]) == 2
    assert common_words([], ["a"]) == 0
