"""Questions and answers as training and validation pairs."""

from __future__ import annotations

import random
from collections.abc import Sequence

from corpora.dialogue import CorpusError, Pair, PairSplits
from corpora.question_answers import Question
from search_spaces.errors import one_problem

_VALID_FRACTION = 0.1


def split_questions(questions: Sequence[Question], seed: int) -> PairSplits:
    """Questions and answers to train on, and a tenth to see whether it helps; no test part.

    Args:
        questions: at least two different ones; those that are alike stay together.
        seed: of the draw.

    Raises:
        CorpusError: all questions are one.
    """
    texts = sorted({question.question for question in questions})
    if len(texts) < 2:
        message = "there must be at least two different questions, one of them to validate on"
        raise CorpusError(one_problem("qa_data", "", message, len(texts)))
    random.Random(seed).shuffle(texts)
    apart = set(texts[: max(1, round(_VALID_FRACTION * len(texts)))])
    pairs = [Pair(q.id, q.id, q.question, q.answer) for q in questions]
    return PairSplits(
        train=tuple(pair for pair in pairs if pair.prompt not in apart),
        valid=tuple(pair for pair in pairs if pair.prompt in apart),
        test=(),
    )
