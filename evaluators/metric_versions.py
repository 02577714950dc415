"""Which implementation of each metric gives the numbers; part of a trial's identity."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

ROUGE_NAMES: Final = ("rouge1", "rouge2", "rougeL")
BERTSCORE_NAMES: Final = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
WORD_METRIC_NAMES: Final = (*ROUGE_NAMES, "meteor")
METRIC_NAMES: Final = (*WORD_METRIC_NAMES, *BERTSCORE_NAMES)
"""Every metric, in the order of tables: ROUGE F x 100, METEOR 0..1, BERTScore 0..1."""

_DECODING_REVISION = 1
_ROUGE_REVISION = 1
_METEOR_REVISION = 1
_BERTSCORE_REVISION = 1
_ACTS_REVISION = 1
"""To be raised when our own code changes what a metric, or a reply, comes out as."""

METRIC_VERSIONS: dict[str, str] = {
    "decoding": f"r{_DECODING_REVISION}",
    "rouge": f"rouge-score {version('rouge-score')} r{_ROUGE_REVISION}",
    "meteor": f"nltk {version('nltk')} wordnet 3.0 r{_METEOR_REVISION}",
    "bertscore": f"bert-score {version('bert-score')} r{_BERTSCORE_REVISION}",
}
"""Metric family to the package and revision that compute it."""

ACT_VERSIONS: dict[str, str] = {"acts": f"r{_ACTS_REVISION}"}
"""Of act accuracy and macro-F1, for trials that predict dialogue acts."""
