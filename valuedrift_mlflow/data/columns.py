"""``data.columns``: which column, or which place within one, holds what a format needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from valuedrift_mlflow.data.messages import Raw
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.reading import json_of
from valuedrift_mlflow.inputs.rows import Row


def columns_of(data: Data) -> dict[str, str]:
    """The places that a recipe names, with that of the winner."""
    return data.columns | ({"winner": data.winner.partition("=")[0]} if data.winner else {})


def mapped(raw: Raw, columns: Mapping[str, str]) -> Raw:
    """A row with the named columns alone, each taken from its path; one that has no such place is a bad one."""
    if raw.row is None:
        return raw
    try:
        return raw._replace(row={name: at(raw.row, path) for name, path in columns.items()})
    except LookupError as error:
        return raw._replace(row=None, problem=str(error.args[0]))


def at(row: Row, path: str) -> object:
    """The value at a path: a column, or dotted keys and numbers into records, lists and texts that are JSON.

    A column whose name has dots is found by its whole name.

    >>> at({"data": '{"q": ["Why?"]}', "a.b": 1}, "data.q.0"), at({"data": {}, "a.b": 1}, "a.b")
    ('Why?', 1)

    Raises:
        LookupError: there is no such place; the message says what is there instead.
    """
    if path in row:
        return row[path]
    value: object = row
    for part in path.split("."):
        if isinstance(value, str):
            try:
                value = json_of(value)
            except ValueError:
                raise LookupError(f"no {path}: {part} is looked for in a text that is no JSON") from None
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, Sequence) and not isinstance(value, str) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise LookupError(f"no {path}: there is no {part} among {there or 'nothing'}")
    return value
