"""Figures of a sweep: scores by each setting that varies, losses by step, rewards by update."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.fields import effective_fields, is_trained, method_label, protocol_of, shown_value
from reports.figure_style import FLOOR_INK, LINES, MARKERS, PALETTE, PAPER, STYLE, DrawnFigure, draw
from reports.replicates import Replicates, floors_of, group_replicates, score_on_test
from reports.results import SweepResults, TrialResult
from reports.trial_files import read_steps, read_updates
from search_spaces.controls import escape_controls

_AXES = ("learning_rate", "batch_size", "model", "loader")
_TITLES = {
    "learning_rate": "learning rate",
    "batch_size": "batch size",
    "model": "model",
    "loader": "loader",
    "method": "method",
    "rl": "algorithm",
    "rl_learning_rate": "RL learning rate",
    "kl_coef": "KL weight",
}
_LOSSES_DIFFER_BY = ("learning_rate", "method", "model", "loader", "batch_size")
_REWARDS_DIFFER_BY = ("rl", "rl_learning_rate", "kl_coef", *_LOSSES_DIFFER_BY)
_LONGEST_LABEL = 48
_FLOORS = {"echo": ("echo", ":"), "fixed": ("fixed reply", "--")}


def sweep_figures(sweep: SweepResults) -> tuple[DrawnFigure, ...]:
    """Every figure that makes sense for the sweep at hand: none for what does not vary.

    Args:
        sweep: the results; trials under the `chatmgl` protocol are left out.
    """
    with matplotlib.rc_context(STYLE):
        figures = [_by_setting(sweep, axis) for axis in _AXES]
        figures += [_by_method(sweep), _losses(sweep), *_rewards(sweep)]
    return tuple(figure for figure in figures if figure is not None)


_SMOOTHING = 20
"""A curve of at least twice as many points is drawn as a running mean."""

_MOST_CURVES = 200
"""More are no picture that says anything, and take minutes to draw."""

_Curve = list[tuple[int, float]]
"""Steps with their values, in order."""


@dataclass(frozen=True)
class _Point:
    """Replicates in a figure: their settings as shown, and the mean score."""

    settings: Mapping[str, object]
    group: Replicates
    score: float
    spread: float


def _points(groups: Sequence[Replicates], metric: str) -> list[_Point]:
    """Replicates that have the metric."""
    points = []
    for group in groups:
        scores = [s for t in group.done if (s := score_on_test(t.scores, metric)) is not None]
        if scores:
            settings = {**effective_fields(group.spec), "method": method_label(group.spec)}
            spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
            points.append(_Point(settings, group, statistics.fmean(scores), spread))
    return points


def _by_setting(sweep: SweepResults, axis: str) -> DrawnFigure | None:
    """ROUGE-1 over one setting; lines join trials that differ in nothing else."""
    stages = {stage.name for stage in sweep.stages if stage.table in ("parameters", None)}
    groups = group_replicates(sweep, stages, "clean", is_trained)
    points = _points(groups, "rouge1")
    ticks = _distinct(points, axis)
    if len(ticks) < 2:
        return None
    # Test pairs, and so floors, differ by loader: a panel for each, unless loaders are compared.
    panels = [None] if axis == "loader" else [*_distinct(points, "loader")]
    others = [name for name in (*_AXES, "method") if name not in (axis, "loader")]
    varying = [name for name in others if len(_distinct(points, name)) > 1][:2]
    figure = Figure(figsize=(3.3 * len(panels) + 1.2, 3.0), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, loader in zip(grid, panels, strict=True):
        inside = [p for p in points if loader is None or p.settings.get("loader") == loader]
        _lines(axes, inside, axis, ticks, {name: _distinct(points, name) for name in varying})
        _floor_lines(axes, sweep, groups, None if loader is None else str(loader), ticks)
        axes.set_xticks(range(len(ticks)), [_label(tick) for tick in ticks])
        axes.set_xlim(-0.4, len(ticks) - 0.6)
        axes.grid(visible=False, axis="x")
        axes.tick_params(length=0)
        axes.set_xlabel(_TITLES[axis].capitalize())
        if loader is not None:
            axes.set_title(f"Loader {_label(loader)}")
    # After the last panel: a limit set earlier would stop the shared axis from growing with them.
    grid[0].set_ylim(bottom=0)
    grid[0].set_ylabel("ROUGE-1")
    _legend(figure, grid, ", ".join(_TITLES[name] for name in varying))
    best = max(points, key=lambda point: point.score)
    return draw(
        f"rouge1_by_{axis}",
        f"ROUGE-1 by {_TITLES[axis]}",
        f"ROUGE-1 on the test pairs, narrowest beam, by {_TITLES[axis]}"
        f" ({', '.join(_label(tick) for tick in ticks)}). Highest: {best.score:.2f} at"
        f" {_TITLES[axis]} {_label(best.settings.get(axis))}. Lines join trials that differ in"
        " nothing else; grey lines are the floors.",
        figure,
    )


def _lines(
    axes: Axes,
    points: Sequence[_Point],
    axis: str,
    ticks: Sequence[object],
    varying: Mapping[str, Sequence[object]],
) -> None:
    """One line for each combination of the other settings.

    Args:
        axes: where.
        points: what.
        axis: the setting along the axis.
        ticks: its values, in order.
        varying: at most two further settings with their values; the first sets the colour, the
            second the line.
    """
    series: dict[str, list[_Point]] = {}
    for point in points:
        rest = {k: v for k, v in point.settings.items() if k not in (axis, "seed")}
        series.setdefault(repr(sorted(rest.items(), key=lambda item: item[0])), []).append(point)
    for members in series.values():
        ordered = sorted(members, key=lambda point: ticks.index(point.settings.get(axis)))
        chosen = [ordered[0].settings.get(name) for name in varying]
        number, line = [
            *(known.index(value) for value, known in zip(chosen, varying.values(), strict=True)),
            0,
            0,
        ][:2]
        axes.errorbar(
            [ticks.index(point.settings.get(axis)) for point in ordered],
            [point.score for point in ordered],
            yerr=[point.spread for point in ordered],
            color=PALETTE[number % len(PALETTE)],
            marker=MARKERS[number % len(MARKERS)],
            markerfacecolor=PAPER if line else PALETTE[number % len(PALETTE)],
            linestyle=LINES[line % len(LINES)],
            capsize=2,
            elinewidth=0.9,
            label=", ".join(_label(value) for value in chosen) or "trials",
        )


def _floor_lines(
    axes: Axes,
    sweep: SweepResults,
    groups: Sequence[Replicates],
    loader: str | None,
    ticks: Sequence[object],
) -> None:
    """Floors across a loader's panel, or beside each loader where loaders are on the axis."""
    for floor in floors_of(sweep, groups, "clean"):
        score = score_on_test(floor.scores, "rouge1")
        if score is None or (loader is not None and floor.loader != loader):
            continue
        name, line = _FLOORS.get(floor.floor, (_label(floor.floor), "-."))
        label = f"floor: {name}"
        if loader is not None:
            axes.axhline(score, color=FLOOR_INK, linestyle=line, linewidth=1.1, label=label)
        elif floor.loader in ticks:
            middle = ticks.index(floor.loader)
            axes.hlines(
                score,
                middle - 0.3,
                middle + 0.3,
                color=FLOOR_INK,
                linestyle=line,
                linewidth=1.1,
                label=label,
            )


def _by_method(sweep: SweepResults) -> DrawnFigure | None:
    """Every metric of the second table by method, as dots."""
    stages = {stage.name for stage in sweep.stages if stage.table == "methods"} or {
        stage.name for stage in sweep.stages if stage.table is None
    }
    groups = [g for g in group_replicates(sweep, stages, "clean") if g.done]
    labels = [_method_name(group) for group in groups]
    if len({method_label(group.spec) for group in groups}) < 2:
        return None
    metrics = [("rouge1", "ROUGE-1"), ("bertscore_f1", "BERTScore F1"), ("meteor", "METEOR")]
    metrics = [(key, title) for key, title in metrics if _points(groups, key)]
    names = list(dict.fromkeys(labels))
    height = 1.3 + 0.3 * len(names)
    figure = Figure(figsize=(2.5 * len(metrics) + 1.2, height), layout="constrained")
    grid = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    loaders = sorted({str(group.spec.get("loader")) for group in groups})
    for axes, (key, title) in zip(grid, metrics, strict=True):
        for point in _points(groups, key):
            number = loaders.index(str(point.group.spec.get("loader")))
            axes.errorbar(
                point.score,
                names.index(_method_name(point.group)),
                xerr=point.spread,
                color=PALETTE[number % len(PALETTE)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle="none",
                markersize=6,
                label=f"loader {_label(loaders[number])}",
            )
            _floor_marks(axes, sweep, point, key, names.index(_method_name(point.group)))
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        highest = axes.dataLim.xmax
        axes.set_xlim(-0.05 * highest, 1.08 * highest)
        axes.grid(visible=False, axis="y")
        axes.tick_params(length=0)
        axes.set_xlabel(title)
    _legend(figure, grid, "")
    best = max(_points(groups, metrics[0][0]), key=lambda point: point.score)
    return draw(
        "scores_by_method",
        "Scores by method",
        f"{', '.join(title for _, title in metrics)} on the test pairs, narrowest beam, for"
        f" {', '.join(names)}. Highest {metrics[0][1]}: {best.score:.2f}, {_method_name(best.group)}."
        " Grey lines are the floors.",
        figure,
    )


def _floor_marks(axes: Axes, sweep: SweepResults, point: _Point, metric: str, row: int) -> None:
    """The floors of a row's own loader, across that row."""
    for floor in floors_of(sweep, [point.group], "clean"):
        score = score_on_test(floor.scores, metric)
        if score is not None:
            name, line = _FLOORS.get(floor.floor, (_label(floor.floor), "-."))
            axes.vlines(
                score,
                row - 0.45,
                row + 0.45,
                color=FLOOR_INK,
                linestyle=line,
                linewidth=1.2,
                label=f"floor: {name}",
            )


def _method_name(group: Replicates) -> str:
    return f"{_label(method_label(group.spec))}, {_label(group.spec.get('loader'))}"


def _label(value: object) -> str:
    """A value short enough for a figure, and without characters that a figure cannot hold."""
    text = escape_controls(shown_value(value))
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"


def _losses(sweep: SweepResults) -> DrawnFigure | None:
    """Training loss and validation loss by step, side by side."""
    curves: list[tuple[TrialResult, tuple[_Curve, ...]]] = []
    for trial in sweep.done:
        steps = read_steps(sweep.folder / "trials" / trial.id)
        if steps and protocol_of(trial.spec) == "clean":
            train = [(s.step, s.train_loss) for s in steps if s.train_loss is not None]
            valid = [(s.step, s.valid_loss) for s in steps if s.valid_loss is not None]
            curves.append((trial, (train, valid)))
    if not curves:
        return None
    count = len(curves)
    if count > _MOST_CURVES:
        lowest = sorted(curves, key=lambda one: _last_loss(one[0]))[:_MOST_CURVES]
        kept = {trial.id for trial, _ in lowest}
        curves = [one for one in curves if one[0].id in kept]
    figure = Figure(figsize=(7.8, 3.1), layout="constrained")
    grid = figure.subplots(1, 2, sharey=True, squeeze=False)[0]
    titles = ("Training loss", "Validation loss")
    _draw_curves(figure, grid, curves, titles, "Optimiser step", _LOSSES_DIFFER_BY)
    grid[0].set_ylabel("Loss")
    return draw(
        "losses",
        "Losses by step",
        f"Training and validation loss of {len(curves)} trials"
        + (f" of {count}, those of the lowest validation loss," if count > len(curves) else "")
        + " by optimiser step; long curves are"
        f" running means over a {_SMOOTHING}th of their points.",
        figure,
    )


def _last_loss(trial: TrialResult) -> float:
    return trial.scores.get("valid/loss", math.inf)


def _rewards(sweep: SweepResults) -> list[DrawnFigure]:
    """Reward and KL by update; a figure for each method, as their rewards are different things."""
    by_method: dict[str, list[tuple[TrialResult, tuple[_Curve, ...]]]] = {}
    for trial in sweep.done:
        updates = read_updates(sweep.folder / "trials" / trial.id)
        reward, kl = (
            [(u.step, u.measured[name]) for u in updates if name in u.measured]
            for name in ("reward", "kl")
        )
        if reward or kl:
            by_method.setdefault(method_label(trial.spec), []).append((trial, (reward, kl)))
    figures = []
    for number, (method, curves) in enumerate(by_method.items(), start=1):
        figure = Figure(figsize=(7.8, 3.1), layout="constrained")
        grid = figure.subplots(1, 2, squeeze=False)[0]
        titles = ("Reward", "KL, nats per reply")
        _draw_curves(figure, grid, curves, titles, "Update", _REWARDS_DIFFER_BY)
        figures.append(
            draw(
                # Not by the method: any text may stand there.
                "reward_and_kl" if number == 1 else f"reward_and_kl_{number}",
                f"Reward and KL by update: {_label(method)}",
                f"Mean reward of an update's replies, and their KL divergence from the policy that"
                f" training began with, of {len(curves)} trials of {_label(method)}; long curves"
                f" are running means over a {_SMOOTHING}th of their points.",
                figure,
            )
        )
    return figures


def _draw_curves(
    figure: Figure,
    grid: Sequence[Axes],
    curves: Sequence[tuple[TrialResult, tuple[_Curve, ...]]],
    titles: Sequence[str],
    step_name: str,
    names: Sequence[str],
) -> None:
    """One line a trial in each panel; colour and line say in which settings it differs.

    Args:
        figure: gets the legend.
        grid: a panel for each title.
        curves: trials, each with a curve for each panel.
        titles: of the panels.
        step_name: what a step is.
        names: settings that may tell trials apart; the first two that do are shown.
    """
    settings = [{**effective_fields(t.spec), "method": method_label(t.spec)} for t, _ in curves]
    varying = [name for name in names if len({repr(one.get(name)) for one in settings}) > 1]
    colour_by, line_by = [*varying, "", ""][:2]
    colours = _in_order(one.get(colour_by) for one in settings)
    lines = _in_order(one.get(line_by) for one in settings)
    for number, (axes, title) in enumerate(zip(grid, titles, strict=True)):
        for (_, panels), one in zip(curves, settings, strict=True):
            measured = _smoothed(panels[number])
            colour, line = colours.index(one.get(colour_by)), lines.index(one.get(line_by))
            shown = [_label(one.get(name)) for name in (colour_by, line_by) if name]
            axes.plot(
                [step for step, _ in measured],
                [value for _, value in measured],
                color=PALETTE[colour % len(PALETTE)],
                linestyle=LINES[line % len(LINES)],
                marker="o" if len(measured) < 12 else None,
                markersize=3,
                linewidth=1.1,
                alpha=0.85,
                label=", ".join(shown) or "trial",
            )
        axes.set_title(title)
        axes.set_xlabel(step_name)
        axes.tick_params(length=0)
    _legend(figure, grid, ", ".join(_TITLES[name] for name in varying[:2]))


def _smoothed(curve: _Curve) -> _Curve:
    """A running mean over the last points of a long curve; a short one as it is."""
    window = len(curve) // _SMOOTHING
    if window < 2:
        return curve
    values = [value for _, value in curve]
    return [
        (curve[end - 1][0], statistics.fmean(values[end - window : end]))
        for end in range(window, len(curve) + 1)
    ]


def _distinct(points: Sequence[_Point], name: str) -> list[object]:
    """The values that a setting takes among the points that have it."""
    return _in_order(point.settings[name] for point in points if name in point.settings)


def _in_order(values: Iterable[object]) -> list[object]:
    """Each value once: numbers by size, anything else as it comes."""
    distinct = list(dict.fromkeys(values))
    numbers = [value for value in distinct if isinstance(value, int | float)]
    return [*sorted(numbers)] if len(numbers) == len(distinct) else distinct


def _legend(figure: Figure, grid: Sequence[Axes], title: str) -> None:
    """One legend beside the panels, each name once, the floors last."""
    entries: dict[str, Any] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    labels = sorted(entries, key=lambda label: label.startswith("floor"))
    legend = figure.legend(
        [entries[label] for label in labels],
        labels,
        loc="outside right upper",
        title=title[:1].upper() + title[1:] or None,
        alignment="left",
    )
    legend.get_title().set_fontsize(8)
