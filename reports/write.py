"""The whole report of a sweep, rebuilt from its results: tables, figures and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reports.figures import sweep_figures
from reports.page import render_page
from reports.render_csv import render_csv
from reports.render_html import render_html
from reports.render_latex import render_latex
from reports.render_markdown import render_markdown
from reports.results import ReportError, read_sweep
from reports.status import REPORT_FOLDER, TABLE_FORMATS, TABLE_NAMES
from reports.tables import report_tables
from reports.trial_files import leads_out
from search_spaces.atomic import write_atomically
from search_spaces.errors import one_problem

_RENDERERS = {
    "md": render_markdown,
    "tex": render_latex,
    "csv": render_csv,
    "html": render_html,
}


@dataclass(frozen=True)
class ReportPaths:
    """Where the parts of a report are."""

    index: Path
    tables: Mapping[str, Mapping[str, Path]]
    """By table name (`table1`), then by format (`md`, `tex`, `csv`, `html`)."""
    figures: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the report."""
        tables = (file for formats in self.tables.values() for file in formats.values())
        return (self.index, *tables, *self.figures)


def write_report(sweep_folder: Path) -> ReportPaths:
    """Write `report/` in a sweep's folder; equal results make byte-identical files.

    Args:
        sweep_folder: `runs/<sweep>`, finished or not: what is missing is marked as such.

    Returns:
        Where everything was written. Tables and figures of an earlier report that this one does not
        have are gone.

    Raises:
        ReportError: there is no readable plan, or the report would land outside the folder.
        OSError: the report cannot be written.
    """
    sweep = read_sweep(sweep_folder)
    folder = sweep_folder / REPORT_FOLDER
    for place in (folder, folder / "figures"):
        if leads_out(place, sweep_folder):
            message = "must not be a link to outside the sweep's folder"
            raise ReportError(one_problem(str(place), "", message))
    tables = report_tables(sweep)
    figures = sweep_figures(sweep)
    table_files: dict[str, dict[str, Path]] = {}
    for table in tables:
        for ending, render in _RENDERERS.items():
            file = folder / f"{table.name}.{ending}"
            write_atomically(file, render(table))
            table_files.setdefault(table.name, {})[ending] = file
    figure_files: list[Path] = []
    for figure in figures:
        for ending, content in (("svg", figure.svg), ("png", figure.png)):
            file = folder / "figures" / f"{figure.name}.{ending}"
            write_atomically(file, content)
            figure_files.append(file)
    index = folder / "index.html"
    write_atomically(index, render_page(sweep, tables, figures))
    paths = ReportPaths(index, table_files, tuple(figure_files))
    _remove_outdated(folder, set(paths.files))
    return paths


def _remove_outdated(folder: Path, current: set[Path]) -> None:
    """Remove tables and figures of earlier reports; files of other names are not ours."""
    known = [folder / f"{name}.{ending}" for name in TABLE_NAMES for ending in TABLE_FORMATS]
    known += [file for end in ("svg", "png") for file in (folder / "figures").glob(f"*.{end}")]
    for file in known:
        if file not in current:
            file.unlink(missing_ok=True)
