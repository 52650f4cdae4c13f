"""A table as people read it and as a program does: the cells of a page, and the same cells as csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Cell = str | float | int | None
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Table:
    """Columns by their names, and rows of as many cells; numbers are written in six digits, NaN as nothing."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    @property
    def cells(self) -> list[list[str]]:
        """Every cell as it is written."""
        return [[_written(cell) for cell in row] for row in self.rows]

    @property
    def csv(self) -> str:
        """The table as csv, with its columns in the first line.

        >>> print(Table(["topic", "drift"], [["abortion", 0.25], ["guns", float("nan")]]).csv, end="")
        topic,drift
        abortion,0.25
        guns,
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.cells)
        return text.getvalue()

    def __bool__(self) -> bool:
        """Whether there is a row."""
        return bool(self.rows)


NO_TABLE = Table((), ())


@dataclass(frozen=True)
class Column(Generic[Subject]):
    """One column of a table that is built from what there is: its name, and the cell of a row of some subject."""

    name: str
    cell: Callable[[Subject, int], str]


def built(columns: Sequence[Column[Subject]], subject: Subject, rows: Sequence[int]) -> Table:
    """The table of these rows of a subject; a column in which no row has anything is left out."""
    kept = [(column.name, [column.cell(subject, row) for row in rows]) for column in columns]
    kept = [(name, cells) for name, cells in kept if any(cells)]
    return Table([name for name, _ in kept], [list(row) for row in zip(*(cells for _, cells in kept), strict=True)])


def _written(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    return cell if isinstance(cell, str) else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
