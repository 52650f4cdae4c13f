"""The layout of given rows: which format they have, which column is what, and which columns are not used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pickle import PicklingError
from typing import Any

from valuedrift_mlflow.data import compared, names
from valuedrift_mlflow.data.beside import EachRow
from valuedrift_mlflow.data.dialogues import holds_dialogue
from valuedrift_mlflow.data.formats import FORMATS, Format
from valuedrift_mlflow.data.kinds import COLUMNS, NAMED, serves
from valuedrift_mlflow.data.messages import Outcome, Raw, truth
from valuedrift_mlflow.data.settings import NAMES, Data, Kind
from valuedrift_mlflow.embedded import corpus
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import plain

# What `synthesize` writes beside its rows: only a file that has all of it says which stances were planted.
_OURS = ("topic", "proposition_id", "proposition")
_MANY = 10  # rows among which the first answer is the better one at least once
_STANCES = ("stance", "chosen_stance", "rejected_stance")


@dataclass(frozen=True)
class Layout:
    """How rows are laid out: their format, the column of each thing that is read, and the columns that are not.

    ``winners`` are the words of the recipe and the data by which the first of two answers is the better one, and the
    second. A layout of one of the known formats can be handed to another process.
    """

    format: str
    form: Format
    used: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    min_margin: float = 0
    winners: tuple[str, str] | None = None

    def __reduce__(self) -> tuple[Callable[..., Layout], tuple[object, ...]]:
        """By the name of the format, whose functions cannot be pickled."""
        if self.format not in FORMATS:
            raise PicklingError(f"format {self.format} is known in this process alone")
        return _of_known, (self.format, self.used, self.unused, self.min_margin, self.winners)

    @property
    def kind(self) -> Kind:
        """What the rows hold."""
        return self.form.kind

    @property
    def max_dropped(self) -> float:
        """The share of rows that may be dropped before it is an error."""
        # Whoever asks for a margin wants rows to be dropped.
        return 1 if self.min_margin else self.form.max_dropped

    @property
    def row_by_row(self) -> bool:
        """Whether what becomes of a row depends on no other, in any process."""
        return self.format in FORMATS and isinstance(self.form.read, EachRow)

    def read(self, raws: Iterable[Raw]) -> Iterator[Outcome]:
        """What becomes of rows, which reach the format under the names that it knows."""
        read = EachRow(compared.two_with_winner(*self.winners)) if self.winners else self.form.read
        for outcome in read(self._named(raw) for raw in raws):
            if not self.min_margin:
                yield outcome
                continue
            far = [row for row in outcome.rows if row.get("margin", self.min_margin) >= self.min_margin]
            if len(far) < len(outcome.rows):
                dropped = 0 if far else outcome.made_from
                yield outcome._replace(rows=far, dropped=outcome.dropped + dropped)
            else:
                yield outcome

    def _named(self, raw: Raw) -> Raw:
        if not self.used or raw.row is None:
            return raw
        return Raw(raw.number, _renamed(raw.row, self.used), raw.file, raw.problem)

    def line(self) -> str:
        """What was recognised, in one line."""
        read = ", ".join(name if name == column else f"{name} from {column}" for name, column in self.used.items())
        said = f"recognised as {self.format}" + (f" ({read})" if read else "")
        if self.unused:
            said += f"; columns not used: {', '.join(self.unused)}"
        if set(self.unused) & set(_STANCES):
            said += f" (stances that were planted are read beside {', '.join(_OURS)}, or by data.columns)"
        return said


def _of_known(format: str, *others: Any) -> Layout:
    return Layout(format, FORMATS[format], *others)


def _renamed(row: Row, used: Mapping[str, str]) -> Row:
    # With the names that the data have: of `model_1_answer` a winner may be called 1 (`compared.winner`).
    return {"columns": used, **{name: row[column] for name, column in used.items() if column in row}}


def layout_of(data: Data, rows: Sequence[Row], kind: Kind | None, others: Sequence[str] = ()) -> Layout:
    """The layout of data by its first rows. ``others`` are columns that ``data.columns`` has left out.

    Raises:
        InputError: no format has these columns, the named one needs others, or what the settings ask for is not there.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    filled = [column for column in columns if any(row.get(column) not in (None, "", [], {}) for row in rows)]
    candidates = FORMATS if data.format == "auto" else [data.format]
    if data.winner:
        # Who names a winner's column wants two answers compared: no other format reads it.
        candidates = [name for name in candidates if "winner" in FORMATS[name].columns]
    found = [
        layout
        for name in candidates
        # Columns that hold something first: an empty one may have the more telling name.
        if (layout := _fitted(name, filled, data, rows) or _fitted(name, columns, data, rows))
    ]
    fitting = (layout for layout in found if kind is None or serves(layout.kind, kind))
    # Where none serves, the first that was recognised: the error can then say what the data hold instead.
    layout = next(fitting, found[0] if found else None)
    if layout is None:
        raise InputError(_unknown(data, columns, kind))
    used = {**layout.used, **_also(layout, columns, rows, data)}
    spare = dict.fromkeys([*columns, *others])
    unused = [name for name in spare if name not in used.values()]
    layout = replace(layout, used=used, unused=(*unused, *_told_within(used, rows)))
    return _settled(layout, data, rows)


def _told_within(used: Mapping[str, str], rows: Sequence[Row]) -> list[str]:
    """System prompts within the records of a list of answers (UltraFeedback), which no format reads."""
    column = used.get("answers", "")
    records = [one for row in rows if isinstance(row.get(column), list) for one in row[column]]
    keys = dict.fromkeys(key for one in records if isinstance(one, Mapping) for key in one if "system" in key)
    return [f"{column}.{key}" for key in keys]


def _fitted(name: str, columns: Sequence[str], data: Data, rows: Sequence[Row]) -> Layout | None:
    """The layout of a format, where the data have its columns and its rows fit."""
    form = FORMATS[name]
    used = names.resolved(form.columns, _with_winner(columns, data))
    if used is None:
        return None
    if data.winner and "winner" in used:
        used["winner"] = "winner" if data.columns else data.winner.partition("=")[0]
    sample = [_renamed(row, used) for row in rows]
    if data.format == "auto":
        # Any row, not all: single rows may be bad, which is told later with their numbers.
        if form.fits and not any(form.fits(row) for row in sample):
            return None
        if {"chosen", "rejected"} <= set(used) and _name_sides(columns, rows, used):
            return None
        if form.repeats and not form.repeats(sample):
            return None
    return Layout(name, form, used, min_margin=data.min_margin)


def _name_sides(columns: Sequence[str], rows: Sequence[Row], used: Mapping[str, str]) -> bool:
    """Whether ``chosen`` and ``rejected`` only name one of two answers that stand in columns of their own.

    They name it by a word, by its column, or by the model that gave it.
    """
    two = names.resolved(("first", "second"), columns)
    if two is None:
        return False
    words = {word for side in compared.WORDS for word in side} | {*map(str.lower, two.values()), "0", "1", "2"}
    models = names.also(("first_model", "second_model"), columns, two)
    by_model = [models[side] for side in ("first_model", "second_model") if side in models]
    return all(
        str(row.get(used[side])).strip().lower() in words | {str(row.get(model)).strip().lower() for model in by_model}
        for row in rows
        for side in ("chosen", "rejected")
    )


def _with_winner(columns: Sequence[str], data: Data) -> list[str]:
    """The columns, among which the one that the recipe calls the winner has this name alone."""
    if not data.winner or data.columns:
        return list(columns)
    named = data.winner.partition("=")[0]
    kept = [column for column in columns if column != named and plain(column) != "winner"]
    return [*kept, *(["winner"] if named in columns else [])]


# What a format reads only where it is there may be something else under a common name: its cells must look right.
_USABLE: dict[str, Callable[[object], bool]] = {
    "more": lambda value: isinstance(value, str),
    "system": lambda value: isinstance(value, str | Mapping | list),
    "history": lambda value: not isinstance(value, str) or value in ("", "[]") or holds_dialogue(value),
    "label": lambda value: truth(value) is not None,
}


def _also(layout: Layout, columns: Sequence[str], rows: Sequence[Row], data: Data) -> dict[str, str]:
    """What a format reads where it is there, and stances where they are known to be ours."""
    used = names.also(layout.form.also, columns, layout.used)
    for name in layout.form.also:
        values = [value for row in rows if (value := row.get(used.get(name, ""))) is not None]
        usable = [_USABLE[name](value) for value in values if value != ""] if name in used and name in _USABLE else []
        if usable and not any(usable):
            del used[name]
        elif name == "label" and not all(usable):
            # Numbers of classes, or marks from 1 to 5: what 0 or 1 says among them is anybody's guess.
            found = ", ".join(dict.fromkeys(map(str, values)))
            mend = "leave the column out by saying where things are: data.columns {prompt: ..., completion: ...}"
            raise InputError(problem(f"data {data.uri} {used[name]}", found, "true and false, or other words", mend))
    said = set(_STANCES) & set(columns)
    if data.columns or data.uri.startswith(corpus.PREFIX) or (said and set(_OURS) <= set(columns)):
        used |= {name: name for name in NAMED if name in columns and name not in used}
    return used


def _settled(layout: Layout, data: Data, rows: Sequence[Row]) -> Layout:
    """The layout with what the recipe says of winners and margins.

    Raises:
        InputError: it says nothing where it must, or something where there is nothing of the kind.
    """
    rated = layout.form.rated or {"chosen_score", "rejected_score"} <= set(layout.used)
    if data.min_margin and not rated:
        allowed = f"none: rows of format {layout.format} have no ratings"
        raise InputError(problem(f"data {data.uri} min_margin", data.min_margin, allowed))
    if "strength" in layout.used:
        _check_signs(layout, data, rows)
    if "first" not in layout.used or "winner" not in layout.used:
        return layout
    column, _, first = (data.winner or "").partition("=")
    if first:
        return _with_first(layout, data, rows, column, first)
    numbers = compared.unsure([_renamed(row, layout.used) for row in rows], layout.used)
    if numbers:
        column = layout.used["winner"]
        allowed = f"what says which of {layout.used['first']} and {layout.used['second']} is better"
        mend = f"name the value that means {layout.used['first']}: data.winner={column}={numbers[-1]}"
        raise InputError(problem(f"data {data.uri} {column}", numbers, allowed, mend))
    return layout


def _with_first(layout: Layout, data: Data, rows: Sequence[Row], column: str, first: str) -> Layout:
    """The layout where a value of the winner's column, which the recipe names, means the first answer.

    Raises:
        InputError: the first rows do not have it, or have several others: a value that is written otherwise than in the
        data would make the second answer the better one in all rows.
    """
    found = compared.verdicts([_renamed(row, layout.used) for row in rows])
    others = [said for said in found if said != compared.plain_verdict(first)]
    if len(others) == len(found) or len(others) > 1:
        allowed = f"one of two values (and ties); the first {len(rows)} rows have {', '.join(found) or 'none'}"
        raise InputError(problem(f"data {data.uri} winner", f"{column}={first}", allowed))
    return replace(layout, winners=(first, "".join(others)))


def _check_signs(layout: Layout, data: Data, rows: Sequence[Row]) -> None:
    """Refuse numbers for a strength that do not say which of two answers is better.

    Raises:
        InputError: none is below 0, in many rows or beside a column that says who has won.
    """
    column = layout.used["strength"]
    told = [str(row.get(column)).strip() for row in rows]
    beside = names.resolved(("winner",), layout.unused)
    if any(said.startswith("-") for said in told) or not (beside or len(told) >= _MANY):
        return
    allowed = f"some below 0, which say that {layout.used['first']} is better"
    mend = f"if {beside['winner']} says who has won, set data.winner={beside['winner']}" if beside else ""
    raise InputError(problem(f"data {data.uri} {column}", "no number below 0", allowed, mend))


def _unknown(data: Data, columns: Sequence[str], kind: Kind | None) -> str:
    """An error that names the nearest format and the mapping to try."""
    if data.format != "auto" and not data.winner:
        allowed = f"{data.format}: {', '.join(FORMATS[data.format].columns)}"
        return problem(f"data {data.uri} columns", ", ".join(columns), allowed)
    if data.winner and data.winner.partition("=")[0] not in columns and not data.columns:
        return problem(f"data {data.uri} winner", data.winner, f"a column: {', '.join(columns)}")
    nearest, mapping = _to_try(data, columns, kind)
    allowed = f"the columns of a known format; the nearest is {nearest} ({', '.join(FORMATS[nearest].columns)})"
    mend = f"say where things are: {mapping}; or name one with data.format: {', '.join(FORMATS)}"
    return problem(f"data {data.uri} columns", ", ".join(columns), allowed, mend)


def _to_try(data: Data, columns: Sequence[str], kind: Kind | None) -> tuple[str, str]:
    """The nearest format, and a mapping with a place left for what was not found."""
    wanted = ("prompt",) if kind == "prompts" else COLUMNS[kind or "pairs"]
    near = {
        name: sum(names.resolved((part,), columns) is not None for part in form.columns)
        for name, form in FORMATS.items()
        if set(form.columns) <= set(NAMES) and (kind is None or serves(form.kind, kind))
    }
    nearest = max(near, key=lambda name: (near[name], FORMATS[name].columns == wanted))
    if data.winner:
        nearest = "two-answers-winner"
    mapping = ", ".join(
        f"{name}: {(names.resolved((name,), columns) or {}).get(name, '...')}"
        for name in FORMATS[nearest].columns
        if not (data.winner and name == "winner")
    )
    return nearest, f"data.columns {{{mapping}}}"


def other_kind(data: Data, layout: Layout, kind: Kind | None) -> str:
    """A mapping to try where rows were recognised and hold something else than is needed."""
    if data.columns or data.format != "auto":
        return ""
    return f"if it is there, say where: {_to_try(data, [*layout.used.values(), *layout.unused], kind)[1]}"
