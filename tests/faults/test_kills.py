"""A short sweep under fire; the long form is `make soak`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.soak import prepare, soak


@pytest.mark.timeout(400)
def test_kills_lose_nothing_and_change_nothing(tmp_path: Path, tiny_gpt2: Path) -> None:
    grid = {"batch_size": [2], "loader": ["v1"]}
    one = prepare(tmp_path / "place", seed=1, epochs=12, grid=grid, model=tiny_gpt2)
    one.pause_s = (2.0, 6.0)
    one.chance = random.Random(3)
    tally = soak(one, kills=4)
    print(tally.text())
    assert tally.clean, tally.text()
    assert tally.kills.total() >= 4
