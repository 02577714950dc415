"""READER's reward: a reply's act, its likeness to the reference, and the words they share.

Source: Srivastava et al. 2023, "Response-act guided reinforced dialogue generation for mental health
counseling": a weighted sum of the act head's logit, the cosine of two embeddings, BLEU and ROUGE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.spec import MetricsSpec, ReaderSettings
from trainers.act_head import ActHead, act_scores
from trainers.encoder_files import fetch_encoder
from trainers.encoding import encode_reply
from trainers.text_similarity import Alike, BertScore, CosineSimilarity, fetch_bertscore
from trainers.word_overlap import Rouge, bleu1

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_READ_TOGETHER = 8
"""Replies whose acts are scored at once."""


@dataclass(frozen=True)
class Term:
    """One part of the reward."""

    name: str
    """Of its weight in the settings, without `_weight`."""
    weight: float
    score: Callable[[Sequence[int], Sequence[str]], list[float]]
    """Scores of B replies to B prompts, which are given by their number."""


@dataclass(frozen=True)
class ReaderReward:
    """A weighted sum of terms, and a constant."""

    terms: tuple[Term, ...]
    shift: float

    def __call__(self, numbers: Sequence[int], replies: Sequence[str]) -> list[float]:
        """Rewards of B replies.

        Args:
            numbers: B prompts' numbers.
            replies: B texts.
        """
        rewards = [self.shift] * len(replies)
        for term in self.terms:
            for place, score in enumerate(term.score(numbers, replies)):
                rewards[place] += term.weight * score
        return rewards


@dataclass(frozen=True)
class ActJudge:
    """How much a frozen model's act head takes a reply for the act of its reference."""

    model: PreTrainedModel
    """In evaluation mode; never trained."""
    head: ActHead
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[Sequence[int]]
    """Token ids of every prompt."""
    acts: Sequence[str | None]
    """Of every prompt's reference."""
    max_length: int
    """Tokens of prompt and reply together; more of the reply is not read."""

    def score(self, numbers: Sequence[int], replies: Sequence[str]) -> list[float]:
        """The logit of the reference's act at each reply's last token; 0 where it is unknown.

        Args:
            numbers: B prompts' numbers.
            replies: B texts.
        """
        scores = [0.0] * len(replies)
        known = [
            (place, self.head.acts.index(act))
            for place, number in enumerate(numbers)
            if (act := self.acts[number]) is not None and act in self.head.acts
        ]
        for start in range(0, len(known), _READ_TOGETHER):
            part = known[start : start + _READ_TOGETHER]
            found = act_scores(
                self.model, self.head, [self._text(numbers[p], replies[p]) for p, _ in part]
            )
            for row, (place, act_number) in enumerate(part):
                scores[place] = float(found[row, act_number])
        return scores

    def _text(self, number: int, reply: str) -> list[int]:
        return [*self.prompts[number], *encode_reply(self.tokenizer, reply)][: self.max_length]


def reward_fingerprints(settings: ReaderSettings, metrics: MetricsSpec) -> dict[str, str]:
    """What the reward reads beside the model: its encoders, fetched where they are not here.

    Args:
        settings: of encoders whose weight is 0, nothing is read.
        metrics: the trial's; its BERTScore is the reward's.

    Raises:
        ModelError: an encoder is nowhere to be had.
    """
    found = {}
    if settings.similarity_weight:
        found["similarity"] = fetch_encoder(settings.similarity_model, "similarity_model")[1]
    if settings.bertscore_weight:
        _, fingerprint, layer = fetch_bertscore(metrics)
        found["bertscore"] = f"{fingerprint} layer {layer}"
    return found


def make_reward(
    settings: ReaderSettings,
    metrics: MetricsSpec,
    references: Sequence[str],
    judge: ActJudge,
) -> ReaderReward:
    """The reward of replies to the training prompts; terms of weight 0 are not computed.

    Args:
        settings: weights, and the encoder of the similarity.
        metrics: the trial's; its BERTScore is the reward's.
        references: of every prompt.
        judge: of every reply's act.

    Raises:
        ModelError: an encoder cannot be had or loaded.
    """

    def against_reference(alike: Alike) -> Callable[[Sequence[int], Sequence[str]], list[float]]:
        return lambda numbers, replies: alike(replies, [references[n] for n in numbers])

    terms = []
    if weight := settings.act_reward_weight:
        terms.append(Term("act_reward", weight, judge.score))
    if weight := settings.similarity_weight:
        folder, _ = fetch_encoder(settings.similarity_model, "similarity_model")
        terms.append(Term("similarity", weight, against_reference(CosineSimilarity(folder).score)))
    if weight := settings.bertscore_weight:
        folder, _, layer = fetch_bertscore(metrics)
        terms.append(Term("bertscore", weight, against_reference(BertScore(folder, layer).score)))
    for name, weight, alike in (
        ("bleu1", settings.bleu1_weight, bleu1),
        ("rouge1", settings.rouge1_weight, Rouge("rouge1").score),
        ("rouge2", settings.rouge2_weight, Rouge("rouge2").score),
        ("rouge_l", settings.rouge_l_weight, Rouge("rougeL").score),
    ):
        if weight:
            terms.append(Term(name, weight, against_reference(alike)))
    return ReaderReward(tuple(terms), settings.reward_shift)
