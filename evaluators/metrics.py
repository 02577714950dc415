"""ROUGE and METEOR: scores of words, computed on the CPU."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Sequence
from typing import Any, Protocol

from evaluators.metric_versions import ROUGE_NAMES
from evaluators.wordnet import find_wordnet, require_wordnet

_CACHED_WORDS = 50_000


class Metric(Protocol):
    """One metric, or several that are computed together."""

    names: tuple[str, ...]

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's scores by name.

        Args:
            replies: K texts.
            references: K texts; an empty reply or reference scores 0.
        """
        ...


class Rouge:
    """ROUGE-1, ROUGE-2 and ROUGE-L: F-measure x 100, no stemmer.

    rouge-score lower-cases and splits at everything that is not a letter a-z or a digit.
    """

    names: tuple[str, ...] = ROUGE_NAMES

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self._scorer: Any = RougeScorer(list(ROUGE_NAMES), use_stemmer=False)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's ROUGE; see `Metric.score`."""
        rows = []
        for reply, reference in zip(replies, references, strict=True):
            found = self._scorer.score(reference, reply)
            rows.append({name: 100.0 * found[name].fmeasure for name in ROUGE_NAMES})
        return rows


class Meteor:
    """METEOR, 0..1, with WordNet synonyms and alpha .9, beta 3, gamma .5.

    Tokens are nltk's `word_tokenize(text.lower(), preserve_line=True)`: words and punctuation
    apart, contractions split ("don't" is "do", "n't"), and a full stop split off at the end of the
    text only, so "okay." inside a reply and "okay" are different words. nltk looks synonyms up by a
    word's stem: "car" finds "auto", but "happy" (stem "happi") finds none, in published numbers too.

    Raises:
        EvaluationError: WordNet is not here.
    """

    names: tuple[str, ...] = ("meteor",)

    def __init__(self) -> None:
        require_wordnet()
        find_wordnet()  # tells nltk of it
        from nltk.corpus import wordnet
        from nltk.stem.porter import PorterStemmer
        from nltk.tokenize import word_tokenize
        from nltk.translate.meteor_score import single_meteor_score

        self._tokenize: Any = word_tokenize
        self._meteor: Any = single_meteor_score
        self._wordnet = _Remembered(synsets=wordnet.synsets)
        self._stemmer = _Remembered(stem=PorterStemmer().stem)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's METEOR; see `Metric.score`."""
        return [
            {"meteor": self._score_one(reply, reference)}
            for reply, reference in zip(replies, references, strict=True)
        ]

    def _score_one(self, reply: str, reference: str) -> float:
        tokens = [self._tokenize(text.lower(), preserve_line=True) for text in (reference, reply)]
        if not all(tokens):
            return 0.0
        score = self._meteor(
            *tokens, stemmer=self._stemmer, wordnet=self._wordnet, alpha=0.9, beta=3.0, gamma=0.5
        )
        return float(score)


class _Remembered:
    """Functions of one word, each asked once a word: replies repeat their words.

    Args:
        functions: by the attribute name under which nltk looks for them.
    """

    def __init__(self, **functions: Any) -> None:
        for name, function in functions.items():
            setattr(self, name, functools.lru_cache(maxsize=_CACHED_WORDS)(function))


class WordMetrics:
    """ROUGE and METEOR together."""

    names: tuple[str, ...] = (*Rouge.names, *Meteor.names)

    def __init__(self) -> None:
        self._metrics: tuple[Metric, ...] = (Rouge(), Meteor())

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's ROUGE and METEOR; see `Metric.score`."""
        rows: list[dict[str, float]] = [{} for _ in replies]
        for metric in self._metrics:
            for row, found in zip(rows, metric.score(replies, references), strict=True):
                row.update(found)
        return rows


def mean_scores(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of every metric over rows that all have the same metrics; empty for no rows.

    Args:
        rows: one mapping a reply, metric name to score.
    """
    if not rows:
        return {}
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
