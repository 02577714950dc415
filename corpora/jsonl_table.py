"""JSON Lines text becomes rows with line numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corpora.findings import Findings
from corpora.table import Table, table_of_objects


def parse_jsonl(file: str, text: str, findings: Findings) -> Table | None:
    """The objects of a JSON Lines file; blank lines are left out.

    Args:
        file: the file's name in messages.
        text: the whole file.
        findings: gets lines that are no JSON object.

    Returns:
        The table, its columns the keys of all objects; None where no object was found.
    """
    if text.lstrip().startswith("["):
        findings.error(
            file, "line 1", "each line must be one JSON object, but the file is a JSON array", "["
        )
        return None
    return table_of_objects(file, _values(file, text, findings), "a line", findings)


def _values(file: str, text: str, findings: Findings) -> Iterator[tuple[int, object]]:
    """The values of the lines that are JSON, each with its line's number."""
    # Not splitlines(): JSON strings may hold U+2028 and other marks that it would cut at.
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            value = json.loads(source)
        except json.JSONDecodeError as error:
            findings.error(
                file,
                f"line {line}, column {error.colno}",
                f"a line must be valid JSON: {error.msg}",
            )
        except (RecursionError, ValueError):
            # Nested too deeply, or a number of thousands of digits.
            findings.error(file, f"line {line}", "a line must be JSON of ordinary size and depth")
        else:
            yield line, value
