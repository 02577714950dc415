"""Two floors that need no model: what any reply should beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from corpora.dialogue import Pair
from evaluators.chatmgl_protocol import CHATMGL_TEST_PAIRS
from evaluators.metric_versions import METRIC_NAMES
from evaluators.replies import reply_to_pair
from evaluators.score import StreamingScorer, score
from search_spaces.spec import DecodingSpec, MetricsSpec

FIXED_REPLY: Final = "Okay. And how do you feel about that?"
"""One sentence that suits any prompt a little."""

FLOORS: Final[dict[str, Callable[[Pair], str]]] = {
    "echo": lambda pair: pair.prompt,
    "fixed": lambda pair: FIXED_REPLY,
}
"""Floor to its reply: the patient's own words, and the fixed sentence."""


def floor_scores(
    pairs: Sequence[Pair],
    metrics: MetricsSpec,
    decoding: DecodingSpec | None = None,
    scorer: StreamingScorer | None = None,
) -> dict[str, dict[str, float]]:
    """Each floor's scores, named as a trial's test scores are.

    A floor does not depend on the beam width: it has the same value under each.

    Args:
        pairs: test pairs.
        metrics: as for the trials beside which the floors stand.
        decoding: beam widths to name, and the protocol: `chatmgl` scores the first 60 pairs, with
            the prompt in front. Absent: the defaults.
        scorer: one to use again, of the same metrics.

    Returns:
        Floor to `test/<metric>` and `test/<metric>_beam<width>` to mean.
    """
    decoding = decoding or DecodingSpec()
    if decoding.protocol == "chatmgl":
        pairs = pairs[:CHATMGL_TEST_PAIRS]
    floors: dict[str, dict[str, float]] = {}
    for floor, words in FLOORS.items():
        replies = [reply_to_pair(pair, 1, words(pair), decoding.protocol) for pair in pairs]
        means = score(replies, metrics, scorer).means.get(1, {})
        floors[floor] = {
            f"test/{metric}{suffix}": means[metric]
            for suffix in ("", *(f"_beam{width}" for width in decoding.beams))
            for metric in METRIC_NAMES
            if metric in means
        }
    return floors
