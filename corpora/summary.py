"""What a corpus holds, and what one loader and one split make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypedDict

from corpora.acts import ACTS, UNKNOWN_ACT
from corpora.dialogue import Corpus
from corpora.identifiers import IDENTIFIERS
from corpora.loaders import build_pairs, make_pairs, shared_pairs
from corpora.names import names_note
from corpora.privacy import find_identifiers, redact
from corpora.splits import PARTS, split_sessions
from search_spaces.spec import Loader, SplitSpec

MOST_PLACES = 50
"""Places of identifiers that are listed; the rest are counted."""


class IdentifierPlace(TypedDict):
    """Where something stands that looks as if it could identify somebody; never what it says."""

    kind: str
    session: str
    """The session's name, redacted like every text."""
    turn: int | None
    """The utterance's turn; None where the session's own name is meant."""
    count: int


class CorpusSummary(TypedDict):
    """Plain values, ready for JSON."""

    format: str
    sessions: int
    utterances: int
    speakers: dict[str, int]
    """Utterances of each side."""
    acts: dict[str, int]
    """Utterances of each act: HOPE's twelve in their order, then others by name, then unknown."""
    loader: str
    pairs: int
    """Pairs of all sessions, whatever the split uses of them."""
    splits: dict[str, int]
    """Pairs of each part."""
    split_sessions: dict[str, int]
    """Sessions of each part."""
    shared_pairs: int
    """Test pairs that are in the training pairs too."""
    identifiers: dict[str, int]
    """What looks as if it could identify somebody, by kind."""
    identifier_places: list[IdentifierPlace]
    """The first places of those, in the corpus's order."""
    identifier_places_left_out: int
    """Places beyond those."""
    names: str
    """Whether people's names were looked for, in words."""
    content_hash: str
    problems: list[str]


def summarise(corpus: Corpus, loader: Loader, split: SplitSpec) -> CorpusSummary:
    """The corpus in figures.

    Args:
        corpus: what was read.
        loader: how utterances become pairs.
        split: how sessions are divided.

    Raises:
        CorpusError: where a part of the split has no pairs.
    """
    utterances = [said for dialogue in corpus.dialogues for said in dialogue.utterances]
    speakers = Counter(said.speaker for said in utterances)
    acts = Counter(said.act for said in utterances if said.act is not None)
    places = list(_identifier_places(corpus))
    identifiers = Counter[str]()
    for place in places:
        identifiers[place["kind"]] += place["count"]
    pairs = build_pairs(corpus, loader, split)
    parts = Counter(
        split_sessions([dialogue.session for dialogue in corpus.dialogues], split).values()
    )
    return CorpusSummary(
        format=corpus.format,
        sessions=len(corpus.dialogues),
        utterances=len(utterances),
        speakers={"patient": speakers["patient"], "therapist": speakers["therapist"]},
        acts={act: acts[act] for act in sorted(acts, key=_act_rank)},
        loader=loader,
        pairs=sum(len(make_pairs(dialogue, loader)) for dialogue in corpus.dialogues),
        splits={"train": len(pairs.train), "valid": len(pairs.valid), "test": len(pairs.test)},
        split_sessions={part: parts[part] for part in PARTS},
        shared_pairs=shared_pairs(pairs),
        identifiers={kind: identifiers[kind] for kind in IDENTIFIERS if identifiers[kind]},
        identifier_places=places[:MOST_PLACES],
        identifier_places_left_out=max(len(places) - MOST_PLACES, 0),
        names=names_note(),
        content_hash=corpus.content_hash,
        problems=[str(problem) for problem in corpus.problems],
    )


def _identifier_places(corpus: Corpus) -> Iterator[IdentifierPlace]:
    for dialogue in corpus.dialogues:
        session = redact(dialogue.session, names=False)
        texts = [
            (None, dialogue.session),
            *((said.turn, said.text) for said in dialogue.utterances),
        ]
        for turn, text in texts:
            for kind, count in find_identifiers(text).items():
                yield IdentifierPlace(kind=kind, session=session, turn=turn, count=count)


def _act_rank(act: str) -> tuple[int, str]:
    if act in ACTS:
        return list(ACTS).index(act), ""
    return len(ACTS) + (act == UNKNOWN_ACT), act
