"""Trials that can train together are grouped so that every slot has work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.groups import Group, group_trials
from orchestrator.trial import TrialWork
from search_spaces.identity import spec_to_dict
from search_spaces.spec import BaseSettings, DeltaSettings, Method, ReaderSettings, SftSettings
from tests.unit.orchestrator.trials import spec

LORA = DeltaSettings(peft_type="lora")


def work(number: int, method: Method = LORA, model: str = "tiny", **training: object) -> TrialWork:
    one = replace(spec(method=method, **training), model=model)  # type: ignore[arg-type]
    return TrialWork(str(number), f"trial{number}", spec_to_dict(one), model, model, "c", {}, "f")


def fits(group: Group) -> bool:
    return True


def sizes(groups: list[Group]) -> list[int]:
    return [len(group) for group in groups]


@pytest.mark.parametrize(
    ("trials", "slots", "expected"),
    [
        (1, 2, [1]),
        (2, 2, [1, 1]),  # Two cores are faster than one.
        (3, 2, [2, 1]),
        (16, 2, [8, 8]),
        (16, 1, [16]),
        (33, 1, [11, 11, 11]),
        (40, 2, [14, 13, 13]),
    ],
)
def test_trials_of_a_kind_are_spread_over_slots(
    trials: int, slots: int, expected: list[int]
) -> None:
    groups = group_trials([work(n) for n in range(trials)], slots, fits)
    assert sizes(groups) == expected
    assert sorted(int(one.id) for group in groups for one in group) == list(range(trials))


def test_only_what_shares_a_base_and_trains_an_adapter() -> None:
    ranks = [DeltaSettings(peft_type="lora", rank=rank) for rank in (4, 8)]
    together = [work(n, ranks[n % 2], learning_rate=10.0**-n, batch_size=n + 1) for n in range(4)]
    apart = [
        work(4, SftSettings()),
        work(5, SftSettings()),
        work(6, BaseSettings()),
        work(7, LORA, model="other"),
        work(8, LORA, precision="bf16"),
        work(9, DeltaSettings(peft_type="bitfit")),
    ]
    groups = group_trials([*apart, *together], 1, fits)
    assert groups[0] == tuple(together)
    assert sizes(groups[1:]) == [1] * len(apart)
    assert [group[0] for group in groups[1:]] == apart, "the rest as they came"


def test_a_group_is_cut_until_it_fits() -> None:
    groups = group_trials([work(n) for n in range(10)], 1, lambda group: len(group) <= 3)
    assert sizes(groups) == [3, 3, 2, 2]
    alone = group_trials([work(n) for n in range(3)], 1, lambda group: False)
    assert sizes(alone) == [1, 1, 1]


def test_nothing_is_grouped_where_that_is_not_wanted() -> None:
    assert sizes(group_trials([work(n) for n in range(9)], 2, fits, 1)) == [1] * 9


def test_long_trials_begin_early() -> None:
    short = [work(0, SftSettings()), work(1, BaseSettings())]
    long = work(2, ReaderSettings())
    joint = work(3, ReaderSettings(rl="none"))
    groups = group_trials([*short, joint, long], 2, fits)
    assert [group[0] for group in groups] == [long, *short, joint]
