"""What a person sees in the terminal: bars, a line for each measurement, a table at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

WIDTH = 120  # of lines in a file or a pipe


class Display:
    """Bars where the output is a terminal; where it is a file or a pipe, the lines alone."""

    def __init__(self, console: Console | None = None) -> None:
        """Write to ``console``, by default the standard output."""
        self.console = console or Console(highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    @contextmanager
    def live(self) -> Iterator[Display]:
        """Show bars as long as the context is open."""
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars:
            self._bars = bars
            try:
                yield self
            finally:
                self._bars, self._tasks = None, {}

    def start(self, bar: str, total: int | None, note: str = "") -> None:
        """(Re)start the bar of this name; ``total`` is None where it is not known."""
        if self._bars is None:
            return
        if bar in self._tasks:
            self._bars.reset(self._tasks[bar], total=total, note=note)
        else:
            self._tasks[bar] = self._bars.add_task(bar, total=total, note=note)

    def advance(self, bar: str, by: int = 1) -> None:
        """Move the bar of this name."""
        if self._bars is not None and bar in self._tasks:
            self._bars.advance(self._tasks[bar], by)

    def line(self, text: str) -> None:
        """Print one line above the bars."""
        self.console.print(text, markup=False)  # a model may have written what reads like markup

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(title=title, title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*map(escape, row))  # names and answers may hold what reads like markup
        self.console.print(table)


def quiet_libraries() -> None:
    """Leave the terminal to the display: the libraries' own bars and notices off, their warnings on."""
    import datasets as hf_datasets
    import transformers

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # trl's range is narrow for the sake of these trainers
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    hf_datasets.disable_progress_bars()
