"""What every data loader promises, whatever it makes of a session."""

from __future__ import annotations

import csv
import json
import tempfile
from itertools import groupby, pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from corpora.dialogue import Corpus, CorpusError, Dialogue, Pair, PairSplits, Utterance
from corpora.loaders import build_pairs, make_pairs
from corpora.read import read_corpus
from search_spaces.spec import ColumnMapping, CorpusSpec, Loader, SplitSpec

LOADERS: tuple[Loader, ...] = get_args(Loader)

every_loader = pytest.mark.parametrize("loader", LOADERS)


@st.composite
def dialogues(draw: st.DrawFn, fewest: int = 1, shortest: int = 0) -> tuple[Dialogue, ...]:
    """Up to eight sessions; each word tells its session and its place, so it stands nowhere else."""
    sessions = []
    for session in range(draw(st.integers(fewest, 8))):
        speakers = draw(
            st.lists(st.sampled_from(["patient", "therapist"]), min_size=shortest, max_size=12)
        )
        turns = sorted(draw(st.sets(st.integers(0, 40), min_size=len(speakers), max_size=40)))
        sessions.append(
            Dialogue(
                str(session),
                tuple(
                    Utterance(
                        turn=turn, speaker=speaker, text=f"s{session}t{turn}a s{session}t{turn}b"
                    )
                    for turn, speaker in zip(turns, speakers, strict=False)
                ),
            )
        )
    return tuple(sessions)


def words(dialogue: Dialogue) -> list[str]:
    return " ".join(said.text for said in dialogue.utterances).split()


def replied_runs(dialogue: Dialogue) -> list[list[Utterance]]:
    """Patient runs that a therapist run follows, found without the loaders' own code."""
    runs = [list(run) for _, run in groupby(dialogue.utterances, lambda said: said.speaker)]
    return [
        run
        for index, run in enumerate(runs)
        if run[0].speaker == "patient" and index + 1 < len(runs)
    ]


def test_all_three_are_here() -> None:
    assert set(LOADERS) == {"v1", "v2", "shift"}


@every_loader
@given(sessions=dialogues())
def test_no_pair_reaches_beyond_its_session(loader: Loader, sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        said = set(words(dialogue))
        for pair in make_pairs(dialogue, loader):
            assert pair.session == dialogue.session
            assert set(pair.prompt.split()) <= said
            assert set(pair.reference.split()) <= said


@every_loader
@given(sessions=dialogues())
def test_words_keep_their_order(loader: Loader, sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        place = {word: index for index, word in enumerate(words(dialogue))}
        for pair in make_pairs(dialogue, loader):
            for text in (pair.prompt, pair.reference):
                places = [place[word] for word in text.split()]
                assert places
                assert places == sorted(set(places))


@every_loader
@given(sessions=dialogues())
def test_the_reply_ends_after_the_prompt(loader: Loader, sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        place = {word: index for index, word in enumerate(words(dialogue))}
        for pair in make_pairs(dialogue, loader):
            assert place[pair.reference.split()[-1]] > place[pair.prompt.split()[-1]]


@every_loader
@given(sessions=dialogues())
def test_pairs_are_named_once_and_come_in_order(
    loader: Loader, sessions: tuple[Dialogue, ...]
) -> None:
    ids = [pair.pair_id for dialogue in sessions for pair in make_pairs(dialogue, loader)]
    assert len(set(ids)) == len(ids)
    keys = [tuple(map(int, pair_id.split(":"))) for pair_id in ids]
    assert keys == sorted(keys)


@every_loader
@given(sessions=dialogues(fewest=4, shortest=5), split_seed=st.integers(0, 3))
@settings(max_examples=60)
def test_no_session_stands_in_two_parts(
    loader: Loader, sessions: tuple[Dialogue, ...], split_seed: int
) -> None:
    corpus = Corpus(source="drawn", format="hope", dialogues=sessions, content_hash="")
    split = SplitSpec(
        train_fraction=0.5, valid_fraction=0.25, test_fraction=0.25, split_seed=split_seed
    )
    try:
        splits = build_pairs(corpus, loader, split)
    except CorpusError:
        reject()  # a part without pairs, which other tests are about
    parts = [{pair.session for pair in part} for part in (splits.train, splits.valid, splits.test)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    shuffled = Corpus(source="x", format="hope", dialogues=sessions[::-1], content_hash="")
    again = build_pairs(shuffled, loader, split)
    assert set(again.train) == set(splits.train)
    assert set(again.test) == set(splits.test)
    every = {pair for dialogue in sessions for pair in make_pairs(dialogue, loader)}
    assert {*splits.train, *splits.valid, *splits.test} == every


@every_loader
def test_the_same_corpus_gives_the_same_pairs(loader: Loader) -> None:
    first, second = (
        build_pairs(read_corpus(CorpusSpec()), loader, SplitSpec(max_train_pairs=50))
        for _ in range(2)
    )
    assert first == second


@given(sessions=dialogues())
def test_v1_leaves_no_answered_run_out(sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        prompts = [pair.prompt for pair in make_pairs(dialogue, "v1")]
        assert prompts == [" ".join(said.text for said in run) for run in replied_runs(dialogue)]


@given(sessions=dialogues())
def test_v2_has_a_sample_for_each_answered_utterance(sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        answered = [said for run in replied_runs(dialogue) for said in run]
        pairs = make_pairs(dialogue, "v2")
        assert [pair.pair_id for pair in pairs] == [
            f"{dialogue.session}:{said.turn}" for said in answered
        ]
        for before, after in pairwise(pairs):
            assert after.prompt.startswith(before.prompt + " ")
            assert after.reference.startswith(before.reference)
        short = make_pairs(dialogue, "v1")
        assert len(pairs) >= len(short)
        if short:
            assert pairs[-1].reference == " ".join(pair.reference for pair in short)


@given(sessions=dialogues())
def test_shift_answers_every_utterance_but_the_last(sessions: tuple[Dialogue, ...]) -> None:
    for dialogue in sessions:
        pairs = make_pairs(dialogue, "shift")
        assert [pair.prompt for pair in pairs] == [said.text for said in dialogue.utterances[:-1]]
        assert [pair.reference for pair in pairs] == [said.text for said in dialogue.utterances[1:]]


def test_on_the_sample_v2_gives_more_and_longer_texts_than_v1() -> None:
    corpus = read_corpus(CorpusSpec())

    def mean_words(pairs: list[Pair]) -> float:
        return sum(len((pair.prompt + " " + pair.reference).split()) for pair in pairs) / len(pairs)

    v1 = [pair for dialogue in corpus.dialogues for pair in make_pairs(dialogue, "v1")]
    v2 = [pair for dialogue in corpus.dialogues for pair in make_pairs(dialogue, "v2")]
    assert len(v2) > len(v1)
    assert mean_words(v2) > 2 * mean_words(v1)


WORDS = st.sampled_from(["yes", "no", "Yes", "mm-hm", "é", "\u4f60", "'", '"', ",", ";", "\\", "#"])
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
"""Utterances that say the same again and again, with what files are cut at in them."""


@st.composite
def repetitive_dialogues(draw: st.DrawFn, fewest: int = 1) -> tuple[Dialogue, ...]:
    said = st.tuples(st.sampled_from(["patient", "therapist"]), TEXTS)
    sessions = draw(st.lists(st.lists(said, min_size=1, max_size=9), min_size=fewest, max_size=6))
    return tuple(
        Dialogue(
            str(session),
            tuple(
                Utterance(turn=turn, speaker=speaker, text=text, act="id")
                for turn, (speaker, text) in enumerate(utterances)
            ),
        )
        for session, utterances in enumerate(sessions)
    )


def accounted(dialogue: Dialogue) -> list[Utterance]:
    """A session without what v1 and v2 leave out: the therapist's opening, the patient's last run."""
    kept = list(dialogue.utterances)
    while kept and kept[0].speaker == "therapist":
        del kept[0]
    while kept and kept[-1].speaker == "patient":
        del kept[-1]
    return kept


def texts_of(utterances: list[Utterance], speaker: str) -> str:
    return " ".join(said.text for said in utterances if said.speaker == speaker)


@settings(derandomize=True)
@given(sessions=repetitive_dialogues())
def test_every_utterance_is_accounted_for_and_none_invented(
    sessions: tuple[Dialogue, ...],
) -> None:
    for dialogue in sessions:
        kept = accounted(dialogue)
        short = make_pairs(dialogue, "v1")
        texts = [text for pair in short for text in (pair.prompt, pair.reference)]
        assert " ".join(texts) == " ".join(said.text for said in kept)
        long = make_pairs(dialogue, "v2")
        assert len(long) == sum(said.speaker == "patient" for said in kept)
        if long:
            assert long[-1].prompt == texts_of(kept, "patient")
            assert long[-1].reference == texts_of(kept, "therapist")
        shifted = make_pairs(dialogue, "shift")
        first = [pair.prompt for pair in shifted[:1]] or [dialogue.utterances[0].text]
        assert first + [pair.reference for pair in shifted] == [
            said.text for said in dialogue.utterances
        ]


@every_loader
@settings(max_examples=60, derandomize=True)
@given(
    sessions=repetitive_dialogues(fewest=4),
    limit=st.integers(1, 6),
    fractions=st.sampled_from([(0.5, 0.25, 0.25), (0.4, 0.2, 0.2), (0.8, 0.1, 0.1)]),
)
def test_limits_draw_from_the_parts_and_change_no_part(
    loader: Loader,
    sessions: tuple[Dialogue, ...],
    limit: int,
    fractions: tuple[float, float, float],
) -> None:
    corpus = Corpus(source="drawn", format="hope", dialogues=sessions, content_hash="")

    def split(most: int | None) -> PairSplits:
        train, valid, test = fractions
        limits = {"max_train_pairs": most, "max_valid_pairs": most, "max_test_pairs": most}
        shares = {"train_fraction": train, "valid_fraction": valid, "test_fraction": test}
        return build_pairs(corpus, loader, SplitSpec(**shares, **limits))

    try:
        whole = split(None)
    except CorpusError:
        reject()  # a part without pairs, which other tests are about
    fewer, fewest = split(limit + 1), split(limit)
    for part in ("train", "valid", "test"):
        every, some, least = (getattr(splits, part) for splits in (whole, fewer, fewest))
        assert len(least) == min(limit, len(every))
        assert [pair for pair in every if pair in set(some)] == list(some)
        assert set(least) <= set(some) <= set(every)
    in_parts = [{pair.session for pair in part} for part in (whole.train, whole.valid, whole.test)]
    assert sum(map(len, in_parts)) == len(set.union(*in_parts))
    assert set.union(*in_parts) <= {dialogue.session for dialogue in sessions}


def write_hope(folder: Path, sessions: tuple[Dialogue, ...], *, merged: bool) -> None:
    """As the corpus is published: a file a session, or one that is sorted as strings."""
    rows = [
        (
            f"{dialogue.session}_{said.turn}",
            "P" if said.speaker == "patient" else "T",
            said.text,
            said.act,
        )
        for dialogue in sessions
        for said in dialogue.utterances
    ]
    for name in ["all"] if merged else [dialogue.session for dialogue in sessions]:
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["ID", "Type", "Utterance", "Dialog_Act"])
            writer.writerows(row for row in sorted(rows) if merged or row[0].startswith(f"{name}_"))


def write_lines(folder: Path, sessions: tuple[Dialogue, ...]) -> None:
    lines = [
        json.dumps(
            {"s": dialogue.session, "w": said.speaker, "t": said.text, "n": said.turn, "a": "id"}
        )
        for dialogue in sessions
        for said in dialogue.utterances
    ]
    (folder / "all.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")


LINE_COLUMNS = ColumnMapping(session="s", speaker="w", text="t", turn="n", act="a")


@pytest.mark.parametrize("layout", ["a file a session", "merged", "lines"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(sessions=repetitive_dialogues(fewest=3))
def test_what_was_written_is_what_is_read(layout: str, sessions: tuple[Dialogue, ...]) -> None:
    if len({said.speaker for dialogue in sessions for said in dialogue.utterances}) < 2:
        reject()  # one side only, which is refused
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if layout == "lines":
            write_lines(folder, sessions)
        else:
            write_hope(folder, sessions, merged=layout == "merged")
        columns = LINE_COLUMNS if layout == "lines" else None
        corpus = read_corpus(CorpusSpec(corpus=scratch, columns=columns))
    assert corpus.dialogues == sessions
