"""Floors are computed once for a test set, whichever sweep asks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import floors
from orchestrator.floors import Floors
from orchestrator.storage import SweepFolder
from search_spaces.spec import DecodingSpec
from tests.unit.orchestrator.trials import planned, spec, write_result
from trainers.storage import cache_folder


class Workers:
    """Computes nothing; remembers what it was asked for."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.asked = 0

    def begin(self, function: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert function is floors.floors_of
        self.asked += len(arguments)
        return [
            [{"floor": name, "loader": "v1", "scores": self.scores} for name in ("echo", "fixed")]
            for _ in arguments
        ]

    def wait(self, calls: Sequence[Any]) -> list[Any]:
        return list(calls)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))


def write(place: Path, content_hash: str, workers: Workers, *, beams: tuple[int, ...]) -> list[Any]:
    """The floors of a sweep of one trial."""
    folder = SweepFolder(place)
    one = planned("trial", dataclasses.replace(spec(), decoding=DecodingSpec(beams=beams)))
    write_result(folder, "trial", rouge1=1.0)
    plan: Any = SimpleNamespace(trials=(one,), corpus=SimpleNamespace(content_hash=content_hash))
    Floors(folder, workers).write(plan)
    found: list[Any] = json.loads((place / "floors.json").read_text())
    return found


def test_a_second_sweep_has_the_floors_of_the_first(tmp_path: Path) -> None:
    workers = Workers({"test/rouge1": 8.5})
    first = write(tmp_path / "one", "a", workers, beams=(1, 2))
    assert [entry["floor"] for entry in first] == ["echo", "fixed"]
    assert write(tmp_path / "two", "a", workers, beams=(1, 2)) == first
    assert workers.asked == 1
    assert write(tmp_path / "one", "b", workers, beams=(1, 2))
    assert write(tmp_path / "one", "a", workers, beams=(1, 4))
    assert workers.asked == 3, "another corpus, and other beams, have floors of their own"


@pytest.mark.parametrize(
    "damaged", ["", "[", "[]", "3", '[{"floor": "echo", "scores": {"test/rouge1": null}}]', "{}"]
)
def test_what_is_not_whole_is_computed_again(tmp_path: Path, damaged: str) -> None:
    workers = Workers({"test/rouge1": 8.5})
    first = write(tmp_path / "one", "a", workers, beams=(1,))
    (kept,) = (cache_folder() / "floors").iterdir()
    kept.write_text(damaged)
    assert write(tmp_path / "two", "a", workers, beams=(1,)) == first
    assert workers.asked == 2
