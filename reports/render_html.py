"""A table as an HTML fragment, for the page and for pasting."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from reports.table import Cell, Row, Table
from search_spaces.controls import escape_controls


def render_html(table: Table) -> str:
    """A `figure` that holds caption, table and notes; the study's numbers stand under ours."""
    lines = [f'<figure class="table" id="{_shown(table.name)}">', "<table>"]
    lines.append(f"<caption>{_shown(table.caption)}</caption>")
    lines += ["<thead>", *_heading(table), "</thead>"]
    for kinds, name in (
        (("trial",), "trials"),
        (("published",), "missing"),
        (("floor",), "floors"),
    ):
        rows = [row for row in table.rows if row.kind in kinds]
        if rows:
            lines.append(f'<tbody class="{name}">')
            for row in rows:
                lines += _row(row, table)
            lines.append("</tbody>")
    lines.append("</table>")
    lines.append("<figcaption>")
    if table.warning:
        lines.append(f'<p class="warning" role="note">{_shown(table.warning)}</p>')
    lines += ["<ul>", *(f"<li>{_shown(note)}</li>" for note in table.notes), "</ul>"]
    lines += ["</figcaption>", "</figure>"]
    return "\n".join(lines) + "\n"


def _heading(table: Table) -> Iterable[str]:
    """Two rows: what columns share, and what tells them apart."""
    yield "<tr>"
    for title, numeric in zip(table.labels, table.numeric_labels, strict=True):
        kind = ' class="number"' if numeric else ""
        yield f'<th scope="col" rowspan="2"{kind}>{_shown(title)}</th>'
    groups = table.grouped_columns()
    for name, columns in groups:
        if len(columns) == 1 and not columns[0].title:
            yield f'<th scope="col" rowspan="2" class="number group">{_shown(name)}</th>'
        else:
            span = len(columns)
            yield f'<th scope="colgroup" colspan="{span}" class="group">{_shown(name)}</th>'
    yield "</tr>"
    yield "<tr>"
    for _, columns in groups:
        for index, column in enumerate(columns):
            if column.title:
                first = " group" if index == 0 else ""
                yield f'<th scope="col" class="number{first}">{_shown(column.title)}</th>'
    yield "</tr>"


def _row(row: Row, table: Table) -> Iterable[str]:
    yield "<tr>"
    for index, (label, value) in enumerate(zip(row.labels, row.values, strict=True)):
        numeric = table.numeric_labels[index]
        kind = ' class="number"' if numeric else ""
        key = f' data-sort="{value!r}"' if numeric and isinstance(value, int | float) else ""
        if index == 0:
            yield f'<th scope="row"{kind}{key}>{_shown(label)}</th>'
        else:
            yield f"<td{kind}{key}>{_shown(label)}</td>"
    firsts = {columns[0].key for _, columns in table.grouped_columns()}
    for cell, column in zip(row.cells, table.columns, strict=True):
        yield _cell(cell, row, column.key in firsts)
    yield "</tr>"


def _cell(cell: Cell, row: Row, first: bool) -> str:
    if cell.value is None:
        state = cell.state.replace(" ", "-").replace("/", "")
        ours, key = f'<span class="state {state}">{_shown(cell.text)}</span>', ""
    else:
        text = _shown(cell.text)
        ours = f"<strong>{text}</strong>" if cell.best else text
        key = f' data-sort="{cell.value!r}"'
    paper = ""
    if row.has_published:
        paper = f' <span class="paper">({_shown(cell.published_text)})</span>'
    return f'<td class="number{" group" if first else ""}"{key}>{ours}{paper}</td>'


def _shown(text: str) -> str:
    return escape(escape_controls(text))
