"""CSV text becomes rows with line numbers; whatever is broken is named with its line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from corpora.findings import Findings
from corpora.table import Row, Table

MAX_CELL_CHARACTERS = 1 << 20
_DELIMITERS = ",;\t"
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_TOO_LONG = (
    f"a cell must hold at most {MAX_CELL_CHARACTERS:,} characters "
    "(is a quotation mark left open here?); the file was read up to this line"
)


def parse_csv(file: str, text: str, findings: Findings) -> Table | None:
    """The rows of a CSV file whose first row is the header.

    The delimiter (comma, semicolon or tab) is the one that cuts the header into most columns.
    Rows without any value are left out.

    Args:
        file: the file's name in messages.
        text: the whole file.
        findings: gets broken quotes, cells that are too long, and rows of the wrong width.

    Returns:
        The table as far as it could be read; None where there is no header or no row under it.
    """
    delimiter = _sniff_delimiter(file, text, findings)
    if delimiter is None:
        return None
    header: tuple[str, ...] | None = None
    rows: list[Row] = []
    misshapen = 0
    for line, cells in _records(file, text, delimiter, findings):
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = tuple(cell.strip() for cell in cells)
        elif len(cells) == len(header):
            rows.append(Row(line, dict(zip(header, cells, strict=True))))
        else:
            misshapen += 1
            hint = (
                f"; a cell that holds {delimiter!r} needs quotation marks around it"
                if len(cells) > len(header)
                else ""
            )
            findings.error(
                file,
                f"line {line}",
                f"a row must have {len(header)} fields, as the header has{hint}",
                len(cells),
            )
    if header is None:
        return None
    if not rows:
        if not misshapen:
            findings.error(file, "line 1", "the file must hold rows, but it has only a header")
        return None
    return Table(file, header, tuple(rows))


def _lines(text: str) -> Iterator[str]:
    """The text's lines with their ends, one at a time: a file is not held in memory twice."""
    return (match.group() for match in _LINE.finditer(text))


def _sniff_delimiter(file: str, text: str, findings: Findings) -> str | None:
    """The delimiter; None, with an error, where the header has a cell that is too long."""
    number, head = next(
        ((number, line) for number, line in enumerate(_lines(text), 1) if line.strip()), (1, "")
    )
    try:
        with _cell_limit(MAX_CELL_CHARACTERS):
            return max(
                _DELIMITERS,
                key=lambda delimiter: len(next(csv.reader([head], delimiter=delimiter))),
            )
    except csv.Error:
        findings.error(file, f"line {number}", _TOO_LONG)
        return None


def _records(
    file: str, text: str, delimiter: str, findings: Findings
) -> Iterator[tuple[int, list[str]]]:
    """The file's records, each with the line on which it begins; ends at the first broken one."""
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        start = reader.line_num
        try:
            with _cell_limit(MAX_CELL_CHARACTERS):
                while not (cells := next(reader)):
                    start = reader.line_num  # A blank line.
        except StopIteration:
            return
        except csv.Error as error:
            _explain(file, text, start, reader.line_num, delimiter, str(error), findings)
            return
        yield start + 1, cells


@contextmanager
def _cell_limit(characters: int) -> Iterator[None]:
    """The csv module's own limit is one for the whole process, so it is put back."""
    before = csv.field_size_limit(characters)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _explain(
    file: str,
    text: str,
    start: int,
    stop: int,
    delimiter: str,
    reason: str,
    findings: Findings,
) -> None:
    """Say which quotation mark went wrong: the parser itself only knows where it noticed."""
    if reason.startswith("field larger"):
        findings.error(file, f"line {start + 1}", _TOO_LONG)
        return
    line, column = _last_opening_quote(text, start, stop, delimiter)
    noticed = (
        "the file ends before it is closed"
        if reason.startswith("unexpected end")
        else f"it closes inside a cell on line {stop}"
    )
    findings.error(
        file,
        f"line {line}, column {column}",
        f"a quotation mark must be closed (and doubled inside a cell), but {noticed}; "
        "the file was read up to this line",
    )


def _last_opening_quote(text: str, start: int, stop: int, delimiter: str) -> tuple[int, int]:
    """Line and column, from 1, of the quotation mark that the broken cell begins with."""
    opened = (start + 1, 1)
    quoted = False
    may_open = True  # at the beginning of a cell
    may_reopen = False  # right behind a closing mark: a doubled one
    for index, line in enumerate(islice(_lines(text), start, stop), start=start):
        for column, character in enumerate(line, start=1):
            if quoted:
                quoted = character != '"'
                may_open, may_reopen = False, not quoted
            elif character == '"' and (may_open or may_reopen):
                if may_open:
                    opened = (index + 1, column)
                quoted = True
            else:
                may_reopen = False
                may_open = character == delimiter or (may_open and character == " ")
    return opened
