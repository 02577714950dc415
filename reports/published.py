"""The numbers that the study printed, as data, with what is needed to find our row for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedParameters:
    """A row of the study's parameter table (supervised fine-tuning of GPT-2)."""

    size: str
    """`medium` or `large`."""
    loader: str
    learning_rate: float
    batch_size: int | None
    """Stated for the study's winner alone."""
    rouge1: tuple[float, float, float]
    """ROUGE-1 at beams 1, 2 and 4."""
    bertscore_f1: float
    bertscore_recall: float
    bertscore_precision: float

    def value(self, metric: str) -> float | None:
        """The printed number for a metric's key, if the study printed one."""
        return {
            **_by_beam(self.rouge1),
            "bertscore_f1": self.bertscore_f1,
            "bertscore_recall": self.bertscore_recall,
            "bertscore_precision": self.bertscore_precision,
        }.get(metric)


@dataclass(frozen=True)
class PublishedEvaluation:
    """A row of the study's evaluation table."""

    name: str
    """As the study calls it."""
    method: str
    """Our kind of method."""
    loader: str | None
    """Loader that the row is about; absent where the study does not say."""
    rouge1: tuple[float, float, float]
    bertscore_f1: float
    meteor: float

    def value(self, metric: str) -> float | None:
        """The printed number for a metric's key, if the study printed one."""
        return {
            **_by_beam(self.rouge1),
            "bertscore_f1": self.bertscore_f1,
            "meteor": self.meteor,
        }.get(metric)


def _by_beam(rouge1: tuple[float, float, float]) -> dict[str, float]:
    return {f"rouge1_beam{beam}": value for beam, value in zip((1, 2, 4), rouge1, strict=True)}


PARAMETERS = (
    PublishedParameters("medium", "v1", 1e-4, None, (35.504, 29.544, 29.620), 0.782, 0.771, 0.793),
    PublishedParameters("large", "v1", 1e-4, None, (36.027, 30.667, 28.650), 0.783, 0.773, 0.793),
    PublishedParameters("large", "v1", 1e-5, 1, (36.332, 30.601, 27.820), 0.780, 0.767, 0.796),
    PublishedParameters("large", "v2", 1e-4, None, (21.718, 11.062, 7.443), 0.740, 0.72337, 0.759),
)
"""The study's parameter table; its stated winner is the row with a batch size."""

EVALUATION = (
    PublishedEvaluation("GPT2", "base", None, (10.61, 6.235, 5.135), 0.641, 0.0441),
    PublishedEvaluation("ChatMGL", "chatmgl", None, (4.655, 2.419, 2.154), 0.620, 0.0311),
    PublishedEvaluation("Delta", "delta", None, (12.249, 7.006, 5.624), 0.635, 0.0499),
    PublishedEvaluation("SFTT_V1", "sft", "v1", (10.765, 5.384, 3.511), 0.689, 0.0947),
    PublishedEvaluation("SFTT_V2", "sft", "v2", (11.509, 5.148, 3.161), 0.687, 0.0772),
)
"""The study's evaluation table."""
