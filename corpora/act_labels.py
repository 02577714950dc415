"""Which dialogue acts the replies of a trial have."""

from __future__ import annotations

from collections.abc import Iterable

from corpora.acts import UNKNOWN_ACT
from corpora.dialogue import CorpusError, Pair, PairSplits
from search_spaces.errors import one_problem
from search_spaces.spec import DialogueActSettings, ReaderSettings, TrialSpec


def learns_acts(spec: TrialSpec) -> bool:
    """Whether a trial's model learns the acts of the replies, and so predicts them.

    Args:
        spec: the trial.
    """
    match spec.method:
        case DialogueActSettings(acts=acts):
            return acts != "none"
        case _:
            return isinstance(spec.method, ReaderSettings)


def known_acts(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """The distinct acts of the pairs' replies, sorted; `unknown` is none of them.

    Args:
        pairs: with labels of any kind: HOPE's twelve, AnnoMI's behaviours, a column's own.
    """
    return tuple(sorted({pair.act for pair in pairs if pair.act} - {UNKNOWN_ACT}))


def require_acts(corpus: str, pairs: PairSplits) -> tuple[str, ...]:
    """The acts of the training replies.

    Args:
        corpus: its name, for the message.
        pairs: the trial's.

    Raises:
        CorpusError: not one training reply has a known act.
    """
    acts = known_acts(pairs.train)
    if not acts:
        raise CorpusError(
            one_problem(
                corpus,
                "acts",
                "dialogue_act and reader must have dialogue acts to learn from, but none of the "
                f"{len(pairs.train)} training replies has a known one. HOPE and AnnoMI files "
                "have acts, and so has any CSV or JSONL file whose `columns` name one "
                "(`columns: {..., act: NAME}`); dialogue_act with `acts: none` needs none",
            )
        )
    return acts
