"""A table as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.table import Cell, Row, Table
from search_spaces.controls import escape_controls


def render_markdown(table: Table) -> str:
    """The table with caption and notes; the study's numbers stand in parentheses after ours."""
    titles = [*table.labels, *(column.full_title for column in table.columns)]
    aligned = ["---:" if numeric else "---" for numeric in table.numeric_labels]
    aligned += ["---:"] * len(table.columns)
    lines = [f"**{escape_markdown(table.caption)}**", ""]
    if table.warning:
        lines += [f"> **{escape_markdown(table.warning)}**", ""]
    lines.append(_line(escape_markdown(title) for title in titles))
    lines.append(_line(aligned))
    lines += [_line(_cells(row)) for row in table.rows]
    lines.append("")
    lines += [f"- {escape_markdown(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, inside a table or outside."""
    entities = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", escape_controls(" ".join(entities.split())))


def _cells(row: Row) -> list[str]:
    labels = [escape_markdown(label) for label in row.labels]
    return [*labels, *(_cell(cell, row) for cell in row.cells)]


def _cell(cell: Cell, row: Row) -> str:
    text = cell.text
    if cell.value is None:
        text = f"*{text}*"
    elif cell.best:
        text = f"**{text}**"
    if row.has_published:
        text += f" ({cell.published_text})"
    return text


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
