r"""A table as LaTeX for `\input`: needs booktabs and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable

from reports.table import Cell, Row, Table, shown_number

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    # A line break followed by a bracket or a star would read it as its argument.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u2013": r"\textendash{}",
    "\u2014": r"\textemdash{}",
    "…": r"\ldots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\u201c": "``",
    "\u201d": "''",
    "\u2018": "`",
    "\u2019": "'",
}
_WITHOUT_GLYPH = frozenset("ÐÞðþĄąĘęĮįŲųĐđŊŋĦħĸĿŀŉŦŧ«»")
"""Characters that LaTeX's own font encoding lacks: an error that stops the document."""
_WIDE = 9
"""Columns from which a smaller type is needed to fit the page."""


def render_latex(table: Table) -> str:
    """A float with caption, label and notes; the study's numbers stand under ours, in parentheses."""
    width = len(table.labels) + len(table.columns)
    alignment = "".join("r" if numeric else "l" for numeric in table.numeric_labels)
    alignment += "r" * len(table.columns)
    spread = any(cell.spread is not None for row in table.rows for cell in row.cells)
    lines = [
        r"% Needs booktabs. Where graphicx is loaded too, a table wider than the line is scaled to it.",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}"
        + (rf" \textbf{{{escape_latex(table.warning)}}}" if table.warning else "")
        + "}",
        rf"\label{{tab:{_label(table)}}}",
        r"\par\smallskip",
        r"\scriptsize" if spread else r"\footnotesize" if width >= _WIDE else r"\small",
        r"\setlength{\tabcolsep}{2.5pt}" if spread else r"\setlength{\tabcolsep}{4pt}",
        r"\sbox0{%",
        rf"\begin{{tabular}}{{@{{}}{alignment}@{{}}}}",
        r"\toprule",
        *_heading(table),
        r"\midrule",
    ]
    before: Row | None = None
    for row in table.rows:
        if before is not None and (before.kind == "floor") != (row.kind == "floor"):
            lines.append(r"\midrule")
        lines += _row(row)
        before = row
    lines += [
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth",
        r"\ifdefined\resizebox\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        r"\else\usebox0\fi",
    ]
    if table.notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\scriptsize\raggedright"]
        lines += [rf"{escape_latex(note)}\par" for note in table.notes]
        lines.append(r"\end{minipage}")
    lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; characters that pdflatex cannot know become their code."""
    escaped = "".join(_character(character) for character in " ".join(text.split()))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would print as a dash


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    # Latin letters are what inputenc's utf8 covers in every installation.
    known = " " <= character <= "~" or "\u00a0" <= character < "\u017f"
    if known and character not in _WITHOUT_GLYPH:
        return character
    return f"{{[}}U+{ord(character):04X}{{]}}"


def _heading(table: Table) -> Iterable[str]:
    """Two lines: what columns share, and what tells them apart."""
    first, rules = [""] * len(table.labels), []
    position = len(table.labels) + 1
    for name, columns in table.grouped_columns():
        span = len(columns)
        first.append(rf"\multicolumn{{{span}}}{{c}}{{{escape_latex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{position}-{position + span - 1}}}")
        position += span
    second = [*table.labels, *(column.title for column in table.columns)]
    yield f"{' & '.join(first)} \\\\"
    yield " ".join(rules)
    yield f"{' & '.join(escape_latex(title) for title in second)} \\\\"


def _row(row: Row) -> Iterable[str]:
    """Ours, and the study's numbers on a line of their own where the table has any."""
    cells = [*(escape_latex(label) for label in row.labels), *map(_cell, row.cells)]
    yield f"{' & '.join(cells)} \\\\"
    if row.has_published:
        published = [
            rf"{{\scriptsize ({escape_latex(cell.published_text)})}}" for cell in row.cells
        ]
        yield f"{' & '.join([''] * len(row.labels) + published)} \\\\[2pt]"


def _cell(cell: Cell) -> str:
    if cell.value is None:
        return rf"\textit{{{escape_latex(cell.text)}}}"
    mean = shown_number(cell.value, cell.decimals)
    text = rf"\textbf{{{mean}}}" if cell.best else mean
    if cell.spread is None:
        return text
    return rf"{text}{{\tiny$\pm${shown_number(cell.spread, cell.decimals)}}}"


def _label(table: Table) -> str:
    r"""A label of letters, digits and hyphens alone, so that `\ref` takes it."""
    text = f"{table.sweep}-{table.name}"
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
