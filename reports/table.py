"""What a table is before it is shown: each cell keeps its value apart from its look."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cached_property
from typing import Literal

from reports.fields import DASH

State = Literal["value", "not run", "failed", "pending", "n/a"]
"""Why a cell has no value: nobody ran it, it failed, it is still to run, the metric was left out."""

RowKind = Literal["trial", "published", "floor"]
"""Our trials; a row that the study has and the sweep lacks; replies that need no model."""


@dataclass(frozen=True)
class Column:
    """One metric of a table."""

    key: str
    """`rouge1_beam1`, `bertscore_f1`, `meteor`."""
    group: str
    """What neighbouring columns share: `ROUGE-1`."""
    title: str
    """What tells them apart: `beam 1`."""
    decimals: int
    """Digits shown after the point."""

    @property
    def full_title(self) -> str:
        """The column's name where there is no heading above it."""
        return f"{self.group} {self.title}".strip()


@dataclass(frozen=True)
class Cell:
    """One metric of one row."""

    state: State
    decimals: int
    value: float | None = None
    """Mean over the seeds, at full precision."""
    n: int = 0
    """Seeds behind the value."""
    spread: float | None = None
    """Sample standard deviation over the seeds; absent below two."""
    published: float | None = None
    """The number that the study printed for the same settings."""
    best: bool = False
    """Whether no other trial's value in the column prints higher."""

    @property
    def text(self) -> str:
        """Ours alone: `12.10`, `12.10 ± 0.32`, or the state."""
        if self.value is None:
            return self.state
        mean = shown_number(self.value, self.decimals)
        if self.spread is None:
            return mean
        return f"{mean} ± {shown_number(self.spread, self.decimals)}"

    @property
    def published_text(self) -> str:
        """The study's number alone, or a dash."""
        return DASH if self.published is None else shown_number(self.published, self.decimals)


@dataclass(frozen=True)
class Row:
    """One row: what was run, and what came out."""

    kind: RowKind
    labels: tuple[str, ...]
    """As shown, one for each of the table's label columns."""
    values: tuple[object, ...]
    """The same at full precision; absent where the row has none."""
    cells: tuple[Cell, ...]
    trials: tuple[str, ...] = ()
    """Identities of the trials behind the row."""

    @property
    def has_published(self) -> bool:
        """Whether the study printed a number for the row's settings."""
        return any(cell.published is not None for cell in self.cells)


@dataclass(frozen=True)
class Table:
    """A whole table, ready for any format."""

    name: str
    """File name without its ending: `table1`, `table1_chatmgl`."""
    sweep: str
    scale: str
    protocol: str
    caption: str
    labels: tuple[str, ...]
    """Titles of the label columns."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    warning: str
    """What must be read before any number; empty where nothing must."""
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """`Table 1`, and which protocol where it is not the clean one."""
        number = self.name.removeprefix("table").split("_")[0]
        return f"Table {number}" + (" (ChatMGL protocol)" if self.protocol == "chatmgl" else "")

    @property
    def has_published(self) -> bool:
        """Whether the study's numbers stand beside any of ours."""
        return any(row.has_published for row in self.rows)

    @cached_property
    def numeric_labels(self) -> tuple[bool, ...]:
        """For each label column, whether its values are numbers."""
        return tuple(
            all(isinstance(value, int | float) for value in column if value is not None)
            and any(value is not None for value in column)
            for column in (
                [row.values[index] for row in self.rows] for index in range(len(self.labels))
            )
        )

    def grouped_columns(self) -> tuple[tuple[str, tuple[Column, ...]], ...]:
        """Neighbouring metric columns under the heading they share."""
        groups: list[tuple[str, list[Column]]] = []
        for column in self.columns:
            if groups and groups[-1][0] == column.group:
                groups[-1][1].append(column)
            else:
                groups.append((column.group, [column]))
        return tuple((name, tuple(members)) for name, members in groups)


def shown_number(value: float, decimals: int) -> str:
    """A number with a fixed count of decimals; zero is `0.00`, never blank and never `-0.00`."""
    # From the shortest text that is the number: 5.135 is a tie, which its binary form hides.
    rounded = Decimal(repr(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN)
    return str(abs(rounded) if rounded == 0 else rounded)
