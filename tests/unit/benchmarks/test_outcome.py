from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sweep.outcome import (
    ReplyKey,
    Tolerance,
    TrialOutcome,
    compare,
    read_ours,
    read_plain,
)

SCORES = {"rouge1": 50.0, "rouge2": 0.0, "rougeL": 50.0, "meteor": 0.4, "bertscore_f1": 0.6}
KEY = ("test", 2, "s:1")
ROW: dict[str, Any] = {"part": "test", "beam": 2, "pair_id": "s:1", "reply": "yes", **SCORES}
OUTCOME = TrialOutcome({"train": 4.0, "valid": 3.0}, {KEY: "yes"}, {KEY: SCORES}, {})


def test_equal_outcomes_are_not_apart() -> None:
    difference = compare({"a": OUTCOME}, {"a": OUTCOME})
    assert (difference.loss, difference.flipped, difference.replies) == (0.0, 0, 1)
    assert difference.broken(Tolerance()) == []


def test_the_greatest_relative_loss_and_each_score_of_equal_replies_count() -> None:
    scores = {KEY: {**SCORES, "rouge1": 49.0, "bertscore_f1": 0.5}}
    other = replace(OUTCOME, losses={"train": 4.0, "valid": 3.3}, scores=scores)
    difference = compare({"a": OUTCOME}, {"a": other})
    assert difference.loss == pytest.approx(0.1)
    assert difference.word_score == pytest.approx(1.0)
    assert difference.bertscore == pytest.approx(0.1)
    assert len(difference.broken(Tolerance())) == 3


def test_where_bert_score_may_say_either_each_is_held_against_what_it_may_say() -> None:
    other = replace(OUTCOME, scores={KEY: {**SCORES, "bertscore_f1": 0.61}})
    asked = []

    def possible(trial: str, key: ReplyKey, reply: str) -> tuple[float, float]:
        asked.append((trial, key, reply))
        return (0.6, 0.61002)

    difference = compare({"a": OUTCOME}, {"a": other}, possible=possible)
    assert difference.bertscore == pytest.approx(2e-5)
    assert difference.padded == 1
    assert asked == [("a", KEY, "yes")]


def test_other_replies_are_counted_and_their_scores_are_not() -> None:
    other = replace(OUTCOME, replies={KEY: "no"}, scores={KEY: {**SCORES, "rouge1": 0.0}})
    difference = compare({"a": OUTCOME}, {"a": other})
    assert (difference.flipped, difference.word_score) == (1, 0.0)
    assert difference.broken(Tolerance(flipped=0.5)) == ["share of other replies: 1 > 0.5"]


def test_trials_whose_replies_may_be_others_are_compared_by_loss_alone() -> None:
    other = replace(OUTCOME, losses={"train": 5.0, "valid": 3.0}, replies={KEY: "no"})
    difference = compare({"a": OUTCOME}, {"a": other}, replies_apart={"a"})
    assert (difference.loss, difference.replies) == (0.25, 0)


def test_other_trials_or_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="same trials"):
        compare({"a": OUTCOME}, {"b": OUTCOME})
    with pytest.raises(ValueError, match="same losses and replies"):
        compare({"a": OUTCOME}, {"a": replace(OUTCOME, replies={})})


def test_the_plain_script_and_our_sweep_are_read_alike(tmp_path: Path) -> None:
    plain = tmp_path / "results.json"
    row = {"id": "a", "losses": OUTCOME.losses, "replies": [ROW], "cpu_s": {"train": 1.0}}
    plain.write_text(json.dumps([row]))
    trial = tmp_path / "trials" / "a"
    trial.mkdir(parents=True)
    (trial / "result.json").write_text(json.dumps({"id": "a", "scores": {"valid/loss": 3.0}}))
    (trial / "replies.jsonl").write_text(json.dumps(ROW) + "\n")
    with (trial / "train.csv").open("w", newline="") as file:
        steps = csv.writer(file)
        steps.writerow(["step", "train_loss", "valid_loss"])
        # The second row is the mean of three steps, and the last of none.
        steps.writerows([(1, 7.0, ""), (4, 3.0, ""), (4, "", 3.0)])
    ours = read_ours(tmp_path)
    assert ours["a"] == OUTCOME
    assert read_plain(plain)["a"] == replace(OUTCOME, cpu_s={"train": 1.0})
