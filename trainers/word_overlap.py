"""How many words a reply shares with its reference, as a reward counts them: BLEU-1 and ROUGE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def bleu1(replies: Sequence[str], references: Sequence[str]) -> list[float]:
    """BLEU-1 of each reply, 0..1: precision of its words, and the penalty for being too short.

    Words are those of METEOR, nltk's `word_tokenize(text.lower(), preserve_line=True)`. Nothing is
    smoothed (nltk's `method0`): with words alone, a reply that shares none scores 0, as an empty
    one does.

    Args:
        replies: B texts.
        references: B texts.

    Source: Papineni et al. 2002, with weight 1 for words and 0 for longer sequences.
    """
    from nltk.tokenize import word_tokenize
    from nltk.translate.bleu_score import sentence_bleu

    scores = []
    for texts in zip(references, replies, strict=True):
        reference, reply = (word_tokenize(text.lower(), preserve_line=True) for text in texts)
        found = sentence_bleu([reference], reply, weights=(1,)) if reference and reply else 0.0
        scores.append(float(found))
    return scores


class Rouge:
    """F1 of one kind of ROUGE by rouge-score, 0..1, without stemmer; 0 for an empty reply.

    Args:
        name: `rouge1`, `rouge2` or `rougeL`.
    """

    def __init__(self, name: str) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._name = name
        self._scorer: Any = RougeScorer([name], use_stemmer=False)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[float]:
        """Each reply's F1.

        Args:
            replies: B texts.
            references: B texts.
        """
        return [
            float(self._scorer.score(reference, reply)[self._name].fmeasure)
            for reply, reference in zip(replies, references, strict=True)
        ]
