"""What a reward model learns from, comparisons or labelled answers: split, loss and share that is right.

B is the number of preferences, N of texts: two a comparison, one a labelled answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from corpora.question_answers import LabelledAnswer, QuestionAnswer
from search_spaces.errors import one_problem
from trainers.errors import ModelError

if TYPE_CHECKING:
    import torch

Preference = QuestionAnswer | LabelledAnswer

_Kind = TypeVar("_Kind", bound=Preference)


def split_by_question(
    preferences: Sequence[_Kind], held_out_fraction: float, seed: int
) -> tuple[list[_Kind], list[_Kind]]:
    """Preferences to train on, and held-out ones; what is said of one question stays together.

    Args:
        preferences: at least two questions.
        held_out_fraction: of the questions; at least one is held out, and one is trained on.
        seed: of the draw.

    Raises:
        ModelError: fewer than two questions.
    """
    questions = sorted({one.question for one in preferences})
    if len(questions) < 2:
        message = "a reward model needs answers to at least two questions"
        raise ModelError(one_problem("preference data", "", message, len(questions)))
    random.Random(seed).shuffle(questions)
    count = min(len(questions) - 1, max(1, round(len(questions) * held_out_fraction)))
    apart = set(questions[:count])
    train = [one for one in preferences if one.question not in apart]
    return train, [one for one in preferences if one.question in apart]


def preference_texts(preferences: Sequence[Preference]) -> list[tuple[str, str]]:
    """N questions with an answer each: of comparisons all preferred answers, then all rejected.

    Args:
        preferences: of one kind.
    """
    compared = [one for one in preferences if isinstance(one, QuestionAnswer)]
    texts = [(one.question, one.answer) for one in preferences if isinstance(one, LabelledAnswer)]
    texts += [(one.question, one.preferred) for one in compared]
    return texts + [(one.question, one.rejected) for one in compared]


def preference_loss(outputs_n: torch.Tensor, preferences: Sequence[Preference]) -> torch.Tensor:
    """Mean negative log-likelihood of what people preferred, in nats.

    Args:
        outputs_n: [N] outputs for `preference_texts`.
        preferences: of one kind, B.
    """
    import torch

    good = [one.good for one in preferences if isinstance(one, LabelledAnswer)]
    if good:
        return label_loss(outputs_n, torch.tensor(good, device=outputs_n.device))
    preferred_b, rejected_b = outputs_n.chunk(2)
    return bradley_terry_loss(preferred_b, rejected_b)


def bradley_terry_loss(preferred_b: torch.Tensor, rejected_b: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood that each preferred answer wins, in nats.

    Args:
        preferred_b: [B] outputs for the preferred answers.
        rejected_b: [B] outputs for the rejected answers.

    Source: Ouyang et al. 2022, equation 1, for two answers a question.
    """
    import torch

    return -torch.nn.functional.logsigmoid(preferred_b - rejected_b).mean()


def label_loss(outputs_b: torch.Tensor, good_b: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy, in nats: an output is the log-odds that the answer is good.

    Args:
        outputs_b: [B] outputs.
        good_b: [B] whether the answer is good.
    """
    import torch

    return torch.nn.functional.binary_cross_entropy_with_logits(outputs_b, good_b.float())


def share_right(outputs: Sequence[float], preferences: Sequence[Preference]) -> float:
    """Share of the preferences that outputs agree with; no opinion is not agreement.

    A comparison is right where the preferred answer got the higher output, a labelled answer where
    the output is above 0 for a good one, below for a bad one.

    Args:
        outputs: N, for `preference_texts`.
        preferences: of one kind, at least one.
    """
    good = [one.good for one in preferences if isinstance(one, LabelledAnswer)]
    if good:
        right = [a > 0 if is_good else a < 0 for a, is_good in zip(outputs, good, strict=True)]
    else:
        count = len(preferences)
        right = [a > b for a, b in zip(outputs[:count], outputs[count:], strict=True)]
    return sum(right) / len(preferences)


def chance_of_right(train: Sequence[Preference], held_out: Sequence[Preference]) -> float:
    """Share of the held-out preferences that one agrees with who reads no answer.

    A half of comparisons; of labelled answers, those with the label that is more frequent among
    the ones trained on.

    Args:
        train: what is trained on.
        held_out: what is not, at least one.
    """
    good = [one.good for one in held_out if isinstance(one, LabelledAnswer)]
    if not good:
        return 0.5
    known = [one.good for one in train if isinstance(one, LabelledAnswer)]
    usual = 2 * sum(known) >= len(known)
    return good.count(usual) / len(good)
