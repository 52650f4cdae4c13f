"""Training rows as people read them, and as files that are read as training data again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from valuedrift_mlflow.data.datasets import COLUMNS, TrainingData
from valuedrift_mlflow.inputs.rows import Record

_LONGEST = 600  # characters of a text in a table: a dialogue may be pages long


def texts(row: Record, kind: str) -> dict[str, str]:
    """A row's last question and what is learnt of it, by the names of its columns; long texts are cut."""
    cells = {column: row[column] for column in COLUMNS[kind] if column in row}  # type: ignore[index]
    return {name: _text(cell, last=name == "prompt") for name, cell in cells.items()}


def _text(cell: object, *, last: bool) -> str:
    if not isinstance(cell, list):
        return str(cell)
    messages = cell[-1:] if last else cell
    text = "\n".join(str(message["content"]) for message in messages)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def write_without(data: TrainingData, left_out: Collection[int], file: Path) -> int:
    """Write the rows of a stage without some, as json lines that are read as the same rows; gives how many."""
    return _write(data, [number for number in range(len(data.rows)) if number not in set(left_out)], file)


def write_only(data: TrainingData, kept: Sequence[int], file: Path) -> int:
    """Write some rows of a stage as json lines; gives how many."""
    return _write(data, kept, file)


def _write(data: TrainingData, numbers: Sequence[int], file: Path) -> int:
    with file.open("w", encoding="utf-8") as lines:
        for line in _lines(data, numbers):
            lines.write(line + "\n")
    return len(numbers)


def _lines(data: TrainingData, numbers: Sequence[int]) -> Iterator[str]:
    for number in numbers:
        row = data.rows[number]
        yield json.dumps({column: row[column] for column in COLUMNS[data.kind]}, ensure_ascii=False)
