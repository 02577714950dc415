from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from reports import figures
from reports.figure_style import DrawnFigure
from reports.results import read_sweep
from tests.unit.reports.sweep_builder import (
    SweepBuilder,
    make_scores,
    make_spec,
    trial_id,
    write_updates,
)


def test_every_panel_shows_all_of_its_points(
    own_grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in own_grid.glob("trials/*/result.json"):
        result = json.loads(file.read_text())
        if result["spec"]["loader"] == "v2":  # the second panel's points lie far above the first's
            scores = result["scores"]
            result["scores"] = {k: 60.0 if "test/rouge1" in k else v for k, v in scores.items()}
            file.write_text(json.dumps(result))
    drawn: list[Figure] = []
    draw = figures.draw

    def keep(name: str, title: str, text: str, figure: Figure) -> Any:
        drawn.append(figure)
        return draw(name, title, text, figure)

    monkeypatch.setattr(figures, "draw", keep)
    figures.sweep_figures(read_sweep(own_grid))
    assert any(len(figure.axes) > 1 for figure in drawn)
    for figure in drawn:
        for axes in figure.axes:
            low, high = sorted(axes.get_ylim())
            for line in axes.lines:
                assert all(low <= value <= high for value in line.get_ydata())


def test_rewards_by_update(builder: Callable[..., SweepBuilder]) -> None:
    """A figure for each method that has rewards, however its name is written; none without."""
    made = builder()
    made.stage("only", None)
    kinds = ("sft", "../reader", "chatmgl", "chatmgl")
    for number, kind in enumerate(kinds, start=1):
        spec = make_spec(method={"kind": kind}, learning_rate=number / 1e4)
        made.done(trial_id(number), kind, spec, make_scores(float(number)))
    folder = made.finish()
    assert not reward_figures(folder)
    for number in (2, 3, 4):
        write_updates(folder / "trials" / trial_id(number) / "rl.csv", number / 10)
    reader, chatmgl = reward_figures(folder)
    assert (reader.name, chatmgl.name) == ("reward_and_kl", "reward_and_kl_2")
    assert reader.title == "Reward and KL by update: reader"
    assert "of 2 trials of chatmgl" in chatmgl.description
    assert "Learning rate" in chatmgl.svg
    assert "currentColor" in chatmgl.svg
    # No reward in the one, no rows in the other.
    (folder / "trials" / trial_id(3) / "rl.csv").write_text("step,kl\n1,0.5\n")
    (folder / "trials" / trial_id(4) / "rl.csv").write_text("step,reward\n")
    assert "of 1 trials" in reward_figures(folder)[1].description


def reward_figures(folder: Path) -> list[DrawnFigure]:
    drawn = figures.sweep_figures(read_sweep(folder))
    return [figure for figure in drawn if figure.name.startswith("reward")]


@pytest.mark.parametrize("file", ["rl.csv", "train.csv"])
@pytest.mark.parametrize("value", [1.7e308, -1e300, 1e100, 5e-324, 0.0])
def test_numbers_of_any_size_can_be_drawn(
    builder: Callable[..., SweepBuilder], file: str, value: float
) -> None:
    made = builder()
    made.stage("only", None)
    made.done(trial_id(1), "a", make_spec(), make_scores(4.0))
    folder = made.finish()
    rows = "".join(f"{n},{value},{-value},{value}\n" for n in range(60))
    path = folder / "trials" / trial_id(1) / file
    path.write_text("step,reward,kl,train_loss\n1,1,1,1\n2,2,2,2\n" + rows)
    name = "reward_and_kl" if file == "rl.csv" else "losses"
    drawn = figures.sweep_figures(read_sweep(folder))
    assert name in [figure.name for figure in drawn]


def test_long_loss_curves_are_running_means_and_short_ones_are_not() -> None:
    curve = [(step, float(step % 2)) for step in range(100)]
    smooth = figures._smoothed(curve)
    assert len(smooth) == 96
    assert smooth[-1] == (99, pytest.approx(0.6))
    assert figures._smoothed(curve[:10]) == curve[:10]
