"""Dialogue acts of replies: what the model predicts, and how well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from corpora.acts import UNKNOWN_ACT
from evaluators.causal_model import CausalModel
from evaluators.replies import Reply
from evaluators.stopping import stop_if_asked
from trainers.act_head import ActHead
from trainers.act_tokens import ActTokens
from trainers.progress import ShouldStop, never


@dataclass(frozen=True)
class ActScores:
    """How a model's predicted acts compare with the references'."""

    accuracy: float | None
    """Share of the pairs whose act was predicted, 0..1; None where no pair counts."""
    macro_f1: float | None
    """Mean over the acts in the references of each one's F1, 0..1; None where no pair counts."""
    unknown: int
    """Pairs left out: their reference has no act, or one that no training reply had."""

    def named(self, part: str) -> dict[str, float]:
        """The scores that there are, as results name them.

        Args:
            part: `valid` or `test`.
        """
        values = {"act_accuracy": self.accuracy, "act_macro_f1": self.macro_f1}
        return {f"{part}/{name}": v for name, v in values.items() if v is not None}


@torch.inference_mode()
def predict_acts(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    acts: ActTokens | ActHead,
    should_stop: ShouldStop = never,
) -> list[str]:
    """The most probable act of the reply to each prompt, of all acts the model knows.

    It is the act whose token is the most probable, or which the act head scores highest.

    Prompts are read one at a time: no prediction depends on which others there are.

    Args:
        model: that was tuned with these acts.
        prompts: token ids, each of any length above 0.
        acts: the model's.
        should_stop: asked before each prompt.

    Raises:
        StoppedError: `should_stop` said so.
    """
    names, score = _scoring(model, acts)
    predicted = []
    for prompt in prompts:
        stop_if_asked(should_stop)
        predicted.append(names[int(score(prompt).argmax())])
    return predicted


def _scoring(
    model: CausalModel, acts: ActTokens | ActHead
) -> tuple[Sequence[str], Callable[[Sequence[int]], torch.Tensor]]:
    """Names of A acts, and what gives their scores (A,) from a prompt's token ids."""
    if isinstance(acts, ActHead):
        head = acts
        return head.acts, lambda prompt: head(model.last_state(prompt))
    names = list(acts.ids)
    rows = torch.tensor([acts.ids[name] for name in names], device=model.device)
    return names, lambda prompt: model.first_scores(prompt)[rows]


def score_acts(replies: Sequence[Reply], acts: ActTokens | ActHead) -> ActScores:
    """Accuracy and macro-F1 of the predicted acts, each pair counted once.

    Args:
        replies: of one part, any beam widths; the prediction is the same at each.
        acts: the model's.
    """
    once = {reply.pair_id: reply for reply in replies}.values()
    pairs = [(reply.predicted_act, acts.known(reply.act)) for reply in once]
    counted = [(guess, true) for guess, true in pairs if true != UNKNOWN_ACT]
    unknown = len(pairs) - len(counted)
    if not counted:
        return ActScores(None, None, unknown)
    hits = Counter(true for guess, true in counted if guess == true)
    guessed = Counter(guess for guess, _ in counted)
    wanted = Counter(true for _, true in counted)
    # F1 = 2 TP / (2 TP + FP + FN), whose last two are what was guessed or wanted in vain.
    f1 = [2 * hits[act] / (guessed[act] + wanted[act]) for act in wanted]
    return ActScores(hits.total() / len(counted), fmean(f1), unknown)
