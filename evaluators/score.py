"""Replies become scores: seven metrics a reply, their means a beam width, and what looks odd."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.encoders import Encoder, resolve_encoder
from evaluators.errors import EvaluationError
from evaluators.metric_versions import (
    BERTSCORE_NAMES,
    METRIC_NAMES,
    METRIC_VERSIONS,
    WORD_METRIC_NAMES,
)
from evaluators.metrics import mean_scores
from evaluators.replies import Reply
from evaluators.word_worker import WordWorker
from search_spaces.errors import Problem
from search_spaces.spec import MetricsSpec
from trainers.progress import ShouldStop, never

if TYPE_CHECKING:
    from evaluators.bertscore import BertScorer

__all__ = [
    "BERTSCORE_NAMES",
    "METRIC_NAMES",
    "METRIC_VERSIONS",
    "Scores",
    "StreamingScorer",
    "score",
]


@dataclass(frozen=True)
class Scores:
    """Scores of one part's replies."""

    means: dict[int, dict[str, float]]
    """Beam width to metric to mean over the replies of that width; no BERTScore where left out."""
    rows: tuple[dict[str, float], ...]
    """Every reply's scores by metric, in the order of the replies."""
    checks: dict[str, int]
    """`empty_replies`, and `identical_replies`: same words as the reply to another prompt."""
    encoder: Encoder | None
    """What BERTScore was computed with."""

    def named(self, part: str) -> dict[str, float]:
        """Means as results name them: `test/rouge1_beam4`, and `test/rouge1` for the narrowest.

        Args:
            part: `valid` or `test`.
        """
        named = {
            f"{part}/{metric}_beam{beam}": value
            for beam, means in self.means.items()
            for metric, value in means.items()
        }
        narrowest = self.means[min(self.means)] if self.means else {}
        return named | {f"{part}/{metric}": value for metric, value in narrowest.items()}


class StreamingScorer:
    """Scores replies while others are still generated; good for many trials of like metrics.

    ROUGE and METEOR run in a process of their own from the first reply on. BERTScore runs when all
    replies are there, in batches over all beam widths, so that a reference is encoded once. The
    encoder is loaded once.

    ```python
    with closing(StreamingScorer(metrics)) as scorer:
        replies = generate(..., on_replies=scorer.add)
        scores = scorer.finish(replies)
    ```

    Args:
        metrics: which encoder, if any.
        device: where BERTScore runs; a GPU if there is one.

    Raises:
        EvaluationError: the encoder is nowhere to be had.
    """

    def __init__(self, metrics: MetricsSpec, device: str | None = None) -> None:
        self.metrics = metrics
        self.encoder = resolve_encoder(metrics)
        self._device = device
        self._bert: BertScorer | None = None
        self._words = WordWorker()

    def add(self, replies: Sequence[Reply]) -> None:
        """Begin to score replies.

        Args:
            replies: some of those that `finish` will be given.
        """
        self._words.add([(reply.scored_text, reply.reference) for reply in replies])

    def finish(self, replies: Sequence[Reply], should_stop: ShouldStop = never) -> Scores:
        """Scores of replies, equal to those of `score` whatever was added before.

        Args:
            replies: all replies of one part; the scorer is as new afterwards.
            should_stop: asked between pieces of the work.

        Raises:
            EvaluationError: WordNet is not here, or a metric is missing or not finite.
            StoppedError: `should_stop` said so; the scorer can be used again.
        """
        pairs = [(reply.scored_text, reply.reference) for reply in replies]
        rows = self._words.collect(pairs, should_stop)
        rows = [dict(row) for row in rows]
        if self.encoder is not None:
            for row, found in zip(rows, self._score_bert(pairs, should_stop), strict=True):
                row.update(found)
        self._check(replies, rows)
        by_beam: dict[int, list[dict[str, float]]] = defaultdict(list)
        for reply, row in zip(replies, rows, strict=True):
            by_beam[reply.beam].append(row)
        means = {beam: mean_scores(by_beam[beam]) for beam in sorted(by_beam)}
        return Scores(means, tuple(rows), check_replies(replies), self.encoder)

    def close(self) -> None:
        """End the word process and let go of the encoder."""
        self._words.close()
        self._bert = None

    def _score_bert(
        self, pairs: Sequence[tuple[str, str]], should_stop: ShouldStop
    ) -> list[dict[str, float]]:
        if self._bert is None and self.encoder is not None:
            from evaluators.bertscore import BertScorer

            self._bert = BertScorer(self.encoder, self._device)
        if self._bert is None:
            return []
        texts, references = [text for text, _ in pairs], [reference for _, reference in pairs]
        return self._bert.score(texts, references, should_stop)

    def _check(self, replies: Sequence[Reply], rows: Sequence[dict[str, float]]) -> None:
        """See that every reply has every metric: a mean over some of them would be no mean."""
        names = WORD_METRIC_NAMES if self.encoder is None else METRIC_NAMES
        problems = []
        for name in names:
            wrong = [
                (reply, row.get(name))
                for reply, row in zip(replies, rows, strict=True)
                if not math.isfinite(row.get(name, math.nan))
            ]
            if wrong:
                reply, value = wrong[0]
                message = (
                    "every reply must have a finite score, but "
                    f"{len(wrong)} of {len(replies)} have none, the first at beam {reply.beam}"
                )
                shown = "nothing" if value is None else str(value)
                problems.append(Problem(name, reply.pair_id, message, shown))
        if problems:
            raise EvaluationError(problems)


def score(
    replies: Sequence[Reply], metrics: MetricsSpec, scorer: StreamingScorer | None = None
) -> Scores:
    """Scores of replies that are all there.

    Args:
        replies: of one part, any beam widths.
        metrics: which encoder, if any.
        scorer: one to use again, of the same metrics; its encoder is already loaded.

    Raises:
        EvaluationError: the encoder or WordNet is nowhere to be had.
        ValueError: the scorer is of other metrics.
    """
    if scorer is not None:
        if scorer.metrics != metrics:
            raise ValueError(f"the scorer must be of {metrics}, but is of {scorer.metrics}")
        return scorer.finish(replies)
    with closing(StreamingScorer(metrics)) as own:
        return own.finish(replies)


def check_replies(replies: Sequence[Reply]) -> dict[str, int]:
    """Count replies that hint at a model that does not listen.

    Args:
        replies: of one part, any beam widths.
    """
    prompts: dict[tuple[int, str], set[str]] = defaultdict(set)
    for reply in replies:
        prompts[reply.beam, reply.reply].add(reply.prompt)
    return {
        "empty_replies": sum(not reply.reply for reply in replies),
        "identical_replies": sum(
            bool(reply.reply) and len(prompts[reply.beam, reply.reply]) > 1 for reply in replies
        ),
    }
