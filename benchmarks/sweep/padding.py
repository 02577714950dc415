"""What bert-score may say of a pair, by what else is in its batch.

For each token it takes the likest token of the other text, and padding counts as a token of likeness 0: a
token that is unlike all others is rated higher where the other text happens to be padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from benchmarks.sweep.data import Lengths
from benchmarks.sweep.outcome import ReplyKey
from evaluators.encoders import Encoder

_LONG = "word " * 200
"""Longer than any reply or reference."""


class PossibleScores:
    """F1 of replies with and without padding beside them.

    Args:
        encoder: BERTScore's.
        lengths: of each trial's data; references are read.
    """

    def __init__(self, encoder: Encoder, lengths: Mapping[str, Lengths]) -> None:
        self._encoder = encoder
        self._lengths = lengths
        self._known: dict[tuple[str, str], tuple[float, ...]] = {}

    def __call__(self, trial: str, key: ReplyKey, reply: str) -> tuple[float, ...]:
        """The scores that one reply may have: neither text padded, the other, the one, both.

        Args:
            trial: its name.
            key: which of its replies.
            reply: the text.
        """
        part, _, pair = key
        reference = self._lengths[trial].references[part, pair]
        if (reply, reference) not in self._known:
            beside = (
                ([reply], [reference]),
                ([reply, reply], [reference, _LONG]),
                ([reply, _LONG], [reference, reference]),
                ([reply, _LONG], [reference, _LONG]),
            )
            self._known[reply, reference] = tuple(
                float(self._scorer.score(replies, references)[2][0])
                for replies, references in beside
            )
        return self._known[reply, reference]

    @cached_property
    def _scorer(self) -> Any:
        from bert_score import BERTScorer

        return BERTScorer(model_type=str(self._encoder.folder), num_layers=self._encoder.layer)
