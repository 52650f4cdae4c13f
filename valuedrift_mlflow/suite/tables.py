"""Suites from tables: the built-in one, files, data frames. Every row is checked."""

from __future__ import annotations

import csv
import re
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, limited, problem
from valuedrift_mlflow.inputs.parts import known
from valuedrift_mlflow.inputs.tables import ENDINGS, ending, plain, read_table
from valuedrift_mlflow.suite import opposed_pairs
from valuedrift_mlflow.suite.axes import Key, built_in_axes, built_in_keys, read, written
from valuedrift_mlflow.suite.suite import COLUMNS, KEY_COLUMNS, Item, Suite

if TYPE_CHECKING:
    import pandas as pd

BUILT_IN = "vaes"
FRAME = "frame"  # the source of suites that were made of a table in memory
TABLE = "suite"  # the table of a run that holds such a suite
GROUP = "valuedrift_mlflow.suites"  # of the entry points by which installed packages give suites
VAES_VERSION = "1.1"
_READ = (*COLUMNS, *KEY_COLUMNS, *opposed_pairs.COLUMNS)
_NEEDED = tuple(column for column in COLUMNS if column not in ("phrasing", "proposition_id"))
_TOPIC = re.compile(r"[a-z][a-z0-9_]*")
_FILES = "a csv, tsv, jsonl, json or parquet file (.csv.gz and .jsonl.gz too)"
ONLY_PAIRS = "topic_column is for opposed pairs"


@cache
def built_in() -> Suite:
    """The suite ``vaes``, whole."""
    import pandas as pd

    with files("valuedrift_mlflow").joinpath("suite/vaes.csv").open(encoding="utf-8") as handle:
        # Texts as they are: pandas would read a cell "None" as missing.
        asked = from_frame(pd.read_csv(handle, dtype=str, keep_default_na=False), BUILT_IN, VAES_VERSION)
    keys = built_in_keys()
    items = tuple(replace(item, keys=keys[item.proposition_id]) for item in asked.items)
    return replace(asked, items=items, ends=built_in_axes())


@cache
def built_in_propositions() -> Mapping[str, str]:
    """The propositions of ``vaes`` by their ids, without what it takes to load the suite."""
    with files("valuedrift_mlflow").joinpath("suite/vaes.csv").open(encoding="utf-8") as handle:
        return {row["proposition_id"]: row["proposition"] for row in csv.DictReader(handle)}


def from_file(path: Path, topic_column: str | None) -> Suite:
    """A suite's file, or one with opposed pairs, whose topics are in ``topic_column``.

    Raises:
        InputError: a missing file, missing columns, bad rows with their numbers.
    """
    return from_table(
        _read(path, topic_column), Path(path.name.removesuffix(".gz")).stem, "file", f"suite {path}", topic_column
    )


def from_table(frame: pd.DataFrame, name: str, version: str, where: str, topic_column: str | None) -> Suite:
    """A table with a suite's columns, or with opposed pairs, whose topics are in ``topic_column``.

    Raises:
        InputError: missing columns, bad rows with their numbers.
    """
    if set(_NEEDED) <= set(frame.columns) or not opposed_pairs.is_opposed(frame):
        if topic_column is not None:
            found = ", ".join(map(str, frame.columns))
            raise InputError(problem(where, found, f"the columns {', '.join(opposed_pairs.COLUMNS)}", ONLY_PAIRS))
        return from_frame(frame, name, version)
    if frame.empty:
        raise InputError(problem(f"suite {name}", "no rows", "at least one pair"))
    try:
        both_sides = opposed_pairs.items(frame, name, topic_column)
    except InputError as error:
        raise InputError(limited(error.problems, f"suite {name}")) from None
    return from_frame(both_sides, name, version)


def _read(path: Path, topic_column: str | None) -> pd.DataFrame:
    if not path.is_file():
        built_in = f"{BUILT_IN}, prism:PATH, module:function or an existing {_FILES[2:]}"
        raise InputError(problem("suite", str(path), known(GROUP, built_in)))
    if ending(path) not in ENDINGS:
        raise InputError(problem("suite", str(path), _FILES))
    names = [name for name in _READ if name != plain(topic_column)]  # that one is named as it is written
    return read_table(path, f"suite {path}", f"a readable {_FILES[2:]}", names=names)


def from_frame(frame: pd.DataFrame, name: str, version: str = FRAME, source: str = FRAME) -> Suite:
    """Validate a table with the suite's columns. ``phrasing`` and ``proposition_id`` may be missing.

    ``axis`` and ``direction`` may be there, both or none: the axes that supporting the proposition moves along, and the
    end (+1 or -1) that it moves to. Where a proposition lies on several axes, ``;`` stands between them in both cells.

    Raises:
        InputError: every problem of the table at once, with row numbers (the first data row is 1).
    """
    # As objects first, as in `opposed_pairs.items`.
    frame = frame.reset_index(drop=True).astype(object)
    frame = frame.where(frame.notna(), "")  # a cell that is missing reads as one that is empty
    if frame.empty:
        raise InputError(problem(f"suite {name}", "no rows", "at least one item"))
    if not set(_NEEDED) <= set(frame.columns):
        allowed = f"the columns {', '.join(COLUMNS)}; in a file also opposed pairs: {', '.join(opposed_pairs.COLUMNS)}"
        raise InputError(problem(f"suite {name}", ", ".join(map(str, frame.columns)), allowed))
    problems: list[str] = []
    if len(one := set(KEY_COLUMNS) & set(frame.columns)) == 1:
        mend = "axis names the axis, direction (+1 or -1) the end that support moves to"
        problems.append(problem(f"suite {name}", f"{one.pop()} alone", "both axis and direction, or neither", mend))
    for column in frame.columns:
        # Else keys that are written almost right would be left out, and another axis reported.
        if column not in KEY_COLUMNS and str(column).strip().lower() in ("axis", "axes", "direction", "directions"):
            problems.append(problem(f"suite {name} columns", column, "keys under the names axis and direction"))
    items: list[Item] = []
    seen: dict[str, int] = {}
    keyed: dict[tuple[str, str], tuple[int, tuple[Key, ...]]] = {}
    for row, record in enumerate(frame.to_dict("records"), start=1):
        where = f"suite {name} row {row}"
        text = {column: str(record.get(column, "")).strip() for column in COLUMNS}
        for column in ("item_id", "proposition", "prompt"):
            # An id may be a number; a number for a proposition or a
            # prompt is a mistake, although it would read as a text.
            kinds = (str, int, float) if column == "item_id" else (str,)
            if not text[column] or isinstance(record[column], bool) or not isinstance(record[column], kinds):
                problems.append(problem(f"{where} {column}", record[column], "a text that is not empty"))
        if not _TOPIC.fullmatch(text["topic"]):
            problems.append(problem(f"{where} topic", text["topic"], "a slug such as climate_change"))
        polarity = {"1": 1, "+1": 1, "1.0": 1, "-1": -1, "-1.0": -1}.get(text["polarity"])
        if polarity is None:
            problems.append(problem(f"{where} polarity", record.get("polarity"), "1 or -1"))
        if text["item_id"] and text["item_id"] in seen:
            problems.append(
                problem(f"{where} item_id", text["item_id"], f"an id of its own (row {seen[text['item_id']]})")
            )
        seen.setdefault(text["item_id"], row)
        # Without an id each prompt has a proposition of its own: nobody knows which of them belong together.
        proposition_id = text["proposition_id"] or text["item_id"]
        keys, wrong = _keys(record, where)
        first, of_first = keyed.setdefault((text["topic"], proposition_id), (row, keys))
        if not wrong and keys != of_first:
            said = f"the keys of row {first}, which has the same proposition_id"
            wrong = [problem(f"{where} axis, direction", " and ".join(written(keys)), said)]
        problems += wrong
        items.append(
            Item(
                item_id=text["item_id"],
                topic=text["topic"],
                proposition_id=proposition_id,
                proposition=text["proposition"],
                phrasing=text["phrasing"] or "unnamed",
                prompt=text["prompt"],
                polarity=polarity or 1,
                keys=keys,
            )
        )
    if problems:
        raise InputError(limited(problems, f"suite {name}"))
    return Suite(name=name, version=version, items=tuple(items), source=source)


def _keys(record: Mapping[Hashable, object], where: str) -> tuple[tuple[Key, ...], list[str]]:
    if not set(KEY_COLUMNS) <= set(record):
        return (), []
    return read(record["axis"], record["direction"], where)
