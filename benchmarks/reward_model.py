"""How often a reward model is right about preferences on questions that it was not trained on.

    python -m benchmarks.reward_model PREFERENCES.json ENCODER_FOLDER [--epochs 3] [--shuffled]

With `--shuffled` a coin decides which answer counts as preferred, or labels change hands: the control,
which must stay at chance. Printed beside it: how often the shorter answer of a comparison is the
preferred one, which needs no model.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from corpora.findings import Findings
from corpora.question_answers import LabelledAnswer, QuestionAnswer, read_preferences
from trainers.preferences import Preference, split_by_question
from trainers.reward import RewardSettings, train_reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preferences", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true")
    given = parser.parse_args()
    findings = Findings()
    preferences = read_preferences(given.preferences, findings)
    for problem in findings.oddities:
        print(problem)
    if given.shuffled:
        preferences = shuffle_labels(preferences, given.seed)
    settings = RewardSettings(
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        max_length=given.max_length,
        seed=given.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = train_reward(given.encoder, preferences, settings, Path(folder))
    error = math.sqrt(trained.accuracy * (1 - trained.accuracy) / trained.held_out)
    print(f"held out: {trained.accuracy:.1%} +- {error:.1%} of {trained.held_out}")
    print(f"chance: {trained.chance:.1%}")
    print(f"trained on: {trained.train_accuracy:.1%}, loss {trained.loss:.3f}")
    print(f"seconds: {trained.seconds:.0f}")
    every: Sequence[Preference] = preferences
    _, held_out = split_by_question(every, settings.held_out_fraction, settings.seed)
    if compared := [one for one in held_out if isinstance(one, QuestionAnswer)]:
        shorter = sum(len(one.preferred) < len(one.rejected) for one in compared) / len(compared)
        print(f"the shorter answer: {shorter:.1%} of the held-out ones")


def shuffle_labels(
    preferences: tuple[QuestionAnswer, ...] | tuple[LabelledAnswer, ...], seed: int
) -> tuple[QuestionAnswer, ...] | tuple[LabelledAnswer, ...]:
    draw = random.Random(seed)
    labels = [one.good for one in preferences if isinstance(one, LabelledAnswer)]
    draw.shuffle(labels)
    relabelled = tuple(
        dataclasses.replace(one, good=good)
        for one, good in zip(
            (one for one in preferences if isinstance(one, LabelledAnswer)), labels, strict=True
        )
    )
    swapped = tuple(
        dataclasses.replace(one, preferred=one.rejected, rejected=one.preferred)
        if draw.random() < 0.5
        else one
        for one in preferences
        if isinstance(one, QuestionAnswer)
    )
    return relabelled or swapped


if __name__ == "__main__":
    main()
