"""A corpus file, a folder of them, or the bundled sample becomes dialogues."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal, assert_never

from corpora import annomi, columns, hope
from corpora.csv_table import parse_csv
from corpora.dialogue import Corpus
from corpora.findings import Findings
from corpora.jsonl_table import parse_jsonl
from corpora.sessions import (
    TurnRow,
    assemble,
    check_usable,
    content_hash,
    session_key,
)
from corpora.table import Table, column_key, listed, nearest_name
from corpora.text_file import read_text
from search_spaces.spec import ColumnMapping, CorpusSpec

Format = Literal["hope", "annomi", "columns"]

SAMPLE = "sample"
SAMPLE_FOLDER = Path(__file__).parent / "sample" / "sessions"

_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl"})
_MOST_FILES = 10_000
_BYSTANDERS = frozenset({".md", ".rst", ""})
"""Suffixes of files that lie beside data without being any."""


def read_corpus(spec: CorpusSpec) -> Corpus:
    """The dialogues of a corpus, in session order.

    A folder's CSV, TSV and JSONL files are read together (not those of its subfolders). Without a
    column mapping, the header tells HOPE from AnnoMI.

    Args:
        spec: `sample` or a path, and the column mapping if there is one.

    Returns:
        The corpus, with what was odd but usable in its `problems`.

    Raises:
        CorpusError: with everything that is wrong in every file.
    """
    findings = Findings(spec.privacy)
    if spec.columns is not None:
        columns.check_mapping(spec.columns, findings)
    paths = _sample_files() if spec.corpus == SAMPLE else _find_files(spec.corpus, findings)
    tables = [table for path in paths if (table := _read_table(path, findings)) is not None]
    format_, tables = _choose_format(spec, tables, findings)
    if format_ is None:
        raise findings.failure()
    dialogues = assemble(
        _read_rows(format_, spec.columns, tables, findings),
        findings,
        numbered=format_ != "columns",
    )
    if not findings.failed:
        check_usable(spec.corpus, dialogues, findings)
    if findings.failed:
        raise findings.failure()
    return Corpus(
        source=spec.corpus,
        format=format_,
        dialogues=dialogues,
        content_hash=content_hash(dialogues),
        problems=findings.oddities,
    )


def _sample_files() -> list[Path]:
    return sorted(SAMPLE_FOLDER.glob("*.csv"), key=lambda path: session_key(path.name))


def _find_files(corpus: str, findings: Findings) -> list[Path]:
    """The data files that a path means, in natural order; none, with an error, where there are none."""
    path = Path(os.path.expanduser(corpus))  # unlike Path's own, leaves unknown users alone
    try:
        if path.is_dir():
            return _find_files_in(path, findings)
        if path.exists():
            return [path]
        findings.error(
            corpus,
            "",
            "a corpus must be `sample` or an existing file or folder, but this does not exist",
            nearest=_nearest_path(path),
        )
    except PermissionError:
        findings.error(corpus, "", "the corpus must be readable, but permission is denied")
    except OSError as error:
        findings.error(corpus, "", f"the corpus cannot be opened: {error.strerror or error}")
    return []


def _find_files_in(folder: Path, findings: Findings) -> list[Path]:
    entries = list(islice((e for e in folder.iterdir() if not e.name.startswith(".")), _MOST_FILES))
    if len(entries) == _MOST_FILES:
        findings.error(
            str(folder),
            "",
            f"a corpus folder must hold fewer than {_MOST_FILES:,} files: join them, or move "
            "what is not part of the corpus elsewhere",
        )
        return []
    entries.sort(key=lambda entry: session_key(entry.name))
    files = [entry for entry in entries if not entry.is_dir()]
    # Also links that lead nowhere, pipes and devices: reading them says what they are.
    usable = [file for file in files if file.suffix.casefold() in _SUFFIXES]
    if not usable:
        found = listed((entry.name + "/" * entry.is_dir() for entry in entries), limit=6)
        findings.error(
            str(folder),
            "",
            "a corpus folder must hold CSV, TSV or JSONL files, "
            + (f"but it holds {found}" if found else "but it is empty"),
            nearest=_nearest_subfolder(entries),
        )
        return []
    for file in files:
        if file not in usable and file.suffix.casefold() not in _BYSTANDERS:
            findings.oddity(str(file), "", "a file that is not CSV, TSV or JSONL was left out")
    return usable


def _nearest_subfolder(entries: Iterable[Path]) -> str:
    """The first subfolder that does hold data files."""
    for entry in entries:
        if entry.is_dir() and any(file.suffix.casefold() in _SUFFIXES for file in entry.iterdir()):
            return str(entry)
    return ""


def _nearest_path(path: Path) -> str:
    """The existing path most like a missing one, looked for where the existing part of it ends."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    siblings = {entry.name: str(entry) for entry in missing.parent.iterdir()}
    if path.parent == Path():
        siblings[SAMPLE] = SAMPLE
    return siblings.get(nearest_name(missing.name, siblings), "")


def _read_table(path: Path, findings: Findings) -> Table | None:
    text = read_text(path, findings)
    if text is None:
        return None
    is_jsonl = path.suffix.casefold() == ".jsonl" or (
        path.suffix.casefold() not in _SUFFIXES and text.lstrip()[:1] in {"{", "["}
    )
    parse = parse_jsonl if is_jsonl else parse_csv
    table = parse(str(path), text, findings)
    if table is None and not findings.failed_in(str(path)):
        # Nothing but blanks, or quotation marks around them.
        findings.error(str(path), "", "the file must hold rows, but it is empty")
    return table


def _choose_format(
    spec: CorpusSpec, tables: list[Table], findings: Findings
) -> tuple[Format | None, list[Table]]:
    """The format of all tables, and those that are in it; None where there is nothing to read."""
    if spec.columns is not None:
        return ("columns" if tables else None), tables
    by_format: dict[Format, list[Table]] = {}
    for table in tables:
        format_ = _recognise(table, findings)
        if format_ is not None:
            by_format.setdefault(format_, []).append(table)
    if len(by_format) > 1:
        examples = (f"{format_} ({found[0].file})" for format_, found in by_format.items())
        findings.error(
            spec.corpus, "", f"a folder must hold files of one format, not {' and '.join(examples)}"
        )
        return None, []
    for format_, recognised in by_format.items():
        return format_, recognised
    return None, []


def _recognise(table: Table, findings: Findings) -> Format | None:
    if hope.recognises(table):
        return "hope"
    if annomi.recognises(table):
        return "annomi"
    if any(hope.is_id(column) for column in table.columns):
        # The first row may be an utterance: it is not shown.
        findings.error(
            table.file,
            "line 1",
            f"the file must begin with its header ({', '.join(_usual_names(hope.COLUMNS))}), "
            "but begins with a row",
        )
        return None
    known = {"HOPE": _usual_names(hope.COLUMNS), "AnnoMI": _usual_names(annomi.COLUMNS)}
    formats = "; ".join(f"{name}: {', '.join(names)}" for name, names in known.items())
    every = [name for names in known.values() for name in names]
    near = {column: nearest_name(column, every) for column in table.columns}
    findings.error(
        table.file,
        "line 1",
        f"the header must be of a known format ({formats}) or come with a column mapping "
        f"(`columns:` with session, speaker and text), but the columns are {listed(table.columns)}",
        nearest=listed(
            f"{name} for {column}"
            for column, name in near.items()
            if name and column_key(name) != column_key(column)
        ),
    )
    return None


def _usual_names(columns: Iterable[tuple[str, ...]]) -> list[str]:
    return [names[0] for names in columns]


def _read_rows(
    format_: Format, mapping: ColumnMapping | None, tables: Iterable[Table], findings: Findings
) -> list[TurnRow]:
    next_turns: Counter[str] = Counter()
    rows: list[TurnRow] = []
    for table in tables:
        match format_:
            case "hope":
                rows.extend(hope.read_rows(table, findings))
            case "annomi":
                rows.extend(annomi.read_rows(table, findings))
            case "columns":
                if mapping is not None:
                    rows.extend(columns.read_rows(table, mapping, next_turns, findings))
            case _:
                assert_never(format_)
    return rows
