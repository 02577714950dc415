"""The winner: best on validation by the mean over seeds, once everything is decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage import SweepFolder
from orchestrator.winner import choose_winner
from search_spaces.space import WinnerOf
from tests.unit.orchestrator.trials import planned, spec, write_failure, write_result

MOST = WinnerOf("first", "valid/rouge1", "max")
LEAST = WinnerOf("first", "valid/rouge1", "min")


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "tiny")


SLOW, FAST = spec(learning_rate=1e-5), spec(learning_rate=1e-3)
TWO = (planned("slow", SLOW), planned("fast", FAST))


def test_the_best_of_either_direction(folder: SweepFolder) -> None:
    write_result(folder, "slow", rouge1=2.0)
    write_result(folder, "fast", rouge1=3.0)
    best, least = choose_winner(MOST, TWO, folder), choose_winner(LEAST, TWO, folder)
    assert best is not None
    assert least is not None
    assert (best.trial_id, best.spec, best.score) == ("fast", FAST, 3.0)
    assert (least.trial_id, least.spec, least.score) == ("slow", SLOW, 2.0)


def test_nobody_wins_before_every_trial_has_ended(folder: SweepFolder) -> None:
    write_result(folder, "slow", rouge1=2.0)
    assert choose_winner(MOST, TWO, folder) is None
    file = write_result(folder, "fast", rouge1=1.0)
    assert choose_winner(MOST, TWO, folder) is not None
    file.write_text(file.read_text()[:-9])
    assert choose_winner(MOST, TWO, folder) is None, "half a result is none"


def test_failures_do_not_compete_and_do_not_hold_up(folder: SweepFolder) -> None:
    write_result(folder, "slow", rouge1=2.0)
    write_failure(folder, "fast")
    winner = choose_winner(MOST, TWO, folder)
    assert winner is not None
    assert winner.trial_id == "slow"


def test_nobody_wins_where_everything_failed_or_nothing_was(folder: SweepFolder) -> None:
    write_failure(folder, "slow")
    write_failure(folder, "fast")
    assert choose_winner(MOST, TWO, folder) is None
    assert choose_winner(MOST, (), folder) is None


def test_a_trial_that_failed_once_and_was_done_again_competes(folder: SweepFolder) -> None:
    write_result(folder, "slow", rouge1=2.0)
    write_failure(folder, "fast")
    write_result(folder, "fast", rouge1=4.0)
    winner = choose_winner(MOST, TWO, folder)
    assert winner is not None
    assert winner.trial_id == "fast"


def test_the_mean_over_seeds_decides_and_not_one_lucky_seed(folder: SweepFolder) -> None:
    trials = [
        planned("slow0", spec(0, learning_rate=1e-5)),
        planned("fast0", spec(0, learning_rate=1e-3)),
        planned("slow1", spec(1, learning_rate=1e-5)),
        planned("fast1", spec(1, learning_rate=1e-3)),
    ]
    for trial, score in zip(trials, (5.0, 9.0, 6.0, 1.0), strict=True):
        write_result(folder, trial.id, rouge1=score)
    winner = choose_winner(MOST, trials, folder)
    assert winner is not None
    assert (winner.trial_id, winner.score) == ("slow0", 5.5)
    assert winner.spec == spec(0, learning_rate=1e-5)


def test_a_seed_that_failed_leaves_the_mean_of_the_others(folder: SweepFolder) -> None:
    trials = [planned("a0", spec(0)), planned("a1", spec(1)), planned("b0", spec(0, epochs=2))]
    write_failure(folder, "a0")
    write_result(folder, "a1", rouge1=3.0)
    write_result(folder, "b0", rouge1=2.0)
    winner = choose_winner(MOST, trials, folder)
    assert winner is not None
    assert (winner.trial_id, winner.score) == ("a1", 3.0)


def test_ties_go_to_what_is_named_first(folder: SweepFolder) -> None:
    for rule in (MOST, LEAST):
        for one in TWO:
            write_result(folder, one.id, rouge1=2.0)
        first, second = choose_winner(rule, TWO, folder), choose_winner(rule, TWO[::-1], folder)
        assert first is not None
        assert second is not None
        assert (first.trial_id, second.trial_id) == ("slow", "fast")


def test_a_trial_without_the_score_does_not_compete(folder: SweepFolder) -> None:
    write_result(folder, "slow", rouge1=-2.0)
    write_result(folder, "fast", meteor=1.0)
    winner = choose_winner(MOST, TWO, folder)
    assert winner is not None
    assert winner.trial_id == "slow"
