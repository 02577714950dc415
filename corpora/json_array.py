"""A JSON array of objects becomes rows with line numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from corpora.findings import Findings
from corpora.table import Table, table_of_objects

_SPACE = re.compile(r"\s*")


def parse_json_array(file: str, text: str, findings: Findings) -> Table | None:
    """The objects of a file that is one JSON array.

    Args:
        file: the file's name in messages.
        text: the whole file; begins with `[`.
        findings: gets what is no JSON, and items that are no objects.

    Returns:
        The table as far as it could be read, its columns the keys of all objects; None where no
        object was found.
    """
    table = table_of_objects(file, _items(file, text, findings), "an item", findings)
    if table is None and not findings.failed_in(file):
        findings.error(file, "line 1", "the array must hold objects, but it is empty")
    return table


def _items(file: str, text: str, findings: Findings) -> Iterator[tuple[int, object]]:
    """The array's items, each with the line on which it begins; ends at the first broken one."""
    decoder = json.JSONDecoder()
    place = _skip(text, text.index("[") + 1)
    line, counted = 1, 0
    # Item by item, because a whole array's items do not say where they stood.
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            findings.error(
                file, f"line {error.lineno}, column {error.colno}", f"must be JSON: {error.msg}"
            )
            return
        except (RecursionError, ValueError):
            findings.error(file, f"line {line}", "an item must be JSON of ordinary size and depth")
            return
        yield line, value
        place = _skip(text, place)
        mark = text[place : place + 1]
        if mark == ",":
            place = _skip(text, place + 1)
        elif mark != "]":
            line += text.count("\n", counted, place)
            findings.error(file, f"line {line}", "must be JSON: expecting `,` or `]`", mark)
            return
    if text[place + 1 :].strip():
        line += text.count("\n", counted, place)
        findings.error(file, f"line {line}", "nothing may follow the array")


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
