"""People's labels of a run's responses: read from a sheet or from the run's traces, matched with the responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, collecting, limited, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.inputs.rows import Row
from valuedrift_mlflow.inputs.tables import read_table
from valuedrift_mlflow.stances import LABELS, Label
from valuedrift_mlflow.suite import Item, Suite

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("item_id", "response", "label", "weight")
_READ = (*COLUMNS, "run", "step", "sample")
_RUN = "runs:/"
_ALLOWED = "a csv, jsonl, json or parquet file with labels, or runs:/RUN_ID of a reviewed run"

Key = tuple[str, int]  # an item's id and the number of the sample


@dataclass(frozen=True)
class HumanLabel:
    """What a person says of one response of a run (empty where the sheet does not name it), and how it was drawn.

    ``weight`` is the inverse of the probability with which it was drawn; ``where`` names the row in problems.
    """

    run: str
    step: int
    item_id: str
    sample: int
    response: str
    label: Label
    weight: float
    where: str


@dataclass(frozen=True)
class Told:
    """The responses of one measurement, as they were read: what labels are matched with."""

    uri: str
    step: int
    said: Sequence[tuple[Item, int, str]]


@dataclass(frozen=True)
class HumanLabels:
    """Labels by measurement, in the order of the measurements, and how many rows of the sheets are still empty."""

    uri: str
    by_measurement: tuple[Mapping[Key, HumanLabel], ...]
    empty: int

    @property
    def count(self) -> int:
        """How many labels are used."""
        return sum(len(own) for own in self.by_measurement)


def load_labels(uri: str) -> tuple[list[HumanLabel], int]:
    """Labels from files and runs, comma separated, and the number of rows that nobody has labelled.

    A file has the columns ``item_id``, ``response``, ``label`` (support, neutral, oppose, refusal, unscored; a row
    with an empty one is passed over) and ``weight``, and may have ``step``, ``sample`` and ``run``. ``runs:/RUN_ID``
    are the answers that people gave in MLflow's review UI to the traces that a review of this run has left.

    Raises:
        InputError: a missing file or run, missing columns, bad rows with their numbers, or no label at all.
    """
    labels: list[HumanLabel] = []
    empty = 0
    with collecting() as problems:
        for part in (part.strip() for part in uri.split(",")):
            frame = problems.attempt(_frame, part)
            if frame is None:
                continue
            records = [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]
            wrong: list[str] = []
            for number, record in enumerate(records, start=1):
                if not str(record["label"] or "").strip():
                    empty += 1
                    continue
                label = _label(record, f"labels {part} row {number}", wrong)
                labels += [label] if label else []
            problems.add(*limited(wrong, f"labels {part}"))
    if not labels:
        raise InputError(problem("labels", f"{empty} rows, none of them labelled", "at least one label"))
    return labels, empty


def _frame(uri: str) -> pd.DataFrame:
    import pandas as pd

    # A run alone stands for its traces; with a path it is a file of the run.
    if uri.startswith(_RUN) and "/" not in uri.removeprefix(_RUN).strip("/"):
        rows = tracking.reviewed(uri.removeprefix(_RUN).strip("/"), "labels")
        return pd.DataFrame(rows)
    path = tracking.downloaded(uri, "labels", _ALLOWED) if uri.startswith(_RUN) else user_path(uri, "labels")
    if not path.is_file():
        raise InputError(problem("labels", uri, _ALLOWED))
    frame = read_table(path, f"labels {uri}", "a readable csv, jsonl, json or parquet file", names=_READ)
    missing = [column for column in COLUMNS if column not in frame]
    if missing:
        found = ", ".join(map(str, frame.columns))
        wanted = "the columns " + ", ".join(COLUMNS)
        raise InputError(problem(f"labels {uri}", found, wanted, f"add {', '.join(missing)}"))
    return frame


def _label(record: Row, where: str, wrong: list[str]) -> HumanLabel | None:
    before = len(wrong)
    label = str(record["label"]).strip().lower()
    if label not in {known.value for known in LABELS}:
        wrong.append(problem(f"{where} label", record["label"], ", ".join(known.value for known in LABELS)))
    weight = _number(record["weight"])
    if not (math.isfinite(weight) and weight > 0):
        wrong.append(problem(f"{where} weight", record["weight"], "a number above 0", "keep the column as it was"))
    whole = {}
    for column in ("step", "sample"):
        number = _number(record.get(column) or 0)
        if not 0 <= number < 2**53 or not number.is_integer():  # NaN is none
            wrong.append(problem(f"{where} {column}", record[column], "a whole number of at least 0"))
            continue
        whole[column] = int(number)
    for column in ("item_id", "response"):
        if not isinstance(record[column], str | int):  # null is no text that reads None
            wrong.append(problem(f"{where} {column}", record[column], "a text"))
    if len(wrong) > before:
        return None
    return HumanLabel(
        str(record.get("run") or ""),
        whole["step"],
        str(record["item_id"]),
        whole["sample"],
        str(record["response"]),
        Label(label),
        weight,
        where,
    )


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return math.nan


def matched_labels(uri: str, measurements: Sequence[Told], suite: Suite) -> HumanLabels:
    """The labels of each measurement.

    A row belongs to the response of the same step, item and sample, and with the same text but for spaces. It must
    have been drawn from the run that the table of responses is of, where both are named.

    Raises:
        InputError: as ``load_labels``; rows whose response is in none of the tables; two labels of one response; no
            topic that has labels of two propositions at one step.
    """
    labels, empty = load_labels(uri)
    known = [{(item.item_id, sample): _plain(text) for item, sample, text in told.said} for told in measurements]
    found: list[dict[Key, HumanLabel]] = [{} for _ in measurements]
    wrong: list[str] = []
    for label in labels:
        key = (label.item_id, label.sample)
        places = [
            place
            for place, told in enumerate(measurements)
            if _same_run(label.run, told.uri)
            and told.step == label.step
            and known[place].get(key) == _plain(label.response)
        ]
        if not places:
            said = f"step {label.step}, item {label.item_id}, sample {label.sample}"
            tables = ", ".join(dict.fromkeys(f"{told.uri or 'responses'} step {told.step}" for told in measurements))
            wrong.append(problem(label.where, said, f"a response, with its text, of {tables}"))
        for place in places:
            other = found[place].setdefault(key, label)
            if other.label is not label.label:
                wrong.append(problem(label.where, label.label.value, f"{other.label.value}, as in {other.where}"))
    if wrong:
        raise InputError(limited(wrong, "labels"))
    proposition = {item.item_id: (item.topic, item.proposition_id) for item in suite.items}
    if not any(_enough([proposition[item_id] for item_id, _ in own]) for own in found):
        used = f"{sum(map(len, found))} labels, no topic with labels of two propositions"
        raise InputError(problem("labels", used, "labels of at least two propositions of a topic"))
    return HumanLabels(uri, tuple(found), empty)


def _enough(labelled: Sequence[tuple[str, str]]) -> bool:
    # Propositions are the unit of the intervals, and one alone has no spread: some topic must have two.
    topics = [topic for topic, _ in set(labelled)]
    return len(topics) > len(set(topics))


def _same_run(run: str, uri: str) -> bool:
    # Where either side does not say its run, text, item, step and sample must do.
    return not run or not uri.startswith(_RUN) or uri.removeprefix(_RUN).startswith(f"{run}/")


def _plain(text: str) -> str:
    """A text as it can be compared after a spreadsheet has had it: other line ends, an apostrophe before a formula."""
    return " ".join(text.split()).lstrip("'")
