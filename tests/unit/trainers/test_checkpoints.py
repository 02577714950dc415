from __future__ import annotations

import pickle

import pytest

from search_spaces.errors import InputError
from trainers.checkpoints import (
    CheckpointClock,
    CheckpointSettings,
    auto_interval_s,
    parse_checkpoint_settings,
)


@pytest.mark.parametrize(
    ("text", "every", "unit"),
    [
        ("auto", None, "auto"),
        (" AUTO ", None, "auto"),
        ("200 steps", 200, "steps"),
        ("1 step", 1, "steps"),
        ("10 minutes", 10, "minutes"),
        ("10min", 10, "minutes"),
        ("0.5 minutes", 0.5, "minutes"),
        ("1 epoch", 1, "epochs"),
        ("0.25 epochs", 0.25, "epochs"),
    ],
)
def test_what_can_be_asked_for(text: str, every: float | None, unit: str) -> None:
    settings = parse_checkpoint_settings(text)
    assert (settings.every, settings.unit) == (every, unit)
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("", "10 minutes"),
        ("atuo", "auto"),
        ("often", "10 minutes"),
        ("10", "10 minutes"),
        ("10 minuts", "10 minutes"),
        ("5 stpes", "5 steps"),
        ("2.5 steps", "2 steps"),
        ("0 epochs", "1 epochs"),
        ("3 hours", "3 minutes"),
        ("-1 steps", "10 minutes"),
        ("9" * 400 + " steps", "10 minutes"),
        ("\u0663 steps", "10 minutes"),
    ],
)
def test_what_cannot(text: str, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_checkpoint_settings(text)
    (problem,) = caught.value.problems
    assert problem.nearest == nearest
    assert parse_checkpoint_settings(problem.nearest)


def due(clock: CheckpointClock, seconds_per_step: float, steps: int, save_s: float) -> list[int]:
    """Steps at which a training with four steps an epoch saves."""
    saved = []
    for step in range(1, steps + 1):
        seconds = step * seconds_per_step
        if clock.is_due(step, step / 4, seconds):
            saved.append(step)
            clock.saved(step, step / 4, seconds, save_s)
    return saved


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (CheckpointSettings(3, "steps"), [3, 6, 9, 12]),
        (CheckpointSettings(1, "epochs"), [4, 8, 12]),
        (CheckpointSettings(0.5, "epochs"), [2, 4, 6, 8, 10, 12]),
        (CheckpointSettings(1, "minutes"), [3, 6, 9, 12]),
        (CheckpointSettings(0.001, "minutes"), [*range(1, 13)]),
        (CheckpointSettings(), [1, 3, 5, 7, 9, 11]),
    ],
)
def test_when_a_checkpoint_is_due(settings: CheckpointSettings, steps: list[int]) -> None:
    assert due(CheckpointClock(settings, 0), 20.0, 12, save_s=1.2) == steps


def test_an_interrupted_clock_goes_on() -> None:
    clock = CheckpointClock(CheckpointSettings(3, "steps"), 0, step=4, epoch=1.0, seconds=80.0)
    assert [step for step in range(5, 8) if clock.is_due(step, step / 4, 0.0)] == [6, 7]


def test_auto_goes_by_the_size_before_the_first_save() -> None:
    clock = CheckpointClock(CheckpointSettings(), 600_000_000)  # 6 s
    assert not clock.is_due(1, 0.1, 199.0)
    assert clock.is_due(2, 0.2, 201.0)


@pytest.mark.parametrize(("save_s", "interval_s"), [(0.0, 5), (0.3, 10), (3, 100), (60, 600)])
def test_saving_takes_a_small_share(save_s: float, interval_s: float) -> None:
    assert auto_interval_s(save_s) == pytest.approx(interval_s)
