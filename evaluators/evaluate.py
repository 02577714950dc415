"""A tuned model's replies and scores on the validation and test pairs of a trial."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpora.dialogue import PairSplits
from evaluators.decoding import generate
from evaluators.replies import Reply
from evaluators.score import Scores, StreamingScorer
from search_spaces.atomic import write_atomically
from search_spaces.spec import TrialSpec
from trainers.tuned import TunedModel


@dataclass(frozen=True)
class Evaluation:
    """Replies and scores of one trial, validation and test apart."""

    parts: dict[str, tuple[tuple[Reply, ...], Scores]]
    """`valid` and `test`: replies by (beam, pair), and their scores."""

    @property
    def scores(self) -> dict[str, float]:
        """Means as results name them, e.g. `test/rouge1_beam4`."""
        return {
            key: value
            for part, (_, scores) in self.parts.items()
            for key, value in scores.named(part).items()
        }

    @property
    def scored_test_pairs(self) -> int:
        """Test pairs that were scored; fewer than there are where the protocol takes only some."""
        return len({reply.pair_id for reply in self.parts["test"][0]})

    @property
    def checks(self) -> dict[str, int]:
        """Counts over the test replies that hint at a model that does not listen."""
        return self.parts["test"][1].checks

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
                    **row,
                },
                ensure_ascii=False,
            )
            for part, (replies, scores) in self.parts.items()
            for reply, row in zip(replies, scores.rows, strict=True)
        ]
        write_atomically(file, "".join(f"{line}\n" for line in lines))


def evaluate(
    tuned: TunedModel, pairs: PairSplits, spec: TrialSpec, scorer: StreamingScorer
) -> Evaluation:
    """Generate and score; words are scored while later replies are generated.

    Args:
        tuned: the model.
        pairs: of the trial; training pairs are not read.
        spec: the trial.
        scorer: of the trial's metrics; may have served other trials before.

    Raises:
        EvaluationError: the reply length leaves no room for a prompt, or a metric cannot be had.
        torch.OutOfMemoryError: a single prompt does not fit the GPU.
    """
    todo = {
        "valid": (pairs.valid, spec.decoding.valid_beams),
        "test": (pairs.test, spec.decoding.beams),
    }
    parts = {}
    for part, (some, beams) in todo.items():
        replies = generate(
            tuned,
            some,
            spec.decoding,
            beams,
            spec.training.max_length,
            spec.seed,
            on_replies=scorer.add,
        )
        parts[part] = (tuple(replies), scorer.finish(replies))
    return Evaluation(parts)
