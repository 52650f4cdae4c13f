"""What a person sees in the terminal: bars, a line for each measurement, a table at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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

from valuedrift_mlflow.inputs.pulse import EVERY, Pulse, lasted, meanwhile
from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.shown import safe

WIDTH = 120  # of lines in a file or a pipe


@dataclass
class _Work:
    """How far something is that would be a bar in a terminal."""

    total: int | None
    note: str
    begun: float
    done: int = 0

    def line(self, name: str, now: float) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        told = f" ({self.note})" if self.note else ""
        return f"{name}{told}: {self.done:,}{of}, {lasted(now - self.begun)}"

    @property
    def open(self) -> bool:
        """Whether there is more to come, as far as is known."""
        return self.total is None or self.done < self.total


class Display:
    """Bars where the output is a terminal; where it is a file or a pipe, lines, one at least every 30 seconds."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to ``console``, by default the standard output; ``clock`` gives seconds."""
        self._clock = clock
        self._pulse = Pulse(clock)
        self._works: dict[str, _Work] = {}
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
        with (
            self._beating(),
            Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bars,
        ):
            self._bars = bars
            try:
                yield self
            finally:
                self._bars, self._tasks = None, {}
                self._works = {}

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Where there is no terminal, look every second whether a line is due, also while one step takes minutes."""
        if self.console.is_terminal:
            yield
            return
        self._pulse.spoken()
        with meanwhile(self.beat, min(1.0, EVERY)):
            yield

    def beat(self) -> None:
        """Print how far the open work is, where 30 seconds have passed without a line."""
        if self.console.is_terminal or not self._pulse.due():
            return
        now = self._clock()
        # Over a copy: the thread that beats looks while others start and end works.
        works = [(name, work) for name, work in list(self._works.items()) if work.open]
        said = "; ".join(work.line(name, now) for name, work in works) or f"working, {lasted(self._pulse.since())}"
        self.console.print(safe(redacted(said)), markup=False)

    def start(self, bar: str, total: int | None, note: str = "") -> None:
        """(Re)start the bar of this name; ``total`` is None where it is not known."""
        self._works.pop(bar, None)  # so that the newest stands last
        self._works[bar] = _Work(total, note, self._clock())
        if self._bars is None:
            return
        if bar in self._tasks:
            self._bars.reset(self._tasks[bar], total=total, note=note)
        else:
            self._tasks[bar] = self._bars.add_task(bar, total=total, note=note)

    def advance(self, bar: str, by: int = 1) -> None:
        """Move the bar of this name."""
        if bar in self._works:
            self._works[bar].done += by
        self.beat()
        if self._bars is not None and bar in self._tasks:
            self._bars.advance(self._tasks[bar], by)

    def line(self, text: str) -> None:
        """Print one line above the bars."""
        self._pulse.spoken()
        self.console.print(safe(redacted(text)), markup=False)  # a model may have written what reads like markup

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table."""
        table = Table(title=_shown(title), title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(_shown(column), justify="left" if index == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*map(_shown, row))
        self.console.print(table)


def _shown(text: str) -> str:
    """A text as a cell of a table: names and answers may hold what reads like markup, or steers a terminal."""
    return escape(safe(redacted(text)))


def quiet_libraries() -> None:
    """Leave the terminal to the display: the libraries' own bars and notices off, transformers' warnings too."""
    import datasets as hf_datasets
    import transformers

    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # trl's range is narrow for the sake of these trainers
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    hf_datasets.disable_progress_bars()
