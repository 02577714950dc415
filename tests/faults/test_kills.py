"""Sweeps under fire for minutes; the long form is `make soak`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.soak import METHODS, PHASED, prepare, soak

ONE_TRIAL = {"batch_size": [2], "loader": ["v1"]}

pytestmark = pytest.mark.slow


@pytest.mark.timeout(400)
def test_kills_lose_nothing_and_change_nothing(tmp_path: Path, tiny_gpt2: Path) -> None:
    one = prepare(
        tmp_path / "place", 1, epochs=12, grid=ONE_TRIAL, model=tiny_gpt2, methods=METHODS
    )
    one.pause_s = (2.0, 6.0)
    one.chance = random.Random(3)
    tally = soak(one, kills=4)
    print(tally.text())
    assert tally.clean, tally.text()
    assert tally.kills.total() >= 4


@pytest.mark.timeout(900)
def test_workers_killed_in_shared_phases(tmp_path: Path, tiny_gpt2: Path) -> None:
    """Two trials at a time, that wait for one another's phases and die in their own."""
    one = prepare(tmp_path / "place", 2, epochs=12, grid=ONE_TRIAL, model=tiny_gpt2, methods=PHASED)
    # So far apart that the one trial of the first stage gets further between them.
    one.pause_s, one.weights = (6.0, 12.0), (1, 0, 0, 0)
    tally = soak(one, kills=8)
    print(tally.text())
    assert tally.clean, tally.text()
    assert tally.kills["worker"] >= 8


@pytest.mark.timeout(900)
def test_workers_killed_while_their_trials_train_together(tmp_path: Path, tiny_gpt2: Path) -> None:
    """Four trials in two groups; after two deaths each goes on alone."""
    lora = [{**METHODS[1], "rank": rank} for rank in (2, 3, 4, 5)]
    one = prepare(tmp_path / "place", 3, epochs=40, grid=ONE_TRIAL, model=tiny_gpt2, methods=lora)
    one.pause_s, one.weights, one.fuse = (2.0, 7.0), (1, 0, 0, 0), True
    tally = soak(one, kills=4)
    print(tally.text())
    assert tally.clean, tally.text()
    assert tally.kills["worker"] >= 4
    assert "4 trials train together, in 2 groups" in one.log("calm")
