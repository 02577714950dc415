from __future__ import annotations

import pytest

from corpora.act_labels import learns_acts
from corpora.acts import ACTS, act_labels, canonical_act
from search_spaces.spec import (
    DialogueActSettings,
    Method,
    ReaderSettings,
    SftSettings,
    TrialSpec,
)


def test_there_are_twelve() -> None:
    assert " ".join(ACTS) == "irq ynq crq orq id cd od op on gt ack gc"


@pytest.mark.parametrize("act", ACTS)
def test_canonical_labels_stay(act: str) -> None:
    assert canonical_act(act) == act
    assert canonical_act(f" {act.upper()} ") == act


@pytest.mark.parametrize(
    ("cell", "act"),
    [
        ("yq", "ynq"),
        ("yna", "op"),
        ("PA", "op"),
        ("na", "on"),
        ("o", "od"),
        ("irrq", "irq"),
        ("urq", "orq"),
        ("acak", "ack"),
        ("In", "id"),
        ("cdd", "cd"),
        ("yn q", "ynq"),
        ("id,op", "id"),
        ("gc op", "gc"),
        ("irrq / ack", "irq"),
        ("od;id", "od"),
        (", cd", "cd"),
        ("zz, id", "unknown"),
        ("id op extra", "id"),
        ("", None),
        ("  ", None),
        (" , ", None),
    ],
)
def test_spellings(cell: str, act: str | None) -> None:
    assert canonical_act(cell) == act


def test_labels_are_told_apart() -> None:
    assert act_labels(" ID ,op/gc") == ("id", "op", "gc")
    assert act_labels("a ck") == ("ack",)


def test_which_methods_learn_acts() -> None:
    methods: dict[Method, bool] = {
        DialogueActSettings(): True,
        DialogueActSettings(acts="gold"): True,
        DialogueActSettings(acts="none"): False,
        ReaderSettings(): True,
        ReaderSettings(rl="none"): True,
        SftSettings(): False,
    }
    assert {
        method: learns_acts(TrialSpec(model="m", method=method)) for method in methods
    } == methods
