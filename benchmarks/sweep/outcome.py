"""What a sweep came to, whoever ran it, and whether two came to the same."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from evaluators.metric_versions import WORD_METRIC_NAMES

ReplyKey = tuple[str, int, str]
"""Part, beam width, pair."""

Possible = Callable[[str, ReplyKey, str], Sequence[float]]
"""Trial, which of its replies, and its text, to the BERTScores (F1) that it may have."""

_BERTSCORE = "bertscore_f1"


@dataclass(frozen=True)
class TrialOutcome:
    """One trial's losses, replies and scores."""

    losses: Mapping[str, float]
    """`train`: mean of all optimiser steps' losses; `valid`: of the tuned model. Nats per token."""
    replies: Mapping[ReplyKey, str]
    scores: Mapping[ReplyKey, Mapping[str, float]]
    """Of each reply, by metric."""
    cpu_s: Mapping[str, float]
    """CPU seconds by part of the trial, where they were measured."""


@dataclass(frozen=True)
class Tolerance:
    """How far two sweeps of one grid may be apart and still have come to the same."""

    loss: float = 1e-4
    """Relative: adapters that are computed in another order differ by rounding."""
    word_score: float = 1e-6
    """ROUGE (of 100) and METEOR (of 1) of equal replies."""
    bertscore: float = 1e-4
    """Of equal replies."""
    flipped: float = 0.02
    """Share of replies that rounding may turn into others, where two beams score nearly alike."""


@dataclass(frozen=True)
class Difference:
    """How far two sweeps are apart."""

    loss: float
    """Greatest relative difference of a training or validation loss."""
    word_score: float
    """Greatest difference of ROUGE or METEOR between equal replies."""
    bertscore: float
    """Greatest difference of BERTScore between equal replies; where bert-score may say one or the other
    (`padding.py`), the greater distance from the nearest of what it may say."""
    padded: int
    """Equal replies of which it said one and the other."""
    flipped: int
    """Replies that are others."""
    replies: int
    """Replies that were compared."""

    def broken(self, tolerance: Tolerance) -> list[str]:
        """What is farther apart than it may be.

        Args:
            tolerance: how far it may be.
        """
        found = {
            "loss": (self.loss, tolerance.loss),
            "ROUGE or METEOR of equal replies": (self.word_score, tolerance.word_score),
            "BERTScore of equal replies": (self.bertscore, tolerance.bertscore),
            "share of other replies": (self.flipped / max(self.replies, 1), tolerance.flipped),
        }
        return [
            f"{name}: {value:.3g} > {most:g}"
            for name, (value, most) in found.items()
            if value > most
        ]


def compare(
    one: Mapping[str, TrialOutcome],
    other: Mapping[str, TrialOutcome],
    replies_apart: Collection[str] = (),
    possible: Possible | None = None,
) -> Difference:
    """How far two sweeps are apart.

    Args:
        one: by trial.
        other: the same trials.
        replies_apart: trials whose replies may well be others; their losses are compared alone.
        possible: the BERTScores that a reply may have; absent: there is one.

    Raises:
        ValueError: they are not the same trials, pairs or beam widths.
    """
    if one.keys() != other.keys():
        raise ValueError(f"the sweeps must have the same trials, but {one.keys() ^ other.keys()}")
    loss, words, bert, padded, flipped, replies = 0.0, 0.0, 0.0, 0, 0, 0
    for name, left in one.items():
        right = other[name]
        if left.losses.keys() != right.losses.keys() or left.replies.keys() != right.replies.keys():
            raise ValueError(f"trial {name} must have the same losses and replies in both sweeps")
        for part, value in left.losses.items():
            loss = max(loss, abs(value - right.losses[part]) / abs(value))
        if name in replies_apart:
            continue
        equal = [key for key, reply in left.replies.items() if reply == right.replies[key]]
        replies += len(left.replies)
        flipped += len(left.replies) - len(equal)
        for key in equal:
            scores = [left.scores[key], right.scores[key]]
            words = max(words, *(_apart(scores, metric) for metric in WORD_METRIC_NAMES))
            apart = _apart(scores, _BERTSCORE)
            if apart > Tolerance.bertscore and possible is not None:
                padded += 1
                known = possible(name, key, left.replies[key])
                apart = max(min(abs(row[_BERTSCORE] - may) for may in known) for row in scores)
            bert = max(bert, apart)
    return Difference(loss, words, bert, padded, flipped, replies)


def _apart(scores: Sequence[Mapping[str, float]], metric: str) -> float:
    one, other = (row[metric] for row in scores)
    return abs(one - other)


def read_plain(results: Path) -> dict[str, TrialOutcome]:
    """What `plain_ray.py` came to, by trial.

    Args:
        results: its `results.json`.
    """
    return {
        row["id"]: TrialOutcome(row["losses"], *_replies(row["replies"]), row["cpu_s"])
        for row in json.loads(results.read_text(encoding="utf-8"))
    }


def read_ours(folder: Path) -> dict[str, TrialOutcome]:
    """What our own sweep came to, by trial.

    Args:
        folder: the sweep's, with `trials/`.
    """
    outcomes = {}
    for result in sorted(folder.glob("trials/*/result.json")):
        content = json.loads(result.read_text(encoding="utf-8"))
        losses = {"valid": content["scores"]["valid/loss"]}
        with (result.parent / "train.csv").open(encoding="utf-8", newline="") as file:
            steps = [row for row in csv.DictReader(file) if row["train_loss"]]
        if steps:
            losses["train"] = _mean_over_steps(steps)
        lines = (result.parent / "replies.jsonl").read_text(encoding="utf-8").splitlines()
        replies = _replies([json.loads(line) for line in lines])
        outcomes[content["id"]] = TrialOutcome(losses, *replies, {})
    return outcomes


def _mean_over_steps(rows: list[dict[str, str]]) -> float:
    """Mean loss of all steps; each row is a mean over those since the row before."""
    ends = [0, *(int(row["step"]) for row in rows)]
    spans = [after - before for before, after in pairwise(ends)]
    total = sum(span * float(row["train_loss"]) for span, row in zip(spans, rows, strict=True))
    return total / ends[-1]


def _replies(
    rows: list[dict[str, Any]],
) -> tuple[dict[ReplyKey, str], dict[ReplyKey, dict[str, float]]]:
    keys = [(row["part"], row["beam"], row["pair_id"]) for row in rows]
    texts = {key: row["reply"] for key, row in zip(keys, rows, strict=True)}
    metrics = (*WORD_METRIC_NAMES, _BERTSCORE)
    scores = {key: {m: row[m] for m in metrics} for key, row in zip(keys, rows, strict=True)}
    return texts, scores
