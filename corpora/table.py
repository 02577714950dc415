"""Rows under named columns, with their line numbers: what CSV and JSONL files have in common."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from corpora.findings import Findings


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    line: int
    """Line on which the row begins, from 1."""
    cells: Mapping[str, object]
    """Values by column name as written; text in CSV, any JSON value in JSONL."""


@dataclass(frozen=True)
class Table:
    """One file's rows."""

    file: str
    columns: tuple[str, ...]
    """Column names as written, without surrounding spaces, in file order."""
    rows: tuple[Row, ...]


def table_of_objects(
    file: str, values: Iterable[tuple[int, object]], item: str, findings: Findings
) -> Table | None:
    """A table with a row for each JSON object.

    Args:
        file: the file's name in messages.
        values: JSON values in file order, each with the line on which it begins.
        item: what messages call a value, e.g. `a line`.
        findings: gets values that are no objects.

    Returns:
        The table, its columns the keys of all objects; None where no object was found.
    """
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for line, value in values:
        if isinstance(value, dict):
            columns.update(dict.fromkeys(value))
            rows.append(Row(line, value))
        else:
            findings.error(
                file, f"line {line}", f"{item} must be a JSON object", type(value).__name__
            )
    return Table(file, tuple(columns), tuple(rows)) if rows else None


def column_key(name: str) -> str:
    """The name without what spelling varies in: letter case, spaces, `_` and `-`."""
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())


def matching_columns(table: Table, names: Iterable[str]) -> tuple[str, ...]:
    """The table's columns that are one of `names`, whatever their spelling."""
    keys = {column_key(name) for name in names}
    return tuple(column for column in table.columns if column_key(column) in keys)


def pick_column(
    table: Table, names: Sequence[str], taken: Collection[str], findings: Findings
) -> str | None:
    """The one column that `names` means.

    Args:
        table: the file.
        names: spellings of the column's name, the usual one first.
        taken: columns that are something else already, so not what a user meant.
        findings: gets a column that is missing or stands twice.
    """
    found = matching_columns(table, names)
    exact = [column for column in found if column == names[0]]
    if len(names) == 1 and len(exact) == 1:
        return names[0]  # of `text` and `Text`, the one that was asked for
    if len(found) == 1:
        return found[0]
    if found:
        findings.error(
            table.file,
            "line 1",
            f"column {names[0]} must stand once in the header",
            ", ".join(found),
        )
        return None
    free = [column for column in table.columns if column not in taken]
    findings.error(
        table.file,
        "line 1",
        f"column {names[0]} must be in the header, which has {listed(table.columns)}",
        nearest=nearest_name(names[0], free),
    )
    return None


def nearest_name(value: str, choices: Iterable[str]) -> str:
    """The choice spelt most like `value` (case ignored), as written; empty where none is near."""
    by_key = {column_key(choice): choice for choice in choices if choice}
    matches = difflib.get_close_matches(column_key(value), list(by_key), n=1, cutoff=0.5)
    return by_key[matches[0]] if matches else ""


def listed(names: Iterable[str], limit: int = 12) -> str:
    """The names in a row for a message, at most `limit` of them."""
    every = [name if len(name) <= 40 else name[:37] + "..." for name in names]
    rest = f" and {len(every) - limit} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + rest
