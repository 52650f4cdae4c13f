"""Raw rows to rows of one shape, a block at a time: what any process can read by itself.

A ``Reading`` says how; it is small and can be handed to another process with the raw rows of a block, which are lines
that nobody has parsed where the source has such. So one process only cuts a file into pieces, and parsing, layout and
all that follows is done by whoever has the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BytesIO
from itertools import groupby
from typing import Protocol, TypeVar

from valuedrift_mlflow.data.columns import mapped
from valuedrift_mlflow.data.files import Line, Unread, parsed
from valuedrift_mlflow.data.kinds import as_kind, says_the_same
from valuedrift_mlflow.data.layouts import Layout
from valuedrift_mlflow.data.messages import Outcome, Raw
from valuedrift_mlflow.data.settings import Kind, Turns
from valuedrift_mlflow.data.turns import answers, runs
from valuedrift_mlflow.inputs.errors import problem
from valuedrift_mlflow.inputs.rows import Record, Row

ROWS = 2_000  # of a block,
CHARACTERS = 4_000_000  # or fewer where they are long: so many in all, and the row that passes it
_NUMBER = 32  # bytes of one in a list
MAX_PROBLEMS = 20
# A reason quotes its cell, which may hold a whole dialogue.
_LONGEST_REASON = 300
Refused = Callable[[Record], str]  # why a model cannot be shown a row; empty where it can
_Thing = TypeVar("_Thing")


@dataclass
class ReadCounts:
    """What a pass over data has read: raw rows, those that were bad, those that teach nothing.

    ``labelled_bad`` are answers that the data call bad, where good ones are learnt from. ``given`` rows hold
    ``answers`` to learn from (of kind sft). Rows of equal sides (``equal``) are among the dropped ones.
    In PRISM's utterances the rows of a turn without a pair count as dropped. ``problems`` has a line for each of the
    first 20 bad rows, with its number and the reason.
    """

    read: int = 0
    bad: int = 0
    dropped: int = 0
    labelled_bad: int = 0
    given: int = 0
    answers: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, later: ReadCounts) -> None:
        """Count what was read after this."""
        for name in (own.name for own in fields(self)):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        del self.problems[MAX_PROBLEMS:]


@dataclass(frozen=True)
class Reading:
    """How the raw rows of some data become rows of ``kind``.

    Of kind sft every answer of a dialogue is learnt from, or with ``turns`` the last one alone. Bad rows are left out
    where it ``skips`` them. ``columns`` are those of ``data.columns``; a row for which ``refused`` has a reason is bad.
    """

    uri: str
    kind: Kind
    layout: Layout
    turns: Turns = "all"
    skips: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    refused: Refused | None = None

    @property
    def row_by_row(self) -> bool:
        """Whether any process may read any of the rows."""
        return self.layout.row_by_row and self.refused is None

    def rows(self, unread: Iterable[Unread], counts: ReadCounts) -> Iterator[Record]:
        """The rows, which are counted; from the first bad one on there are none, unless it skips them."""
        for outcome in self.layout.read(self._readable(unread, counts)):
            outcome = self._checked(outcome)
            if outcome.bad:
                self._note(counts, outcome)
            counts.dropped += outcome.dropped
            # Read on, but give nothing: all bad rows are told at once, and nobody trains on a part by mistake.
            if counts.bad and not self.skips:
                continue
            for row in outcome.rows:
                if says_the_same(row):
                    counts.dropped += 1
                    counts.equal += 1
                    continue
                made = self._made(row)
                counts.labelled_bad += not made
                counts.given += len(made)
                counts.answers += sum(answers(one["completion"]) for one in made) if self.kind == "sft" else 0
                yield from made

    def narrowed(self, unread: Unread) -> Unread:
        """A raw row without the cells that nobody reads, where it has been parsed: they may be pictures."""
        used = self.layout.used.values()
        # With columns that the recipe names a bad row tells of all that it has.
        if isinstance(unread, Line) or unread.row is None or self.columns or not used:
            return unread
        return unread._replace(row={column: unread.row[column] for column in used if column in unread.row})

    def _checked(self, outcome: Outcome) -> Outcome:
        """A row that the model's chat template refuses is a bad one."""
        if self.refused is None:
            return outcome
        reason = next(filter(None, map(self.refused, outcome.rows)), "")
        return outcome._replace(rows=(), bad=reason) if reason and not outcome.bad else outcome

    def _made(self, row: Record) -> list[Record]:
        """The rows of the kind that one row of its source gives; see ``turns.runs``."""
        # A label speaks of the last answer alone.
        if self.kind == "sft" and self.turns == "all" and row.get("dialogue") and "label" not in row:
            return [one for run in runs(row) for one in as_kind(self.kind, run)]
        return as_kind(self.kind, row)

    def _readable(self, unread: Iterable[Unread], counts: ReadCounts) -> Iterator[Raw]:
        """The raw rows that are rows; the others are noted."""
        for one in unread:
            counts.read += 1
            raw = mapped(parsed(one), self.columns) if self.columns else parsed(one)
            if raw.row is None:
                self._note(counts, Outcome(raw, bad=raw.problem))
            else:
                yield raw

    def _note(self, counts: ReadCounts, outcome: Outcome) -> None:
        counts.bad += 1
        if len(counts.problems) < MAX_PROBLEMS:
            counts.problems.append(bad_row(self.uri, outcome.raw, outcome.bad, self.layout.format))


def bad_row(uri: str, raw: Raw, reason: str, format: str) -> str:
    """The line that tells of a bad row."""
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}..."
    where = f"data {uri} {raw.file} row {raw.number}" if raw.file else f"data {uri} row {raw.number}"
    return problem(where, reason, f"a row of format {format}")


class Block(Protocol):
    """Some of the rows of a source, in their order."""

    def rows(self, counts: ReadCounts) -> Iterator[Row]:
        """The rows, which are counted where they have not been."""
        ...


@dataclass(frozen=True)
class GivenRows:
    """Rows that have been read."""

    given: Sequence[Row]

    def rows(self, counts: ReadCounts) -> Iterator[Row]:
        """As they are; whoever has read them has counted them."""
        return iter(self.given)


@dataclass(frozen=True)
class RawRows:
    """Raw rows, and how they are read; ``only_checked`` where nobody wants them, but to know whether they are bad."""

    reading: Reading
    unread: Sequence[Unread]
    only_checked: bool = False

    def __reduce__(self) -> tuple[Callable[..., RawRows], tuple[object, ...]]:
        """With lines that follow each other as one text, which is handed on in a fifth of the time."""
        lines = [one for one in self.unread if isinstance(one, Line)]
        if len(lines) < len(self.unread):
            return RawRows, (self.reading, self.unread, self.only_checked)
        runs: list[tuple[str, int, bytes]] = []
        for (file, before), run in groupby(enumerate(lines), lambda own: (own[1].file, own[1].number - own[0])):
            together = list(run)
            runs.append((file, before + together[0][0], b"".join(line.text for _, line in together)))
        return _of_runs, (self.reading, runs, self.only_checked)

    def rows(self, counts: ReadCounts) -> Iterator[Row]:
        """Read."""
        for row in self.reading.rows(self.unread, counts):
            if not self.only_checked:
                yield row


def _of_runs(reading: Reading, runs: Sequence[tuple[str, int, bytes]], only_checked: bool) -> RawRows:
    lines = [
        Line(number, text, file)
        for file, first, together in runs
        for number, text in enumerate(BytesIO(together), first)
    ]
    return RawRows(reading, lines, only_checked)


def given(rows: Iterable[Row]) -> Iterator[GivenRows]:
    """Rows that have been read, in blocks."""
    return map(GivenRows, cut(rows, _characters))


def raw(reading: Reading, unread: Iterable[Unread], counts: ReadCounts) -> Iterator[RawRows]:
    """Raw rows that do not depend on each other, in blocks; once ``counts`` has a bad one the rest is only checked."""
    for some in cut(map(reading.narrowed, unread), _characters):
        yield RawRows(reading, some, bool(counts.bad) and not reading.skips)


def cut(things: Iterable[_Thing], size_of: Callable[[_Thing], int]) -> Iterator[list[_Thing]]:
    """Rows in lists of a bounded number, and of bounded size however long they are."""
    some: list[_Thing] = []
    size = 0
    for thing in things:
        some.append(thing)
        size += size_of(thing)
        if len(some) == ROWS or size > CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _characters(thing: object) -> int:
    """Those of all texts in a row, or about as many as need as much memory."""
    size, left = 0, [thing]
    while left:  # and not one call within another: cells may be nested as deeply as JSON is
        value = left.pop()
        if isinstance(value, Line):
            size += len(value.text)
        elif isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        else:
            size += _NUMBER
    return size
