"""Training rows as people read them, and as files that are read as training data again."""

from __future__ import annotations

import json
from collections.abc import Collection
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
    left = set(left_out)
    kept = [number for number in range(len(data.rows)) if number not in left]
    with file.open("w", encoding="utf-8") as lines:
        for number in kept:
            row = {column: data.rows[number][column] for column in COLUMNS[data.kind]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(kept)
