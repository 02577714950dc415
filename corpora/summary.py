"""What a corpus holds, and what one loader and one split make of it."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

from corpora.acts import ACTS, UNKNOWN_ACT
from corpora.dialogue import Corpus
from corpora.loaders import build_pairs, make_pairs, shared_pairs
from corpora.privacy import IDENTIFIERS, find_identifiers
from corpora.splits import PARTS, split_sessions
from search_spaces.spec import Loader, SplitSpec


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
    identifiers = Counter[str]()
    for said in utterances:
        identifiers.update(find_identifiers(said.text))
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
        content_hash=corpus.content_hash,
        problems=[str(problem) for problem in corpus.problems],
    )


def _act_rank(act: str) -> tuple[int, str]:
    if act in ACTS:
        return list(ACTS).index(act), ""
    return len(ACTS) + (act == UNKNOWN_ACT), act
