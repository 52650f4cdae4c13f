"""The one reader of tables that fit in memory: csv, tsv, jsonl, json and parquet files, packed with gzip or not."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow.inputs.errors import InputError, limited, one_line, problem
from valuedrift_mlflow.inputs.reading import TABLE, json_of, read_bytes, text_of

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def ending(path: Path) -> str:
    """The ending that tells how a file is read: in lower case, without ``.gz``.

    >>> ending(Path("Answers.JSONL.gz"))
    '.jsonl'
    """
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_table(
    path: Path, where: str, allowed: str, *, names: Sequence[str] = (), otherwise: str = ".csv", numbers: bool = False
) -> pd.DataFrame:
    """Read an existing file as a table.

    A json file holds a list of rows, an object of columns, or ``columns`` and ``data`` as MLflow writes tables.

    Args:
        path: the file.
        where: how a problem names it, such as ``suite own.csv``.
        allowed: what a problem says is needed, such as ``a readable csv file``.
        names: what columns are looked up by; one that is written otherwise (``Item ID``) gets its name (``item_id``).
        otherwise: the ending by which a file is read whose own is none of ``ENDINGS``.
        numbers: whether the numbers of a csv file become numbers; else every cell stays the text that it is.

    Raises:
        InputError: the file cannot be read as such a table; of a jsonl file every bad line.
    """
    try:
        data = read_bytes(path, where)
        frame = _frame(data, ending(path) if ending(path) in ENDINGS else otherwise, where, numbers)
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise many kinds
        raise InputError(problem(where, one_line(error) or type(error).__name__, allowed)) from None
    written = [plain(column) for column in frame.columns]
    return frame.rename(
        columns={
            column: name
            for column, name in zip(frame.columns, written, strict=True)
            if name in names and written.count(name) == 1
        }
    )


def plain(name: object) -> str:
    """A column's name as it is looked up.

    >>> plain(" User-Prompt ")
    'user_prompt'
    """
    return re.sub(r"[\s\-.]+", "_", str(name).strip().lower())


def _frame(data: bytes, kind: str, where: str, numbers: bool) -> pd.DataFrame:
    import pandas as pd

    if kind == ".parquet":
        return _parquet(data, where)
    text = text_of(data, where)
    if kind in (".csv", ".tsv"):  # a cell that reads NA or None is a text too
        parted = delimiter(text.partition("\n")[0])
        _check_header(text, parted, where)
        return pd.read_csv(io.StringIO(text), sep=parted, dtype=None if numbers else str, keep_default_na=False)
    if kind == ".jsonl":
        return pd.DataFrame([row for _, row in json_lines(text, where)])
    value: Any = json_of(text)
    if not isinstance(value, list | dict):
        raise ValueError("a JSON value that is no list of rows")
    if isinstance(value, list) and not all(isinstance(row, dict) for row in value):
        raise ValueError("a row that is no JSON object")
    if isinstance(value, dict) and set(value) == {"columns", "data"}:
        return pd.DataFrame(value["data"], columns=value["columns"])
    return pd.DataFrame(value)


def _parquet(data: bytes, where: str) -> pd.DataFrame:
    """A parquet file's table, in pieces until it is more than a table may be: few bytes can stand for many rows."""
    import pyarrow
    import pyarrow.parquet as parquet

    batches, size = [], 0
    with parquet.ParquetFile(io.BytesIO(data)) as file:
        for batch in file.iter_batches(batch_size=10_000):
            size += batch.nbytes
            if size > TABLE.most:
                raise TABLE.refusal(where)
            batches.append(batch)
        frame: pd.DataFrame = pyarrow.Table.from_batches(batches, schema=file.schema_arrow).to_pandas()
        return frame


def _check_header(text: str, parted: str, where: str) -> None:
    """Refuse a csv file that has a column twice; pandas would give the second one another name.

    Raises:
        InputError: with the column.
    """
    columns = next(csv.reader(io.StringIO(text), delimiter=parted), [])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise InputError(problem(f"{where} columns", ", ".join(twice), "every column once"))


def delimiter(header: str) -> str:
    """What parts the cells of a first line: a comma, or what spreadsheets write where the comma is a decimal one.

    >>> delimiter("topic;prompt"), delimiter("topic,prompt")
    (';', ',')
    """
    return next((mark for mark in ("\t", ";") if mark in header and "," not in header), ",")


def json_lines(text: str, where: str) -> list[tuple[int, dict[str, object]]]:
    """The objects of a jsonl text, each with the number of its line; blank lines are passed over.

    Raises:
        InputError: lines that hold no JSON object, with their numbers.
    """
    objects: list[tuple[int, dict[str, object]]] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: a text may hold other line separators
        if not line.strip():
            continue
        try:
            value = json_of(line.removeprefix("\ufeff"))  # files that were joined have several marks
        except ValueError as error:
            problems.append(problem(f"{where} line {number}", one_line(error), "a JSON object"))
            continue
        if isinstance(value, dict):
            objects.append((number, value))
        else:
            problems.append(problem(f"{where} line {number}", type(value).__name__, "a JSON object"))
    if problems:
        raise InputError(limited(problems, where))
    return objects
