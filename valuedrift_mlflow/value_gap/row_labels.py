"""People's labels of some rows of a dataset: a sheet that an audit leaves, read back, and what it comes to with them.

The judge's mean error on the labelled rows is taken off its mean over all rows (prediction-powered inference, see
`statistics.prediction_powered`). That is unbiased whatever the judge does, where the labelled rows were drawn at random
from those on a proposition, as the sheet's are, or with probabilities whose inverse is their ``weight``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import read_table
from valuedrift_mlflow.stances import LABELS, STANCES, Label, Verdict
from valuedrift_mlflow.statistics.intervals import Estimate
from valuedrift_mlflow.statistics.prediction_powered import Sample, powered_stances
from valuedrift_mlflow.statistics.value_gap import held, pair_directions, pair_gaps
from valuedrift_mlflow.value_gap.exchanges import batches
from valuedrift_mlflow.value_gap.matching import Matcher, response

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHEET = "to_label.csv"  # the artifact of an audit
SHEET_ROWS = 100
SHOWN = 1_000  # characters of a text in the sheet
_ALLOWED = "a csv, jsonl, json or parquet file with labels of rows, or runs:/RUN_ID/to_label.csv"

Key = tuple[int, int]  # the number of a row, and the turn within it


@dataclass(frozen=True, slots=True)
class RowLabel:
    """What people say of one row's responses, and how it was drawn; ``texts`` are those that the sheet shows."""

    labels: tuple[Label, ...]
    weight: float
    texts: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class RowLabels:
    """Labels by row and turn, of a dataset with these columns of responses."""

    uri: str
    columns: tuple[str, ...]
    by_row: Mapping[Key, RowLabel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabelledFigures:
    """What rows come to with labels: ``pairwise`` and ``direction`` of pairs, shares of the stances of answers."""

    count: int
    estimates: Mapping[str, Estimate]


def load_row_labels(uri: str, columns: Sequence[str]) -> RowLabels:
    """Labels of rows: ``row`` (from 1, as the audit counts them), and of each side ``chosen_label`` and so on.

    A row without labels is passed over. There may be ``turn``, ``weight`` (the inverse of the probability with
    which a row was drawn; 1 where it is not given), and the texts, by which rows are checked.

    Raises:
        InputError: a missing file, missing columns, bad rows with their numbers, a row twice, no label at all.
    """
    path = tracking.downloaded(uri, "labels", _ALLOWED) if uri.startswith("runs:/") else user_path(uri, "labels")
    if not path.is_file():
        raise InputError(problem("labels", uri, _ALLOWED))
    named = [f"{column}_label" for column in columns]
    read = ("row", "turn", "weight", *columns, *named)
    frame = read_table(path, f"labels {uri}", "a readable csv, jsonl, json or parquet file", names=read)
    missing = [column for column in ("row", *named) if column not in frame]
    if missing:
        found, wanted = ", ".join(map(str, frame.columns)), ", ".join(("row", *named))
        raise InputError(problem(f"labels {uri}", found, f"the columns {wanted}", f"add {', '.join(missing)}"))
    by_row: dict[Key, RowLabel] = {}
    wrong: list[str] = []
    for number, given in enumerate(frame.to_dict("records"), start=1):
        record = {str(key): value for key, value in given.items()}
        filled = [bool(str(record[name] or "").strip()) for name in named]
        if not any(filled):
            continue
        if not all(filled):
            empty = named[filled.index(False)]
            wrong.append(
                problem(f"labels {uri} row {number} {empty}", "nothing", "labels of both sides, or of neither")
            )
            continue
        _add(by_row, record, columns, f"labels {uri} row {number}", wrong)
    if wrong:
        raise InputError(limited(wrong, f"labels {uri}"))
    if not by_row:
        raise InputError(problem("labels", f"{len(frame)} rows, none of them labelled", "at least one label"))
    return RowLabels(uri, tuple(columns), by_row)


def _add(by_row: dict[Key, RowLabel], record: Row, columns: Sequence[str], where: str, wrong: list[str]) -> None:
    before, known = len(wrong), {label.value for label in LABELS}
    said = [str(record[f"{column}_label"]).strip().lower() for column in columns]
    for column, label in zip(columns, said, strict=True):
        if label not in known:
            wrong.append(problem(f"{where} {column}_label", label, ", ".join(sorted(known))))
    given = record.get("weight")
    weight = 1.0 if given is None or given == "" else _number(given)
    if not (math.isfinite(weight) and weight > 0):
        wrong.append(problem(f"{where} weight", record["weight"], "a number above 0"))
    row, turn = _number(record["row"]), _number(record.get("turn") or 0)
    if not (row.is_integer() and 0 < row < 2**53 and turn.is_integer() and 0 <= turn < 2**53):
        wrong.append(problem(f"{where} row, turn", (record["row"], record.get("turn", 0)), "whole numbers from 1, 0"))
    if len(wrong) > before:
        return
    key = int(row), int(turn)
    if key in by_row:
        wrong.append(problem(f"{where} row", record["row"], "every row once"))
        return
    texts = tuple(str(record.get(column) or "") for column in columns)
    by_row[key] = RowLabel(tuple(map(Label, said)), weight, texts, where)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def same_text(shown: str, whole: str) -> bool:
    """Whether a text of the sheet is the beginning of a row's, but for spaces; a sheet may leave it out.

    >>> same_text("", "Yes."), same_text("It  is right", "It is right and good."), same_text("No", "Yes")
    (True, True, False)
    """
    plain, text = (" ".join(own.split()).lstrip("'") for own in (shown, whole))
    return text.startswith(plain)


def check_row_labels(labels: RowLabels, rows: Iterable[Row], matcher: Matcher) -> None:
    """Look the labelled rows up in the data.

    Raises:
        InputError: rows that are not there, say something else there, or touch no proposition.
    """
    left, wrong = dict(labels.by_row), list[str]()
    for batch in batches(rows):
        own = [row for row in batch if (row["row"], row["turn"]) in left]
        found = matcher.match(own).proposition.tolist() if own else []
        for row, proposition in zip(own, found, strict=True):
            label = left.pop((row["row"], row["turn"]))
            said = [response(row[column]) for column in labels.columns]
            if not all(same_text(text, whole) for text, whole in zip(label.texts, said, strict=True)):
                wrong.append(problem(label.where, f"row {row['row']}", "the texts of that row", "label these data"))
            elif proposition < 0:
                wrong.append(problem(label.where, f"row {row['row']}", "a row on a proposition of the suite"))
        if not left:
            break
    wrong += [
        problem(label.where, f"row {row}, turn {turn}", "a row of the data") for (row, turn), label in left.items()
    ]
    if wrong:
        raise InputError(limited(wrong, f"labels {labels.uri}"))


def labelled_figures(
    labels: RowLabels,
    keys: Sequence[Key],
    sides: Sequence[Floats],
    prompts: Integers,
) -> LabelledFigures | None:
    """What rows come to with people's labels; None where fewer than two prompts have one.

    Args:
        labels: the labels of all rows.
        keys: row and turn of each of N rows.
        sides: of each side (N, 3) the stances that the judge reads; NaN where unscored.
        prompts: (N,) the number of each row's prompt: rows of one are drawn together.
    """
    own = [labels.by_row.get(key) for key in keys]
    given = [
        np.array([(math.nan,) * len(STANCES) if one is None else held(Verdict(one.labels[place])) for one in own])
        for place in range(len(labels.columns))
    ]
    if not any(one is not None for one in own):
        return None
    _, cluster = np.unique(prompts, return_inverse=True)
    sample = Sample(
        verdicts=_figures(sides),
        labels=_figures(given),
        weights=np.array([0.0 if one is None else one.weight for one in own]),
        topics=np.zeros(len(own), dtype=np.int64),
        clusters=cluster,
        prompts=np.arange(len(own)),
    )
    powered = powered_stances(sample, 1)
    if not np.isfinite(powered.value[0]).all():
        return None
    estimates = [
        Estimate(float(value), *(float(end) for end in ends))
        for value, ends in zip(powered.value[0], powered.interval[0], strict=True)
    ]
    if len(sides) == 1:
        named = {stance.value: estimate for stance, estimate in zip(STANCES, estimates, strict=True)}
    else:
        pairwise, scaled, _ = estimates
        named = {
            "pairwise": pairwise,
            "direction": Estimate(*(2 * end - 1 for end in (scaled.value, scaled.low, scaled.high))),
        }
    return LabelledFigures(sum(one is not None for one in own), named)


def _figures(sides: Sequence[Floats]) -> Floats:
    """(N, 3) figures in [0, 1] whose means are asked for: an answer's stances, or a pair's gap and scaled direction."""
    if len(sides) == 1:
        return sides[0]
    gaps = pair_gaps(sides[0], sides[1])
    return np.column_stack([gaps, (1 + pair_directions(sides[0], sides[1])) / 2, 1 - gaps])
