"""A table as CSV for programs: values at full precision, each thing in a column of its own."""

from __future__ import annotations

import csv
import io
import re

from reports.table import Table
from search_spaces.controls import escape_controls

_FORMULA = re.compile(r"(^\s*|[;\t\r\n]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])|^(?=[\t\r\n])")
"""Where a cell would become a formula; the second kind, where a spreadsheet splits at `;` or tabs."""


def render_csv(table: Table) -> str:
    """One line a row; for each metric its mean, spread, seeds, state and the study's number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    titles = ["table", "sweep", "scale", "protocol", "row", *table.labels]
    for column in table.columns:
        titles += [f"{column.key}{end}" for end in ("", "_sd", "_n", "_state", "_paper", "_best")]
    writer.writerow([*titles, "trials"])
    for row in table.rows:
        values: list[object] = [table.name, table.sweep, table.scale, table.protocol, row.kind]
        values += row.values
        for cell in row.cells:
            values += [cell.value, cell.spread, cell.n, cell.state, cell.published, int(cell.best)]
        writer.writerow([safe_value(value) for value in [*values, " ".join(row.trials)]])
    return text.getvalue()


def safe_value(value: object) -> object:
    """A number as it is; text such that no spreadsheet takes it for a formula."""
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return escape_controls(_FORMULA.sub(r"\1'", str(value)))
