"""How often a reward model picks the preferred answer of comparisons that it was not trained on.

    python -m benchmarks.reward_model PAIRS.json ENCODER_FOLDER [--epochs 3] [--shuffled]

With `--shuffled` a coin decides which answer counts as preferred: the control, which must stay at
chance. Printed beside it: how often the shorter answer is the preferred one, which needs no model.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import tempfile
from pathlib import Path

from corpora.question_answers import QuestionAnswer, read_question_answers
from trainers.reward import RewardSettings, split_comparisons, train_reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true")
    given = parser.parse_args()
    comparisons = list(read_question_answers(given.pairs))
    if given.shuffled:
        comparisons = shuffle_labels(comparisons, given.seed)
    settings = RewardSettings(
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        max_length=given.max_length,
        seed=given.seed,
    )
    _, held_out = split_comparisons(comparisons, settings.held_out_fraction, settings.seed)
    shorter = sum(len(c.preferred) < len(c.rejected) for c in held_out) / len(held_out)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_reward(given.encoder, comparisons, settings, Path(folder))
    error = math.sqrt(trained.accuracy * (1 - trained.accuracy) / trained.held_out)
    print(f"held out: {trained.accuracy:.1%} +- {error:.1%} of {trained.held_out} comparisons")
    print(f"trained on: {trained.train_accuracy:.1%}")
    print(f"the shorter answer: {shorter:.1%} of the held-out ones")


def shuffle_labels(comparisons: list[QuestionAnswer], seed: int) -> list[QuestionAnswer]:
    draw = random.Random(seed)
    return [
        dataclasses.replace(c, preferred=c.rejected, rejected=c.preferred)
        if draw.random() < 0.5
        else c
        for c in comparisons
    ]


if __name__ == "__main__":
    main()
