"""ROUGE and METEOR: scores of words, computed on the CPU."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from evaluators.metric_versions import ROUGE_NAMES
from evaluators.wordnet import find_wordnet, require_wordnet

_CACHED_WORDS = 50_000
_CACHED_TEXTS = 10_000
_CACHED_PAIRS = 10_000
_LONGEST = "rougeL"


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

    rouge-score tokenises and counts; it lower-cases and splits at everything that is not a letter a-z or a digit.
    """

    names: tuple[str, ...] = ROUGE_NAMES

    def __init__(self) -> None:
        from rouge_score.rouge_scorer import RougeScorer
        from rouge_score.scoring import fmeasure
        from rouge_score.tokenizers import DefaultTokenizer

        tokenizer = DefaultTokenizer(use_stemmer=False)
        self._tokens = _Remembered(_CACHED_TEXTS, tokenize=tokenizer.tokenize)
        ngrams = [name for name in ROUGE_NAMES if name != _LONGEST]
        self._scorer: Any = RougeScorer(ngrams, tokenizer=self._tokens)
        self._fmeasure: Any = fmeasure

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's ROUGE; see `Metric.score`."""
        rows = []
        for reply, reference in zip(replies, references, strict=True):
            scores = self._scorer.score(reference, reply)
            found = {name: score.fmeasure for name, score in scores.items()}
            found[_LONGEST] = self._longest(reply, reference)
            rows.append({name: 100.0 * found[name] for name in ROUGE_NAMES})
        return rows

    def _longest(self, reply: str, reference: str) -> float:
        """F-measure of the longest common subsequence; rouge-score's own fills a table for it."""
        theirs, ours = (self._tokens.tokenize(text) for text in (reference, reply))
        if not theirs or not ours:
            return 0.0
        common = common_words(theirs, ours)
        return float(self._fmeasure(common / len(ours), common / len(theirs)))


def common_words(some: Sequence[str], others: Sequence[str]) -> int:
    """Length of the longest common subsequence of two texts.

    Args:
        some: words of one.
        others: words of the other.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited": a column of the table is
    one integer, whose zeros are the places where the length grows.
    """
    places: dict[str, int] = defaultdict(int)
    for place, word in enumerate(some):
        places[word] |= 1 << place
    every = (1 << len(some)) - 1
    column = every
    for word in others:
        shared = column & places.get(word, 0)
        column = (column + shared) | (column - shared)
    return len(some) - (column & every).bit_count()


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

        self._meteor: Any = single_meteor_score
        self._tokens = _Remembered(
            _CACHED_TEXTS, tokenize=lambda text: word_tokenize(text.lower(), preserve_line=True)
        )
        self._wordnet = _Remembered(
            _CACHED_WORDS, synsets=lambda word: _synonyms(wordnet.synsets(word))
        )
        self._stemmer = _Remembered(_CACHED_WORDS, stem=PorterStemmer().stem)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's METEOR; see `Metric.score`."""
        return [
            {"meteor": self._score_one(reply, reference)}
            for reply, reference in zip(replies, references, strict=True)
        ]

    def _score_one(self, reply: str, reference: str) -> float:
        tokens = [self._tokens.tokenize(text) for text in (reference, reply)]
        if not all(tokens):
            return 0.0
        score = self._meteor(
            *tokens, stemmer=self._stemmer, wordnet=self._wordnet, alpha=0.9, beta=3.0, gamma=0.5
        )
        return float(score)


class _Remembered:
    """Functions of one text, each asked once a text: replies repeat words, trials references.

    Args:
        most: texts that are remembered.
        functions: by the attribute name under which libraries look for them.
    """

    def __init__(self, most: int, **functions: Callable[[str], Any]) -> None:
        for name, function in functions.items():
            setattr(self, name, functools.lru_cache(maxsize=most)(function))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[[str], Any]:
            """The function of that name."""


@dataclass(frozen=True)
class _Synset:
    """What nltk's METEOR asks a set of synonyms for."""

    words: tuple[_Lemma, ...]

    def lemmas(self) -> tuple[_Lemma, ...]:
        return self.words


@dataclass(frozen=True)
class _Lemma:
    word: str

    def name(self) -> str:
        return self.word


def _synonyms(synsets: Sequence[Any]) -> tuple[_Synset, ...]:
    """All single words of WordNet's sets as one set, each once: METEOR takes their union."""
    names = dict.fromkeys(lemma.name() for synset in synsets for lemma in synset.lemmas())
    return (_Synset(tuple(_Lemma(name) for name in names if "_" not in name)),)


class WordMetrics:
    """ROUGE and METEOR together; pairs that repeat are scored once."""

    names: tuple[str, ...] = (*Rouge.names, *Meteor.names)

    def __init__(self) -> None:
        self._metrics: tuple[Metric, ...] = (Rouge(), Meteor())
        self._known = functools.lru_cache(maxsize=_CACHED_PAIRS)(self._score_one)

    def score(self, replies: Sequence[str], references: Sequence[str]) -> list[dict[str, float]]:
        """Every pair's ROUGE and METEOR; see `Metric.score`."""
        return [dict(self._known(*pair)) for pair in zip(replies, references, strict=True)]

    def _score_one(self, reply: str, reference: str) -> dict[str, float]:
        row: dict[str, float] = {}
        for metric in self._metrics:
            row.update(*metric.score([reply], [reference]))
        return row


def mean_scores(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of every metric over rows that all have the same metrics; empty for no rows.

    Args:
        rows: one mapping a reply, metric name to score.
    """
    if not rows:
        return {}
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}
