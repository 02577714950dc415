"""Dialogues become prompt-reply pairs, in the ways that the paper's data loaders do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import assert_never

from corpora.dialogue import Corpus, CorpusError, Dialogue, Pair, PairSplits, Utterance
from corpora.splits import PARTS, Part, in_drawn_order, split_sessions
from search_spaces.errors import Problem
from search_spaces.spec import Loader, SplitSpec


def make_pairs(dialogue: Dialogue, loader: Loader) -> tuple[Pair, ...]:
    """A session's pairs, in the order of their replies.

    Args:
        dialogue: one session; no pair reaches beyond it.
        loader: `v1`, `v2` or `shift`.
    """
    match loader:
        case "v1":
            return tuple(_run_pairs(dialogue))
        case "v2":
            return tuple(_history_pairs(dialogue))
        case "shift":
            return tuple(_shifted_pairs(dialogue))
        case _:
            assert_never(loader)


def build_pairs(corpus: Corpus, loader: Loader, split: SplitSpec) -> PairSplits:
    """Every session's pairs, divided by session.

    Args:
        corpus: the sessions.
        loader: how utterances become pairs.
        split: fractions, seed, and the most pairs that are used of each part. A limit draws the
            same pairs each time, a lower limit some of those of a higher one; they stay in order.

    Raises:
        CorpusError: where a part would have no pairs.
    """
    parts = split_sessions([dialogue.session for dialogue in corpus.dialogues], split)
    pairs: dict[Part, list[Pair]] = {part: [] for part in PARTS}
    for dialogue in corpus.dialogues:
        if dialogue.session in parts:
            pairs[parts[dialogue.session]].extend(make_pairs(dialogue, loader))
    problems = [
        _empty_part(corpus, loader, part, list(parts.values()).count(part))
        for part in PARTS
        if not pairs[part]
    ]
    if problems:
        raise CorpusError(problems)
    return PairSplits(
        train=_drawn(pairs["train"], split.max_train_pairs, split.split_seed),
        valid=_drawn(pairs["valid"], split.max_valid_pairs, split.split_seed),
        test=_drawn(pairs["test"], split.max_test_pairs, split.split_seed),
    )


def shared_pairs(splits: PairSplits) -> int:
    """Test pairs whose prompt and reference stand in the training pairs too, word for word."""
    trained = {(pair.prompt, pair.reference) for pair in splits.train}
    return sum((pair.prompt, pair.reference) in trained for pair in splits.test)


def _run_pairs(dialogue: Dialogue) -> Iterable[Pair]:
    """V1: each run of patient utterances, and the run of therapist utterances that follows it.

    What the therapist says before the patient first speaks, and what the patient says after the
    therapist last does, is in no pair.
    """
    runs = [tuple(run) for _, run in groupby(dialogue.utterances, key=lambda said: said.speaker)]
    for asked, answered in pairwise(runs):
        if asked[0].speaker == "patient":
            yield Pair(
                pair_id=f"{dialogue.session}:{answered[0].turn}",
                session=dialogue.session,
                prompt=_joined(asked),
                reference=_joined(answered),
                act=answered[0].act,
            )


def _history_pairs(dialogue: Dialogue) -> Iterable[Pair]:
    """V2: each patient utterance with all before it, and the therapist's responses so far.

    The paper joins "the patient's utterances so far" and "the therapist's responses so far". A
    sample has to hold an answer to its last question, so the responses so far are read as those up
    to and including the run of therapist utterances that comes next. An opening by the therapist
    responds to nothing and is left out; so is a patient utterance that nothing answers. The act is
    that of the response that comes next, not of the session's first.
    """
    runs = [tuple(run) for _, run in groupby(dialogue.utterances, key=lambda said: said.speaker)]
    prompts: list[Utterance] = []
    responses: list[Utterance] = []
    for asked, answered in pairwise(runs):
        if asked[0].speaker == "therapist":
            continue
        responses.extend(answered)
        reference = _joined(responses)
        for said in asked:
            prompts.append(said)
            yield Pair(
                pair_id=f"{dialogue.session}:{said.turn}",
                session=dialogue.session,
                prompt=_joined(prompts),
                reference=reference,
                act=answered[0].act,
            )


def _shifted_pairs(dialogue: Dialogue) -> Iterable[Pair]:
    """Each utterance, and the next one as its reply, whoever speaks."""
    for said, answer in pairwise(dialogue.utterances):
        yield Pair(
            pair_id=f"{dialogue.session}:{answer.turn}",
            session=dialogue.session,
            prompt=said.text,
            reference=answer.text,
            act=answer.act,
        )


def _joined(utterances: Iterable[Utterance]) -> str:
    return " ".join(said.text for said in utterances)


def _drawn(pairs: Sequence[Pair], limit: int | None, seed: int) -> tuple[Pair, ...]:
    if limit is None or len(pairs) <= limit:
        return tuple(pairs)
    kept = set(in_drawn_order((pair.pair_id for pair in pairs), seed)[:limit])
    return tuple(pair for pair in pairs if pair.pair_id in kept)


def _empty_part(corpus: Corpus, loader: Loader, part: Part, sessions: int) -> Problem:
    if sessions == 0:
        return Problem(
            "split",
            f"{part}_fraction",
            "train, valid and test must have pairs each, but this part gets no session",
        )
    reason = (
        "no patient utterance is followed by the therapist"
        if loader != "shift"
        else "each has one utterance"
    )
    return Problem(
        corpus.source,
        part,
        f"train, valid and test must have pairs each, but loader {loader} finds none in this "
        f"part's sessions ({sessions}): {reason} there; another split_seed or a larger fraction may do",
    )
