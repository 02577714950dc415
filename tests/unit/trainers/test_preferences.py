from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from corpora.question_answers import LabelledAnswer, QuestionAnswer
from trainers.errors import ModelError
from trainers.preferences import (
    Preference,
    bradley_terry_loss,
    chance_of_right,
    label_loss,
    preference_loss,
    preference_texts,
    share_right,
    split_by_question,
)

COMPARED = [QuestionAnswer(str(n), f"{n % 10}?", f"good {n}", f"bad {n}") for n in range(40)]
LABELLED = [LabelledAnswer(str(n), f"{n % 10}?", f"said {n}", n % 4 == 0) for n in range(40)]


def labelled(*good: bool) -> list[LabelledAnswer]:
    return [LabelledAnswer(str(n), "Why?", "So.", is_good) for n, is_good in enumerate(good)]


def test_losses() -> None:
    """Odds of 3 to 1 and 1 to 3."""
    odds = torch.tensor([math.log(3), 0.0])
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert float(bradley_terry_loss(odds, odds.flip(0))) == pytest.approx(expected, abs=1e-6)
    said = torch.tensor([math.log(3), math.log(3)])
    assert float(label_loss(said, torch.tensor([True, False]))) == pytest.approx(expected, abs=1e-6)


def test_texts_and_loss_are_in_one_order() -> None:
    assert preference_texts(COMPARED[:2]) == [
        ("0?", "good 0"),
        ("1?", "good 1"),
        ("0?", "bad 0"),
        ("1?", "bad 1"),
    ]
    outputs = torch.tensor([9.0, 8.0, -9.0, -8.0])
    assert float(preference_loss(outputs, COMPARED[:2])) < 1e-4
    assert preference_texts(LABELLED[:2]) == [("0?", "said 0"), ("1?", "said 1")]
    assert float(preference_loss(torch.tensor([20.0, -20.0]), LABELLED[:2])) < 1e-4


@pytest.mark.parametrize("every", [COMPARED, LABELLED])
def test_split(every: Sequence[Preference]) -> None:
    """Answers to one question never stand on both sides."""
    train, held_out = split_by_question(every, 0.3, 0)
    assert not {one.question for one in train} & {one.question for one in held_out}
    assert len({one.question for one in held_out}) == 3
    assert sorted([*train, *held_out], key=lambda one: int(one.id)) == every
    assert split_by_question(every, 0.3, 1) != (train, held_out)


def test_too_few_questions() -> None:
    with pytest.raises(ModelError, match="at least two questions"):
        split_by_question(labelled(True, False), 0.25, 0)


def test_no_opinion_is_not_right() -> None:
    assert share_right([1.0, 2.0, 3.0, 0.0, 2.0, 4.0], COMPARED[:3]) == pytest.approx(1 / 3)
    assert share_right([1.0, 0.0, 0.0, -1.0], labelled(True, True, False, False)) == 0.5


def test_chance() -> None:
    """What comes of always saying the label that was frequent in training."""
    assert chance_of_right(COMPARED[:3], COMPARED[3:]) == 0.5
    held_out = labelled(True, True, True, False)
    assert chance_of_right(labelled(True, True, False), held_out) == 0.75
    assert chance_of_right(labelled(True, False, False), held_out) == 0.25
