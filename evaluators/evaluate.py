"""A tuned model's replies and scores on the validation and test pairs of a trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from corpora.dialogue import Pair, PairSplits
from evaluators.decoding import generate
from evaluators.dialogue_acts import ActScores, score_acts
from evaluators.partial import PartialReplies
from evaluators.replies import Reply
from evaluators.score import Scores, StreamingScorer
from search_spaces.atomic import write_atomically
from search_spaces.spec import TrialSpec
from trainers.progress import ShouldStop, never
from trainers.tuned import TunedModel


@dataclass(frozen=True)
class Evaluation:
    """Replies and scores of one trial, validation and test apart."""

    parts: dict[str, tuple[tuple[Reply, ...], Scores]]
    """`valid` and `test`: replies by (beam, pair), and their scores."""
    acts: dict[str, ActScores] = field(default_factory=dict)
    """`valid` and `test`: how well acts were predicted; empty where the model predicts none."""
    adjusted: dict[str, int] = field(default_factory=dict)
    """`eval_batch_size` where the trial's own ran out of memory; else empty. Replies do not depend
    on it."""

    @property
    def scores(self) -> dict[str, float]:
        """Means as results name them, e.g. `test/rouge1_beam4`."""
        return {
            key: value
            for part, (_, scores) in self.parts.items()
            for key, value in scores.named(part).items()
        } | {
            key: value
            for part, acts in self.acts.items()
            for key, value in acts.named(part).items()
        }

    @property
    def scored_test_pairs(self) -> int:
        """Test pairs that were scored; fewer than there are where the protocol takes only some."""
        return len({reply.pair_id for reply in self.parts["test"][0]})

    @property
    def checks(self) -> dict[str, int]:
        """Counts over the test replies that hint at a model that does not listen.

        Where acts are predicted, also the test pairs whose act is unknown.
        """
        unknown = {"unknown_acts": self.acts["test"].unknown} if self.acts else {}
        return self.parts["test"][1].checks | unknown

    @property
    def encoder(self) -> dict[str, Any] | None:
        """Which encoder and layer BERTScore was computed with; None where it was left out."""
        encoder = self.parts["test"][1].encoder
        if encoder is None:
            return None
        return {"model": encoder.name, "layer": encoder.layer, "fingerprint": encoder.fingerprint}

    def write_replies(self, file: Path) -> None:
        """Write one JSON object a reply and line, with the reply's own scores.

        Args:
            file: `replies.jsonl` in the trial's folder.
        """
        lines = [
            json.dumps(
                {
                    "part": part,
                    "beam": reply.beam,
                    "pair_id": reply.pair_id,
                    "prompt": reply.prompt,
                    "model_input": reply.model_input,
                    "reference": reply.reference,
                    "reply": reply.reply,
                    "act": reply.act,
                    **_predicted(reply),
                    **row,
                },
                ensure_ascii=False,
            )
            for part, (replies, scores) in self.parts.items()
            for reply, row in zip(replies, scores.rows, strict=True)
        ]
        write_atomically(file, "".join(f"{line}\n" for line in lines))


def _predicted(reply: Reply) -> dict[str, str]:
    return {} if reply.predicted_act is None else {"predicted_act": reply.predicted_act}


def parts_of(
    spec: TrialSpec, pairs: PairSplits
) -> dict[str, tuple[Sequence[Pair], tuple[int, ...]]]:
    """What is decoded of a trial: pairs and beam widths of `valid` and of `test`.

    Args:
        spec: the trial.
        pairs: its pairs.
    """
    return {
        "valid": (pairs.valid, spec.decoding.valid_beams),
        "test": (pairs.test, spec.decoding.beams),
    }


def evaluate(
    tuned: TunedModel,
    pairs: PairSplits,
    spec: TrialSpec,
    scorer: StreamingScorer,
    *,
    partial: Path | None = None,
    key: str = "",
    smaller: bool = False,
    should_stop: ShouldStop = never,
) -> Evaluation:
    """Generate and score; words are scored while later replies are generated.

    Args:
        tuned: the model.
        pairs: of the trial; training pairs are not read.
        spec: the trial.
        scorer: of the trial's metrics; may have served other trials before.
        partial: where replies are kept as they settle, and taken from where an evaluation under
            the same key was interrupted; the caller removes it once the result is in place.
        key: of the tuned weights and the trial: equal keys mean equal replies.
        smaller: decode half as many prompts at once as the evaluation before, which was killed
            because memory ran out.
        should_stop: asked at every token, and between pieces of scoring.

    Raises:
        EvaluationError: the reply length leaves no room for a prompt, or a metric cannot be had or
            is not finite.
        StoppedError: `should_stop` said so; `partial` holds what had settled.
        MemoryError, RuntimeError: a single prompt does not fit the memory of the host, or of the
            GPU (`torch.OutOfMemoryError`); `is_out_of_memory` knows them.
        OSError: `partial` cannot be written.
    """
    parts = {}
    acts = {}
    with closing(PartialReplies(partial, key)) as settled:
        if smaller:
            before = settled.batch_size or spec.decoding.eval_batch_size
            settled.note_batch_size(max(1, before // 2))
        for part, (some, beams) in parts_of(spec, pairs).items():

            def take(replies: list[Reply], part: str = part) -> None:
                settled.add(part, replies)
                scorer.add(replies)

            batch_size = settled.batch_size or spec.decoding.eval_batch_size
            replies = generate(
                tuned,
                some,
                replace(spec.decoding, eval_batch_size=batch_size),
                beams,
                spec.training.max_length,
                spec.seed,
                on_replies=take,
                known=settled.replies(part),
                should_stop=should_stop,
                on_batch_size=settled.note_batch_size,
            )
            parts[part] = (tuple(replies), scorer.finish(replies, should_stop))
            if tuned.acts is not None:
                acts[part] = score_acts(replies, tuned.acts)
        adjusted = {"eval_batch_size": settled.batch_size} if settled.batch_size else {}
    return Evaluation(parts, acts, adjusted)
