"""What a corpus is once it has been read, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from search_spaces.errors import InputError, Problem

Speaker = Literal["patient", "therapist"]


class CorpusError(InputError, ValueError):
    """A corpus cannot be read, or cannot be used for what was asked."""


@dataclass(frozen=True)
class Utterance:
    """What one person says before the next utterance begins."""

    turn: int
    """Position in the session, as the file numbers it."""
    speaker: Speaker
    text: str
    act: str | None = None
    """Canonical dialogue-act label; absent where the file has none."""


@dataclass(frozen=True)
class Dialogue:
    """One session, in speaking order."""

    session: str
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True)
class Corpus:
    """Every session of a corpus, in session order."""

    source: str
    """`sample`, or the path as it was given."""
    format: str
    """`hope`, `annomi` or `columns`."""
    dialogues: tuple[Dialogue, ...]
    content_hash: str
    """SHA-256 over sessions, turns, speakers, acts and texts: equal content, equal hash, wherever the files lie."""
    problems: tuple[Problem, ...] = ()
    """What was odd but usable: stray acts, repaired orders, skipped empty rows."""


@dataclass(frozen=True)
class Pair:
    """One prompt and the reply that the corpus gives to it."""

    pair_id: str
    """`<session>:<turn>`, unique within a loader: the reply's first turn, in v2 the patient's last."""
    session: str
    prompt: str
    reference: str
    act: str | None = None
    """Dialogue act of the reply's first utterance; in v2, of the newest response's."""


@dataclass(frozen=True)
class PairSplits:
    """Pairs divided by session: no session stands in two parts."""

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]
