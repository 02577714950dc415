"""What `early_stop` may say, and which trials it can end."""

from __future__ import annotations

import pytest

from search_spaces.early_stop import EarlyStop, can_be_stopped
from search_spaces.errors import SearchSpaceError
from search_spaces.overrides import apply_settings
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import (
    BaseSettings,
    ChatMglSettings,
    Method,
    SftSettings,
    TrainingSpec,
    TrialSpec,
)
from search_spaces.yaml_file import parse_yaml

SPACE = """\
name: tiny
defaults: {model: m}
%s
stages:
  - {name: first, methods: [{kind: sft}]%s}
"""


def parsed(top: str = "", stage: str = "") -> SearchSpace:
    return parse_space(parse_yaml("tiny.yaml", SPACE % (top, stage)))


def rule_of(space: SearchSpace) -> EarlyStop | None:
    return space.stages[0].early_stop


def test_a_word_or_its_fields_ask_for_it() -> None:
    assert rule_of(parsed()) is None
    assert rule_of(parsed("early_stop: asha")) == EarlyStop()
    fields = "{kind: asha, metric: valid/loss, grace_epochs: 2, reduction_factor: 3}"
    assert rule_of(parsed(f"early_stop: {fields}")) == EarlyStop(grace_epochs=2, reduction_factor=3)


def test_a_stage_has_the_last_word_and_the_command_line_the_very_last() -> None:
    assert rule_of(parsed("early_stop: asha", ", early_stop: off")) is None
    space = parsed("", ", early_stop: {grace_epochs: 3}")
    assert rule_of(space) == EarlyStop(grace_epochs=3)
    assert rule_of(apply_settings(space, ("early_stop=off",))) is None
    assert rule_of(apply_settings(space, ("early_stop=asha",))) == EarlyStop()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("hyperband", "must be `asha`, `off`, or a mapping"),
        ("{kind: median}", "early_stop.kind"),
        ("{metric: test/rouge1}", "early_stop.metric"),
        ("{grace_epochs: 0}", "early_stop.grace_epochs"),
        ("{reduction_factor: 1}", "early_stop.reduction_factor"),
        ("{grace: 2}", "unknown setting of early_stop (known: grace_epochs, kind, metric"),
        ("[asha]", "must be `asha`, `off`, or a mapping"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: str, says: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        parsed(f"early_stop: {value}")
    assert says in str(caught.value)
    assert "line 3" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "epochs", "can"),
    [
        (SftSettings(), 1, False),
        (SftSettings(), 2, True),
        (BaseSettings(), 2, False),
        (ChatMglSettings(), 2, False),
    ],
)
def test_only_a_training_of_several_epochs_can_end_early(
    method: Method, epochs: int, can: bool
) -> None:
    spec = TrialSpec(model="m", method=method, training=TrainingSpec(epochs=epochs))
    assert can_be_stopped(spec, EarlyStop()) is can
    assert not can_be_stopped(spec, EarlyStop(grace_epochs=2))
