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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from valuedrift_mlflow.data import blocks, own, sources
from valuedrift_mlflow.data.arrow_rows import as_dataset, store
from valuedrift_mlflow.data.blocks import Block, ReadCounts, Reading, Refused
from valuedrift_mlflow.data.columns import columns_of, mapped
from valuedrift_mlflow.data.files import Unread, parsed
from valuedrift_mlflow.data.formats import FORMATS, MAX_DROPPED
from valuedrift_mlflow.data.kinds import COLUMNS, serves
from valuedrift_mlflow.data.layouts import Layout, layout_of, other_kind
from valuedrift_mlflow.data.marks import dialogue
from valuedrift_mlflow.data.messages import Message
from valuedrift_mlflow.data.mixing import mixed
from valuedrift_mlflow.data.settings import Data, Kind, Turns
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


class _Counted(Protocol):
    counts: ReadCounts  # of the block that a part is made of


_Part = TypeVar("_Part", bound=_Counted)
_NEEDS: dict[Kind | None, str] = {
    "sft": "one answer to each prompt, not preference pairs",
    "pairs": "prompt, chosen and rejected",
    "labelled": "prompt, completion and label, or pairs to make them from",
    "prompts": "a prompt",
    None: "answers or preference pairs",
}
_FIRST_ROWS = 100  # whose columns are taken for those of the data


class Digest:
    """Hash of rows that pass one by one, 8 hex digits: of a stream the same as of all its rows in memory."""

    def __init__(self) -> None:
        """No row yet."""
        # As if json.dumps had written all rows as one list, which would need them all in memory.
        self._hashed = hashlib.sha256(b"[")
        self._any = False

    @staticmethod
    def text(rows: Iterable[Row]) -> bytes:
        """What is hashed of rows that follow each other, in any process."""
        return ", ".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows).encode()

    def take(self, text: bytes) -> None:
        """Take in the ``text`` of the next rows; that of none is empty."""
        if text:
            self._hashed.update(b", " + text if self._any else text)
            self._any = True

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
        for row in self.rows:
            digest.take(Digest.text([row]))
        return str(digest)

    def dataset(self) -> datasets.Dataset:
        """The rows as a Hugging Face dataset with the columns that TRL's trainers expect."""
        return as_dataset(self.rows).select_columns(list(COLUMNS[self.kind]))


class Stream:
    """Rows of any data in one shape, read anew each time it is iterated, in memory that does not grow with them.

    A row has the columns of its ``kind`` (``COLUMNS``), all texts as messages, and ``topic``, ``proposition_id``,
    ``stance``, ``chosen_stance``, ``rejected_stance`` and ``label`` where the source names them. ``counts`` is of the
    latest pass and complete at its end.

    A pass raises an InputError after the last raw row: where a row is bad (unless ``data.on_bad_row`` is ``skip``), and
    from the first such row on it gives no more rows; where more than 1 % of the rows teach nothing (unless ``skip``;
    of PRISM any share may); where it gave no row at all.
    """

    def __init__(self, reading: Reading, rows: sources.Rows) -> None:
        """Raw rows that are read in a known way; see ``stream``."""
        self.uri, self.kind, self.turns = reading.uri, reading.kind, reading.turns
        self.layout = reading.layout
        self.format = reading.layout.format
        self.counts = ReadCounts()
        self._reading = reading
        self._rows = rows

    def __iter__(self) -> Iterator[Record]:
        self.counts = counts = ReadCounts()
        yield from self._reading.rows(self._counted(), counts)
        self._finish(counts)

    def parts(self, read: Callable[[Iterator[Block]], Iterator[_Part]]) -> Iterator[_Part]:
        """A pass by blocks of rows: what ``read`` makes of each, in their order and in whatever process.

        ``Block.rows`` gives the rows of a block, and the part that is made of it carries their counts. There is none
        of a block with a bad row nor of those after it, unless bad rows are skipped.
        """
        self.counts = counts = ReadCounts()
        for part in read(self._blocks(counts)):
            counts.add(part.counts)
            if self._reading.skips or not counts.bad:
                yield part
        self._finish(counts)

    def _blocks(self, counts: ReadCounts) -> Iterator[Block]:
        if self._reading.row_by_row:
            return blocks.raw(self._reading, self._counted(), counts)
        return blocks.given(self._reading.rows(self._counted(), counts))

    def _counted(self) -> Iterator[Unread]:
        """The raw rows. Long reading gives a sign of life in the log."""
        return counted(self._rows(), logger.warning, f"reading {self.uri}")

    def _finish(self, counts: ReadCounts) -> None:
        given, skips = counts.given, self._reading.skips
        if counts.bad and not (skips and given):
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
        most = 1.0 if skips else self.layout.max_dropped
        if counts.dropped > most * counts.read or not given:
            allowed = f"at most {most:.0%} of rows with an empty answer or two equal ones"
            if most == 1:
                allowed = "at least one row that has something to learn"
            mend = "remove these rows from the data" if most == 1 else "remove these rows, or set data.on_bad_row=skip"
            raise InputError(problem(f"data {self.uri}", f"{counts.dropped} of {counts.read}", allowed, mend))
        if counts.dropped:
            logger.info("data %s: %d of %d rows dropped: nothing to learn", self.uri, counts.dropped, counts.read)


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
    # After the layout: the error says what was recognised instead.
    if not (serves(layout.kind, kind) if kind else layout.kind != "prompts"):
        found = f"{layout.format} ({layout.kind}) with the columns {', '.join((*layout.used.values(), *layout.unused))}"
        needed = f"{kind or 'other'} data{f' for {algorithm}' if algorithm else ''}: {_NEEDS[kind]}"
        raise InputError(problem(f"data {data.uri}", found, needed, other_kind(data, layout, kind)))
    columns = columns_of(data) if data.columns else {}
    skips = data.on_bad_row == "skip"
    return Stream(Reading(data.uri, kind or layout.kind, layout, turns, skips, columns, refused), rows)


def _layout(data: Data, rows: sources.Rows, kind: Kind | None) -> Layout:
    """How the rows are laid out, by the first of them."""
    function = None if data.format == "auto" else own.function(data.format)
    if function is not None:
        form, bad = own.known(function, map(parsed, rows()), _FIRST_ROWS)
        if form is None:
            told = bad[: blocks.MAX_PROBLEMS]
            raise InputError([blocks.bad_row(data.uri, raw, reason, data.format) for raw, reason in told])
        return Layout(data.format, form)
    first = _first_rows(data, rows)
    if not data.columns:
        return layout_of(data, first, kind)
    named = columns_of(data)
    read = {path.partition(".")[0] if path not in first[0] else path for path in named.values()}
    others = [column for row in first for column in row if column not in read]
    return layout_of(data, _first_rows(data, rows, named), kind, others)


def _first_rows(data: Data, rows: sources.Rows, columns: Mapping[str, str] | None = None) -> list[Row]:
    """The first rows that can be read, whose columns are taken for those of the data."""
    wrong: list[str] = []

    def readable() -> Iterator[Row]:
        for given in rows():
            raw = mapped(parsed(given), columns) if columns else parsed(given)
            if raw.row is not None:
                yield raw.row
            elif len(wrong) < blocks.MAX_PROBLEMS:
                wrong.append(blocks.bad_row(data.uri, raw, raw.problem, data.format))

    first = list(islice(readable(), _FIRST_ROWS))
    if not any(first):
        raise InputError(wrong or problem("data", data.uri, "at least one row", "the source is empty"))
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
