from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from reports import figures
from reports.results import read_sweep


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


def test_long_loss_curves_are_running_means_and_short_ones_are_not() -> None:
    curve = [(step, float(step % 2)) for step in range(100)]
    smooth = figures._smoothed(curve)
    assert len(smooth) == 96
    assert smooth[-1] == (99, pytest.approx(0.6))
    assert figures._smoothed(curve[:10]) == curve[:10]
