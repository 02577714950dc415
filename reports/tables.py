"""The study's two tables out of a sweep's results, parameters and methods, and one of costs.

Replies scored under the `chatmgl` protocol never share a table with clean ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reports.fields import (
    effective_fields,
    flatten_spec,
    is_trained,
    method_label,
    shown_value,
)
from reports.notes import cost_notes, scale_warning, table_notes
from reports.published import EVALUATION, PARAMETERS, PublishedEvaluation
from reports.replicates import (
    Published,
    Replicates,
    floor_cell,
    floors_of,
    group_replicates,
    match_evaluation,
    match_parameters,
    varying_fields,
)
from reports.results import SweepResults
from reports.table import Cell, Column, Row, RowKind, Table, shown_number

PROTOCOLS = ("clean", "chatmgl")

Missing = tuple[Mapping[str, object], Published]
"""Settings of a row that the study has and the sweep lacks, and what it printed."""

STUDY_NAME = "paper_name"
"""Label field that holds what the study calls a method."""

SEEDS = "seeds"
"""Label field that counts the replicates that are done."""

_FLOOR_LABELS = {"echo": "floor: echo", "fixed": "floor: fixed reply"}
_TEST_SET = ("split", "corpus", "metrics")
"""Parts of a specification that a floor has too."""

_TITLES = {STUDY_NAME: "In the paper"}
_NEVER_COLUMNS = ("seed", "method", "peft_type", "acts", "tuning", "rl", "protocol")
"""Fields that a varying column is never made of: averaged over, or said by another label."""

_COSTS = (
    Column("trainable_parameters", "Trained", "parameters", 0),
    Column("trainable_percent", "Trained", "% of all", 3),
    Column("peak_memory_gib", "Memory", "peak GiB", 2),
    Column("seconds_per_step", "Time", "s/step", 3),
)


def report_tables(sweep: SweepResults) -> tuple[Table, ...]:
    """Every table that the sweep has trials for, in the order of the study."""
    made = (
        make(sweep, protocol)
        for protocol in PROTOCOLS
        for make in (parameter_table, evaluation_table, cost_table)
    )
    return tuple(table for table in made if table is not None)


def parameter_table(sweep: SweepResults, protocol: str = "clean") -> Table | None:
    """Table 1: one row for each trained combination of settings, beside the study's.

    Args:
        sweep: the results.
        protocol: `clean`, or `chatmgl` for the variant whose scored texts hold their prompts.

    Returns:
        Nothing where the sweep has no such trial.
    """
    stages = {stage.name for stage in sweep.stages if stage.table in ("parameters", None)}
    groups = group_replicates(sweep, stages, protocol, is_trained)
    if not groups:
        return None
    methods_vary = len({method_label(group.spec) for group in groups}) > 1
    first = ["model", *(["method"] if methods_vary else []), "loader"]
    fields = _label_fields([*first, "learning_rate", "batch_size"], groups)
    columns = (
        *_rouge_columns(groups),
        Column("bertscore_f1", "BERTScore", "F1", 3),
        Column("bertscore_recall", "BERTScore", "R", 3),
        Column("bertscore_precision", "BERTScore", "P", 3),
    )
    matches = match_parameters(groups)
    missing: list[Missing] = [
        (
            {
                "model": f"gpt2-{row.size}",
                "method": "sft",
                "loader": row.loader,
                "learning_rate": row.learning_rate,
                "batch_size": row.batch_size or "not stated",
            },
            row,
        )
        for row in PARAMETERS
        if row not in matches.values() and protocol == "clean"
    ]
    rows = _rows(sweep, groups, fields, columns, matches, missing, protocol)
    caption = "Scores by model, loader, learning rate and batch size"
    return _table(sweep, "table1", caption, groups, fields, columns, rows, protocol)


def evaluation_table(sweep: SweepResults, protocol: str = "clean") -> Table | None:
    """Table 2: one row for each tuning method, beside the study's.

    Trials come from stages with the table `methods`; a stage without a table counts where it
    compares methods.

    Args:
        sweep: the results.
        protocol: `clean`, or `chatmgl` for the variant whose scored texts hold their prompts.

    Returns:
        Nothing where the sweep has no such trial.
    """
    groups = group_replicates(sweep, _method_stages(sweep), protocol)
    if not groups:
        return None
    fields = _method_fields(groups)
    columns = (
        *_rouge_columns(groups),
        Column("bertscore_f1", "BERTScore", "F1", 3),
        Column("meteor", "METEOR", "", 4),
    )
    matches = match_evaluation(groups)
    missing: list[Missing] = [
        ({"method": row.method, "loader": row.loader}, row)
        for row in EVALUATION
        if row not in matches.values() and protocol == "clean"
    ]
    rows = _rows(sweep, groups, fields, columns, matches, missing, protocol)
    caption = "Scores by tuning method"
    return _table(sweep, "table2", caption, groups, fields, columns, rows, protocol)


def cost_table(sweep: SweepResults, protocol: str = "clean") -> Table | None:
    """Table 3, ours: what each tuning method costs, for the rows of table 2.

    Args:
        sweep: the results.
        protocol: `clean`, or `chatmgl` for the trials of that table.

    Returns:
        Nothing where the sweep has no such trial.
    """
    groups = group_replicates(sweep, _method_stages(sweep), protocol)
    if not groups:
        return None
    fields = [field for field in _method_fields(groups) if field != STUDY_NAME]
    rows = tuple(
        _row(
            "trial",
            fields,
            _labels(group),
            [group.cost_cell(column) for column in _COSTS],
            [trial.id for trial in group.trials],
        )
        for group in groups
    )
    trials = [trial for group in groups for trial in group.trials]
    table = _table(
        sweep, "table3", "What each method costs", groups, fields, _COSTS, rows, protocol
    )
    return replace(table, notes=cost_notes(trials, rows))


def _method_stages(sweep: SweepResults) -> set[str]:
    """Stages that compare methods: those that say so, or that have several and say nothing."""
    stages = {stage.name for stage in sweep.stages if stage.table == "methods"}
    for stage in sweep.stages:
        specs = [sweep.trials[trial].spec for trial in stage.trials if trial in sweep.trials]
        if stage.table is None and len({method_label(spec) for spec in specs}) > 1:
            stages.add(stage.name)
    return stages


def _rows(
    sweep: SweepResults,
    groups: Sequence[Replicates],
    fields: Sequence[str],
    columns: Sequence[Column],
    matches: Mapping[int, Published],
    missing: Iterable[Missing],
    protocol: str,
) -> tuple[Row, ...]:
    """Our rows, then what the study has and the sweep lacks, then the floors."""
    rows: list[Row] = []
    for index, group in enumerate(groups):
        published = matches.get(index)
        labels = {**_labels(group), STUDY_NAME: _study_name(published)}
        cells = [group.cell(column, published) for column in columns]
        rows.append(_row("trial", fields, labels, cells, [trial.id for trial in group.trials]))
    for settings, published in missing:
        labels = {**settings, STUDY_NAME: _study_name(published)}
        cells = [Cell("not run", c.decimals, published=published.value(c.key)) for c in columns]
        rows.append(_row("published", fields, labels, cells))
    for floor in floors_of(sweep, groups, protocol):
        name = _FLOOR_LABELS.get(floor.floor, f"floor: {floor.floor}")
        settings = {part: value for part, value in floor.settings.items() if part in _TEST_SET}
        labels = {**flatten_spec(settings), fields[0]: name, "loader": floor.loader}
        row = _row("floor", fields, labels, [floor_cell(floor, column) for column in columns])
        if row not in rows:  # the same test set under other beam widths
            rows.append(row)
    return mark_best(rows, fields.index("loader") if "loader" in fields else None)


def _labels(group: Replicates) -> dict[str, object]:
    """What a row of trials can say of itself, by field."""
    done, planned = len(group.done), len(group.trials)
    return {
        **effective_fields(group.spec),
        "method": method_label(group.spec),
        SEEDS: done if done == planned else f"{done} of {planned}",
    }


def _row(
    kind: RowKind,
    fields: Iterable[str],
    labels: Mapping[str, object],
    cells: Iterable[Cell],
    trials: Iterable[str] = (),
) -> Row:
    values = tuple(labels.get(field) for field in fields)
    return Row(kind, tuple(map(shown_value, values)), values, tuple(cells), tuple(trials))


def _table(
    sweep: SweepResults,
    name: str,
    caption: str,
    groups: Sequence[Replicates],
    fields: Sequence[str],
    columns: Sequence[Column],
    rows: tuple[Row, ...],
    protocol: str,
) -> Table:
    """Rows with their headings, their caption and what must be said under them."""
    if protocol == "chatmgl":
        name += "_chatmgl"
        caption += (
            ", ChatMGL protocol: the prompt was left in the scored text and sampling was used."
            " Not comparable with the other tables"
        )
    return Table(
        name=name,
        sweep=sweep.name,
        scale=sweep.scale,
        protocol=protocol,
        caption=f"{caption}.",
        labels=tuple(_TITLES.get(f, f.replace("_", " ").capitalize()) for f in fields),
        columns=tuple(columns),
        rows=rows,
        warning=scale_warning(sweep),
        notes=table_notes(sweep, [trial for group in groups for trial in group.trials], rows),
    )


def _method_fields(groups: Sequence[Replicates]) -> list[str]:
    """The label fields of a table with one row for each tuning method."""
    model = ["model"] if "model" in varying_fields(groups) else []
    return _label_fields(["method", STUDY_NAME, *model, "loader"], groups)


def _label_fields(first: Sequence[str], groups: Sequence[Replicates]) -> list[str]:
    """The fields that come first, then what varies, then seeds where any row has several."""
    varying = [f for f in varying_fields(groups) if f not in (*first, *_NEVER_COLUMNS)]
    seeds = [SEEDS] if any(len(group.trials) > 1 for group in groups) else []
    return [*first, *varying, *seeds]


def _study_name(published: Published | None) -> str | None:
    return published.name if isinstance(published, PublishedEvaluation) else None


def _rouge_columns(groups: Iterable[Replicates]) -> tuple[Column, ...]:
    """ROUGE-1 at every beam width of the trials."""
    beams: set[int] = set()
    for group in groups:
        beams.update(int(beam) for beam in flatten_spec(group.spec).get("beams") or (1, 2, 4))
    return tuple(
        Column(f"rouge1_beam{beam}", "ROUGE-1", f"beam {beam}", 2) for beam in sorted(beams)
    )


def mark_best(rows: Sequence[Row], loader_column: int | None = None) -> tuple[Row, ...]:
    """The rows with each column's best trial marked; values that print alike are equally good.

    Floors and published numbers do not compete, and one trial alone is no best. Loaders have test
    sets of their own, so a trial competes with those of its loader.

    Args:
        rows: all of a table's.
        loader_column: which label names the loader; absent where all rows share one.
    """

    def contest(row: Row) -> object:
        return None if loader_column is None else row.values[loader_column]

    best: dict[tuple[object, int], str] = {}
    for loader in dict.fromkeys(contest(row) for row in rows if row.kind == "trial"):
        rivals = [row.cells for row in rows if row.kind == "trial" and contest(row) == loader]
        for index, cells in enumerate(zip(*rivals, strict=True)):
            printed = [
                (cell.value, shown_number(cell.value, cell.decimals))
                for cell in cells
                if cell.value is not None
            ]
            if len(printed) > 1:
                best[loader, index] = max(printed)[1]
    return tuple(
        replace(
            row,
            cells=tuple(
                replace(
                    cell,
                    best=cell.value is not None
                    and shown_number(cell.value, cell.decimals) == best.get((contest(row), index)),
                )
                for index, cell in enumerate(row.cells)
            ),
        )
        if row.kind == "trial"
        else row
        for row in rows
    )
