"""A part of a page of simulations: docs/validity.md and docs/ablation_validity.md are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One part of the page: a title, what is to be said, columns, and what makes the rows of so many runs."""

    title: str
    said: str
    columns: Row
    make: Callable[[int], list[Row]]
    runs: int
    figure: Callable[[Sequence[Row], Path], None] | None = None
    after: str = ""

    def lines(self, rows: Sequence[Row], picture: str = "", runs: int = 1) -> list[str]:
        """The part as Markdown, with the number of runs where it is above one."""
        cells = [" | ".join(row) for row in (self.columns, ("---",) * len(self.columns), *rows)]
        shown = [f"![{self.title}]({picture})", ""] if self.figure else []
        said = [f"{self.said} {runs} runs of each row.", ""] if runs > 1 else [self.said, ""]
        after = [self.after, ""] if self.after else []
        return [f"## {self.title}", "", *said, *shown, *(f"| {line} |" for line in cells), "", *after]
