from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora.dialogue import CorpusError
from corpora.splits import PARTS, in_drawn_order, split_sessions
from search_spaces.spec import SplitSpec


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def sizes(count: int, train: float, valid: float, test: float) -> tuple[int, ...]:
    split = SplitSpec(train_fraction=train, valid_fraction=valid, test_fraction=test)
    counted = Counter(split_sessions(names(count), split).values())
    return tuple(counted[part] for part in PARTS)


@pytest.mark.parametrize(
    ("count", "fractions", "expected"),
    [
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (56, (0.8, 0.1, 0.1), (45, 5, 6)),
        (133, (0.8, 0.1, 0.1), (107, 13, 13)),
        (3, (0.8, 0.1, 0.1), (1, 1, 1)),
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),
        (4, (0.8, 0.1, 0.1), (2, 1, 1)),
        (7, (0.7, 0.2, 0.1), (5, 1, 1)),
        (10, (0.5, 0.0, 0.5), (5, 0, 5)),
        (10, (0.3, 0.1, 0.1), (3, 1, 1)),
        (3, (1 / 3, 1 / 3, 1 / 3), (1, 1, 1)),
        (100, (0.01, 0.01, 0.01), (1, 1, 1)),
    ],
)
def test_sizes(
    count: int, fractions: tuple[float, float, float], expected: tuple[int, ...]
) -> None:
    assert sizes(count, *fractions) == expected


def test_the_draw_is_written_in_stone() -> None:
    """Results of finished trials depend on it: no release may draw otherwise."""
    parts = split_sessions(names(10), SplitSpec())
    assert [name for name in parts if parts[name] != "train"] == ["4", "7"]
    assert in_drawn_order(names(5), 1) == ["4", "2", "3", "0", "1"]


def test_seeds_draw_differently() -> None:
    drawn = {
        tuple(split_sessions(names(56), SplitSpec(split_seed=seed)).values()) for seed in range(20)
    }
    assert len(drawn) == 20


def test_test_sessions_stay_when_training_shrinks() -> None:
    whole = split_sessions(names(50), SplitSpec())
    half = split_sessions(names(50), SplitSpec(train_fraction=0.4))
    for part in ("valid", "test"):
        assert {n for n in whole if whole[n] == part} == {n for n in half if half[n] == part}
    assert {n for n in half if half[n] == "train"} < {n for n in whole if whole[n] == "train"}


@given(
    count=st.integers(3, 60),
    weights=st.tuples(*[st.integers(0, 20)] * 3).filter(lambda weights: sum(weights) > 0),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_properties(count: int, weights: tuple[int, ...], seed: int, shuffle: object) -> None:
    train, valid, test = (weight / sum(weights) for weight in weights)
    split = SplitSpec(
        train_fraction=train, valid_fraction=valid, test_fraction=test, split_seed=seed
    )
    parts = split_sessions(names(count), split)
    assert list(parts) == names(count)
    for part, weight in zip(PARTS, weights, strict=True):
        size = list(parts.values()).count(part)
        assert (size > 0) == (weight > 0)
        assert size == 1 or abs(size - weight / sum(weights) * count) < 2.0001
    shuffled = names(count)
    shuffle.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_sessions(shuffled, split) == parts


@pytest.mark.parametrize("fractions", [(0.9, 0.1, 0.1), (0.0, 0.0, 0.0), (1.0, 0.0, 1e-6)])
def test_fractions_that_cannot_be(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(CorpusError, match=f"train_fraction={fractions[0]:g}"):
        sizes(10, *fractions)


def test_rounding_of_fractions_is_forgiven() -> None:
    assert sum(sizes(10, 0.7, 0.2, 0.1 + 5e-10)) == 10


def test_too_few_sessions() -> None:
    with pytest.raises(CorpusError, match=r"3 parts must get a session .* but there are 2"):
        sizes(2, 0.8, 0.1, 0.1)
