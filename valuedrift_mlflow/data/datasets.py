"""Training data in any known format to the shape that an algorithm trains on.

The shapes are prompt and completion; prompt, chosen and rejected; prompt, completion and label; a prompt alone. All
texts are messages (lists of ``role`` and ``content``), so that every model sees them through its own chat
template. ``stream`` passes over data of any size; ``load_data`` keeps them for a trainer, on disk where they are many.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from valuedrift_mlflow.data import own, sources
from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.columns import columns_of, mapped
from valuedrift_mlflow.data.formats import FORMATS, MAX_DROPPED
from valuedrift_mlflow.data.kinds import COLUMNS, as_kind, says_the_same, serves
from valuedrift_mlflow.data.layouts import Layout, layout_of, other_kind
from valuedrift_mlflow.data.marks import dialogue
from valuedrift_mlflow.data.messages import Message, Outcome, Raw
from valuedrift_mlflow.data.mixing import mixed
from valuedrift_mlflow.data.settings import Data, Kind, Turns
from valuedrift_mlflow.data.turns import answers, runs
from valuedrift_mlflow.inputs.errors import InputError, naming, one_line, problem
from valuedrift_mlflow.inputs.pulse import counted
from valuedrift_mlflow.inputs.rows import Record, Row
from valuedrift_mlflow.stances import STANCES

if TYPE_CHECKING:
    import datasets

__all__ = [
    "COLUMNS",
    "FORMATS",
    "MAX_DROPPED",
    "Digest",
    "Kind",
    "Message",
    "ReadCounts",
    "Stream",
    "TrainingData",
    "check_data",
    "dialogue",
    "load_data",
    "stream",
]
logger = logging.getLogger(__name__)
Refused = Callable[[Record], str]  # why a model cannot be shown a row; empty where it can
_NEEDS: dict[Kind | None, str] = {
    "sft": "one answer to each prompt, not preference pairs",
    "pairs": "prompt, chosen and rejected",
    "labelled": "prompt, completion and label, or pairs to make them from",
    "prompts": "a prompt",
    None: "answers or preference pairs",
}
_MAX_PROBLEMS = 20
_FIRST_ROWS = 100  # whose columns are taken for those of the data
# A reason quotes its cell, which may hold a whole dialogue.
_LONGEST_REASON = 300


class Digest:
    """Hash of rows that pass one by one, 8 hex digits: of a stream the same as of all its rows in memory."""

    def __init__(self) -> None:
        """No row yet."""
        # As if json.dumps had written all rows as one list, which would need them all in memory.
        self._hashed = hashlib.sha256(b"[")
        self._any = False

    def passing(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows as they are, taken in."""
        for row in rows:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False)
            self._hashed.update((f", {text}" if self._any else text).encode())
            self._any = True
            yield row

    def __str__(self) -> str:
        """The digits of what has passed so far."""
        whole = self._hashed.copy()
        whole.update(b"]")
        return whole.hexdigest()[:8]


@dataclass(frozen=True)
class TrainingData:
    """Rows ready for a trainer, where they came from, and how many teach nothing (``dropped``) or were ``bad``.

    ``rows`` is a sequence of dictionaries: a list, or where they are many a file on disk that is read as one.
    ``stance_mix`` has the (support, neutral, oppose) shares of each topic where the rows name their stances: those of
    answers, of chosen responses, or of completions labelled good. ``layout`` is what was recognised in the source.
    ``mixed`` says in words which of them come from a second source; ``counts`` is of the first.
    """

    uri: str
    kind: Kind
    format: str
    rows: Sequence[Record]
    dropped: int = 0
    stance_mix: dict[str, tuple[float, ...]] = field(default_factory=dict)
    bad: int = 0
    layout: Layout | None = None
    counts: ReadCounts | None = None  # of the pass that read them
    turns: Turns = "all"
    mixed: str = ""

    def digest(self) -> str:
        """Hash of all rows, 8 hex digits, as MLflow's datasets carry."""
        return self._digest

    # Once: rows may be many, and the run, its audit and the check of a resumed run all ask for it.
    @cached_property
    def _digest(self) -> str:
        digest = Digest()
        for _ in digest.passing(self.rows):
            pass
        return str(digest)

    def dataset(self) -> datasets.Dataset:
        """The rows as a Hugging Face dataset with the columns that TRL's trainers expect."""
        return as_dataset(self.rows).select_columns(list(COLUMNS[self.kind]))


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


class Stream:
    """Rows of any data in one shape, read anew each time it is iterated, in memory that does not grow with them.

    A row has the columns of its ``kind`` (``COLUMNS``), all texts as messages, and ``topic``, ``proposition_id``,
    ``stance``, ``chosen_stance``, ``rejected_stance`` and ``label`` where the source names them. ``counts`` is of the
    latest pass and complete at its end.

    A pass raises an InputError after the last raw row: where a row is bad (unless ``data.on_bad_row`` is ``skip``), and
    from the first such row on it gives no more rows; where more than 1 % of the rows teach nothing (unless ``skip``;
    of PRISM any share may); where it gave no row at all.
    """

    def __init__(
        self,
        data: Data,
        kind: Kind,
        layout: Layout,
        rows: sources.Rows,
        turns: Turns = "all",
        refused: Refused | None = None,
    ) -> None:
        """Rows that are laid out in a known way, as rows of ``kind``; see ``stream``."""
        self.uri = data.uri
        self.turns = turns
        self._refused = refused
        self.kind = kind
        self.format = layout.format
        self.layout = layout
        self.counts = ReadCounts()
        self._skips = data.on_bad_row == "skip"
        self._rows = rows

    def __iter__(self) -> Iterator[Record]:
        self.counts = counts = ReadCounts()
        for outcome in self.layout.read(self._readable(counts)):
            outcome = self._checked(outcome)
            if outcome.bad:
                self._note(counts, outcome)
            counts.dropped += outcome.dropped
            # Read on, but give nothing: all bad rows are told at once, and nobody trains on a part by mistake.
            if counts.bad and not self._skips:
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
        self._finish(counts, counts.given)

    def _checked(self, outcome: Outcome) -> Outcome:
        """A row that the model's chat template refuses is a bad one."""
        if self._refused is None:
            return outcome
        reason = next(filter(None, map(self._refused, outcome.rows)), "")
        return outcome._replace(rows=(), bad=reason) if reason and not outcome.bad else outcome

    def _made(self, row: Record) -> list[Record]:
        """The rows of the stream's kind that one row of its source gives; see ``turns.runs``."""
        # A label speaks of the last answer alone.
        if self.kind == "sft" and self.turns == "all" and row.get("dialogue") and "label" not in row:
            return [one for run in runs(row) for one in as_kind(self.kind, run)]
        return as_kind(self.kind, row)

    def _readable(self, counts: ReadCounts) -> Iterator[Raw]:
        """The raw rows that are rows; the others are noted. Long reading gives a sign of life in the log."""
        for raw in counted(self._rows(), logger.warning, f"reading {self.uri}"):
            counts.read += 1
            if raw.row is None:
                self._note(counts, Outcome(raw, bad=raw.problem))
            else:
                yield raw

    def _note(self, counts: ReadCounts, outcome: Outcome) -> None:
        counts.bad += 1
        if len(counts.problems) < _MAX_PROBLEMS:
            counts.problems.append(_bad_row(self.uri, outcome.raw, outcome.bad, self.format))

    def _finish(self, counts: ReadCounts, given: int) -> None:
        if counts.bad and not (self._skips and given):
            hidden = counts.bad - len(counts.problems)
            raise InputError(counts.problems + ([f"data {self.uri}: {hidden} more bad rows"] if hidden else []))
        if counts.bad:
            logger.warning(
                "data %s: %d of %d rows left out as bad\n%s",
                self.uri,
                counts.bad,
                counts.read,
                "\n".join(one_line(line, most=None) for line in counts.problems),
            )
        if counts.labelled_bad:
            logger.warning("data %s: %d answers labelled bad left out", self.uri, counts.labelled_bad)
            if not given:
                found = f"{counts.labelled_bad} answers labelled bad"
                raise InputError(problem(f"data {self.uri}", found, "at least one answer labelled good"))
        most = 1.0 if self._skips else self.layout.max_dropped
        if counts.dropped > most * counts.read or not given:
            allowed = f"at most {most:.0%} of rows with an empty answer or two equal ones"
            if most == 1:
                allowed = "at least one row that has something to learn"
            mend = "remove these rows from the data" if most == 1 else "remove these rows, or set data.on_bad_row=skip"
            raise InputError(problem(f"data {self.uri}", f"{counts.dropped} of {counts.read}", allowed, mend))
        if counts.dropped:
            logger.info("data %s: %d of %d rows dropped: nothing to learn", self.uri, counts.dropped, counts.read)


def _bad_row(uri: str, raw: Raw, reason: str, format: str) -> str:
    if len(reason) > _LONGEST_REASON:
        reason = f"{reason[:_LONGEST_REASON]}..."
    where = f"data {uri} {raw.file} row {raw.number}" if raw.file else f"data {uri} row {raw.number}"
    return problem(where, reason, f"a row of format {format}")


def check_data(data: Data, field: str = "data") -> None:
    """Everything that can be said of a data URI without reading rows; ``field`` is what problems of a mixture call it.

    Raises:
        InputError: bad options of an embedded corpus, a missing file, an unknown format or file type, a format of a
        user that cannot be imported.
    """
    if data.format != "auto":
        own.function(data.format)
    sources.check_source(data)
    if data.mixed_in is not None:
        with naming(f"{field}.mixed_in"):
            check_data(data.mixed_in)


def stream(data: Data, kind: Kind | None = None, algorithm: str = "", *, turns: Turns = "all") -> Stream:
    """Data of any size as rows of ``kind``; without it, pairs or answers as the data is. Data on the hub are streamed.

    Of dialogues every answer is learnt from, or with ``turns`` the last one alone; users' turns between answers stay
    in the completion of a row of kind sft.

    Raises:
        InputError: a source that cannot be read, unknown columns, or the wrong kind of data. Bad rows are an error of
        the pass that meets them.
    """
    if data.mixed_in is not None:
        raise InputError(
            problem(f"data {data.uri} mixed_in", data.mixed_in.uri, "none here: trainings mix, no others do")
        )
    check_data(data)
    return _stream(data, kind, algorithm, turns, None, download=False)


def _stream(
    data: Data, kind: Kind | None, algorithm: str, turns: Turns, refused: Refused | None, *, download: bool
) -> Stream:
    rows = sources.open_rows(data, download=download)
    layout = _layout(data, rows, kind)
    if data.columns:
        rows = mapped(rows, columns_of(data))
    # After the layout: the error says what was recognised instead.
    if not (serves(layout.kind, kind) if kind else layout.kind != "prompts"):
        found = f"{layout.format} ({layout.kind}) with the columns {', '.join((*layout.used.values(), *layout.unused))}"
        needed = f"{kind or 'other'} data{f' for {algorithm}' if algorithm else ''}: {_NEEDS[kind]}"
        raise InputError(problem(f"data {data.uri}", found, needed, other_kind(data, layout, kind)))
    return Stream(data, kind or layout.kind, layout, rows, turns, refused)


def _layout(data: Data, rows: sources.Rows, kind: Kind | None) -> Layout:
    """How the rows are laid out, by the first of them."""
    function = None if data.format == "auto" else own.function(data.format)
    if function is not None:
        form, bad = own.known(function, rows(), _FIRST_ROWS)
        if form is None:
            raise InputError([_bad_row(data.uri, raw, reason, data.format) for raw, reason in bad[:_MAX_PROBLEMS]])
        return Layout(data.format, form)
    first = _first_rows(data, rows)
    if not data.columns:
        return layout_of(data, first, kind)
    named = columns_of(data)
    read = {path.partition(".")[0] if path not in first[0] else path for path in named.values()}
    others = [column for row in first for column in row if column not in read]
    return layout_of(data, _first_rows(data, mapped(rows, named)), kind, others)


def _first_rows(data: Data, rows: sources.Rows) -> list[Row]:
    """The first rows that can be read, whose columns are taken for those of the data."""
    unread: list[str] = []

    def readable() -> Iterator[Row]:
        for raw in rows():
            if raw.row is not None:
                yield raw.row
            elif len(unread) < _MAX_PROBLEMS:
                unread.append(_bad_row(data.uri, raw, raw.problem, data.format))

    first = list(islice(readable(), _FIRST_ROWS))
    if not any(first):
        raise InputError(unread or problem("data", data.uri, "at least one row", "the source is empty"))
    return first


def load_data(
    data: Data,
    kind: Kind,
    algorithm: str = "",
    *,
    turns: Turns = "all",
    refused: Refused | None = None,
    field: str = "data",
) -> TrainingData:
    """Read training data and bring it into the shape that ``kind`` asks for.

    Pairs also serve as labelled answers (chosen true, rejected false), and the prompts of any format as prompts.
    ``algorithm`` is named where the data has the wrong shape for it. Data on the hub stay in the hub's cache. Many rows
    are kept in a file that goes when the process ends, in the folder for temporary files (``TMPDIR``). ``turns`` is as
    in ``stream``; a row for which ``refused`` has a reason is a bad one. ``field`` is what problems of a mixture call
    ``data``, such as ``sft.data``.

    Raises:
        InputError: a source that cannot be read, unknown columns, the wrong kind of data, or bad rows (each with its
        number), which ``data.on_bad_row=skip`` leaves out.
    """
    check_data(data, field)
    read = _stream(data, kind, algorithm, turns, refused, download=True)
    planted: dict[str, Counter[str]] = {}
    source, told = _mixed(data, read, algorithm, refused, field)
    rows = store(_counted(source, kind, planted))
    mix = {} if kind == "prompts" else {t: tuple(c[s] / c.total() for s in STANCES) for t, c in planted.items()}
    counts = read.counts
    return TrainingData(
        data.uri, kind, read.format, rows, counts.dropped, mix, counts.bad, read.layout, counts, turns, told
    )


def _mixed(
    data: Data, read: Stream, algorithm: str, refused: Refused | None, field: str
) -> tuple[Iterable[Record], str]:
    """The rows with those of a second source among them where there is one, and what is told of it."""
    if data.mixed_in is None:
        return read, ""
    with naming(f"{field}.mixed_in"):
        second = list(_stream(data.mixed_in, read.kind, algorithm, read.turns, refused, download=True))
    return mixed(read, second, data, field), said_of_mixture(data)


def said_of_mixture(data: Data) -> str:
    """Which rows of a set come from a second one, in words; empty where none do."""
    return "" if data.mixed_in is None else f"{data.mixed_share:.3g} of them replaced by rows of {data.mixed_in.uri}"


def _counted(rows: Iterable[Record], kind: Kind, planted: dict[str, Counter[str]]) -> Iterator[Record]:
    """The rows without what their source says of their stances, which is counted by topic."""
    for row in rows:
        # Of a pair the chosen side's: it is what a model is moved towards.
        stance = row.get("stance", row.get("chosen_stance"))
        # An answer labelled bad is none to move towards.
        if row.get("label", True) and isinstance(row.get("topic"), str) and stance in tuple(STANCES):
            planted.setdefault(row["topic"], Counter())[stance] += 1
        yield {column: row[column] for column in COLUMNS[kind]}
