from __future__ import annotations

import pytest

from corpora.dialogue import Corpus, CorpusError, Dialogue, Pair, PairSplits, Speaker, Utterance
from corpora.loaders import build_pairs, make_pairs, shared_pairs
from search_spaces.spec import SplitSpec


def dialogue(session: str, *lines: str) -> Dialogue:
    """A session from lines such as `P hello`, the turn being the act as well."""
    speakers: dict[str, Speaker] = {"P": "patient", "T": "therapist"}
    return Dialogue(
        session,
        tuple(
            Utterance(turn=turn, speaker=speakers[line[0]], text=line[2:], act=f"act{turn}")
            for turn, line in enumerate(lines)
        ),
    )


def corpus(*dialogues: Dialogue) -> Corpus:
    return Corpus(source="small.csv", format="hope", dialogues=dialogues, content_hash="")


TALK = dialogue("7", "T hello", "P one", "P two", "T three", "T four", "P five", "T six", "P bye")


def rows(pairs: tuple[Pair, ...]) -> list[tuple[str, str, str, str | None]]:
    return [(pair.pair_id, pair.prompt, pair.reference, pair.act) for pair in pairs]


def test_v1() -> None:
    assert rows(make_pairs(TALK, "v1")) == [
        ("7:3", "one two", "three four", "act3"),
        ("7:6", "five", "six", "act6"),
    ]


def test_v2() -> None:
    assert rows(make_pairs(TALK, "v2")) == [
        ("7:1", "one", "three four", "act3"),
        ("7:2", "one two", "three four", "act3"),
        ("7:5", "one two five", "three four six", "act6"),
    ]


def test_shift() -> None:
    assert rows(make_pairs(TALK, "shift"))[:3] == [
        ("7:1", "hello", "one", "act1"),
        ("7:2", "one", "two", "act2"),
        ("7:3", "two", "three", "act3"),
    ]
    assert len(make_pairs(TALK, "shift")) == 7


def test_parts_hold_whole_sessions_in_corpus_order() -> None:
    sessions = [dialogue(str(n), *["P a", "T b"] * 3) for n in range(10)]
    pairs = build_pairs(corpus(*sessions), "v1", SplitSpec())
    parts = [{pair.session for pair in part} for part in (pairs.train, pairs.valid, pairs.test)]
    assert [len(part) for part in parts] == [8, 1, 1]
    assert len(set.union(*parts)) == 10
    numbers = [int(pair.session) for pair in pairs.train]
    assert numbers == sorted(numbers)


def test_limits_draw_the_same_pairs_each_time() -> None:
    sessions = [dialogue(str(n), *["P a", "T b"] * 20) for n in range(10)]
    whole = build_pairs(corpus(*sessions), "v1", SplitSpec())
    drawn = {
        limit: build_pairs(
            corpus(*sessions),
            "v1",
            SplitSpec(max_train_pairs=limit, max_valid_pairs=2, max_test_pairs=1000),
        )
        for limit in (5, 50)
    }
    assert [len(drawn[limit].train) for limit in (5, 50)] == [5, 50]
    assert len(drawn[5].valid) == 2
    assert drawn[5].test == whole.test
    assert set(drawn[5].train) < set(drawn[50].train) < set(whole.train)
    assert [pair for pair in whole.train if pair in drawn[50].train] == list(drawn[50].train)
    assert drawn[50].train != whole.train[:50]
    seeded = SplitSpec(train_fraction=1 / 3, valid_fraction=1 / 3, test_fraction=1 / 3)
    assert build_pairs(corpus(*sessions), "v1", seeded) == build_pairs(
        corpus(*sessions), "v1", seeded
    )


def test_a_part_without_pairs_is_named() -> None:
    sessions = [
        dialogue("1", "P a", "T b"),
        dialogue("2", "T a", "P b"),
        dialogue("3", "P a", "P b"),
    ]
    with pytest.raises(CorpusError) as raised:
        build_pairs(corpus(*sessions), "v1", SplitSpec())
    assert len(raised.value.problems) == 2
    assert "loader v1 finds none in this part's sessions (1)" in str(raised.value)
    assert len(build_pairs(corpus(*sessions), "shift", SplitSpec()).train) == 1


def test_a_part_without_sessions_is_named() -> None:
    sessions = [dialogue(str(n), "P a", "T b") for n in range(4)]
    with pytest.raises(CorpusError, match=r"valid_fraction: .* gets no session"):
        build_pairs(corpus(*sessions), "v1", SplitSpec(valid_fraction=0))


def test_shared_pairs_counts_test_pairs() -> None:
    def pair(number: int, prompt: str, reference: str) -> Pair:
        return Pair(pair_id=f"1:{number}", session="1", prompt=prompt, reference=reference)

    splits = PairSplits(
        train=(pair(0, "hi", "hello"), pair(1, "yes", "okay")),
        valid=(pair(2, "hi", "hello"),),
        test=(pair(3, "hi", "hello"), pair(4, "hi", "hello"), pair(5, "yes", "hello")),
    )
    assert shared_pairs(splits) == 2
