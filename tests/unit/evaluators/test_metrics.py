"""Known answers, from the packages' own documentation and by hand."""

from __future__ import annotations

import pytest

from evaluators.metrics import Meteor, Rouge, mean_scores

REFERENCE = (
    "It is a guide to action that ensures that the military will forever heed Party commands"
)
REPLIES = (
    "It is a guide to action which ensures that the military always obeys the commands of the party",
    "It is to insure the troops forever hearing the activity guidebook that party direct",
)


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
