"""Data read in blocks by anybody come to what they come to when they are read row by row."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from valuedrift_mlflow.data import blocks
from valuedrift_mlflow.data.blocks import Block, RawRows, ReadCounts, Reading
from valuedrift_mlflow.data.datasets import Digest, Stream, stream
from valuedrift_mlflow.data.files import Line
from valuedrift_mlflow.data.layouts import layout_of
from valuedrift_mlflow.data.messages import Raw
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.rows import Row

PAIRS: list[dict[str, Any]] = [
    {"prompt": f"Question {number}?", "chosen": f"Yes, {number}.", "rejected": f"No, {number}."} for number in range(20)
]
EQUAL = {"prompt": "Why?", "chosen": "Because.", "rejected": "Because. "}
MARKED = [
    {side: f"\n\nHuman: Question {number}?\n\nAssistant: {side} {number}" for side in ("chosen", "rejected")}
    for number in range(9)
]
DIALOGUE = [
    {"role": role, "content": text}
    for text, role in (("One?", "user"), ("1.", "assistant"), ("Two?", "user"), ("2.", "assistant"))
]
RATED = [
    {"prompt": f"Question {number // 2}?", "response": f"Answer {number}.", "overall_rating": number % 2}
    for number in range(16)
]
WINNERS = [
    {"question": f"Q {number}?", "answer_1": "One.", "answer_2": "Two.", "vote": "left" if number % 3 else "right"}
    for number in range(12)
]
LABELLED = [{"prompt": "Q?", "completion": f"A {number}.", "label": number % 3 > 0} for number in range(9)]


@dataclass
class Part:
    counts: ReadCounts = field(default_factory=ReadCounts)
    rows: list[Row] = field(default_factory=list)


def elsewhere(given: Iterator[Block]) -> Iterator[Part]:
    """Blocks read where nothing is known but what was pickled."""
    for block in given:
        part = Part()
        part.rows = list(pickle.loads(pickle.dumps(block)).rows(part.counts))
        yield part


def jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def packed(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    jsonl(path / "train-1.jsonl", PAIRS[:7])
    jsonl(path / "train-2.jsonl", [*PAIRS[7:], EQUAL])
    return path


def table(path: Path, rows: list[Any]) -> Path:
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def own_format(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": row["q"], "completion": row["a"]}


MADE: dict[str, tuple[Callable[[Path], Path], dict[str, Any], bool]] = {
    "lines": (lambda path: jsonl(path / "a.jsonl", [*PAIRS[:5], "", *PAIRS[5:], EQUAL]), {}, True),
    "marked texts, packed": (lambda path: packed(path / "a.jsonl.gz", MARKED), {}, True),
    "a list": (lambda path: (path / "a.json", (path / "a.json").write_text(json.dumps(PAIRS)))[0], {}, True),
    "csv": (lambda path: table(path / "a.csv", PAIRS), {}, True),
    "parquet": (lambda path: table(path / "a.parquet", PAIRS), {}, True),
    "a folder": (lambda path: folder(path / "data"), {}, True),
    "slices": (lambda path: jsonl(path / "a.jsonl", PAIRS), {"split": "train[:4]+train[8:11]"}, True),
    "dialogues": (lambda path: jsonl(path / "a.jsonl", [{"messages": DIALOGUE}] * 11), {}, True),
    "labels": (
        lambda path: jsonl(
            path / "a.jsonl", [{"prompt": "Q?", "completion": f"A {n}.", "label": n % 3 > 0} for n in range(9)]
        ),
        {"columns": {"prompt": "prompt", "completion": "completion", "label": "label"}},
        True,
    ),
    "columns": (
        lambda path: jsonl(path / "a.jsonl", [{"q": {"text": f"Q {n}?"}, "a": "Yes.", "b": "No."} for n in range(9)]),
        {"columns": {"prompt": "q.text", "chosen": "a", "rejected": "b"}},
        True,
    ),
    "a winner's word": (lambda path: jsonl(path / "a.jsonl", WINNERS), {"winner": "vote=left"}, True),
    "bad rows": (
        lambda path: jsonl(path / "a.jsonl", [*PAIRS[:3], "no json", *PAIRS[3:9], {"prompt": "Q?"}, "[1]", *PAIRS[9:]]),
        {"on_bad_row": "skip"},
        True,
    ),
    "rows that belong together": (lambda path: jsonl(path / "a.jsonl", RATED), {}, False),
    "a format of one's own": (
        lambda path: jsonl(path / "a.jsonl", [{"q": f"Q {n}?", "a": "Yes."} for n in range(9)]),
        {"format": f"{__name__}:own_format"},
        False,
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_blocks_that_anybody_reads_come_to_the_same_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROWS", 4)
    make, settings, raw = MADE[name]
    data = stream(Data(uri=str(make(tmp_path)), **{"on_bad_row": "skip", **settings}))
    rows = list(data)
    counts = data.counts
    pieces = [part.rows for part in data.parts(elsewhere)]
    assert [row for some in pieces for row in some] == rows and len(pieces) > 1
    assert data.counts == counts and counts.read > 4
    kinds = {type(block) for block in data._blocks(ReadCounts())}
    assert kinds == {RawRows if raw else blocks.GivenRows}
    whole, by_blocks = Digest(), Digest()
    whole.take(Digest.text(rows))
    for some in pieces:
        by_blocks.take(Digest.text(some))
    assert str(whole) == str(by_blocks)


def read_twice(data: Stream) -> tuple[str, str]:
    """What is told of bad data, row by row and by blocks."""
    told = []
    for read in (lambda: list(data), lambda: list(data.parts(elsewhere))):
        with pytest.raises(InputError) as error:
            read()
        told.append(str(error.value))
    return told[0], told[1]


def test_bad_rows_of_all_blocks_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ROWS", 4)
    rows = [*PAIRS[:6], "no json", *PAIRS[6:9], *[{"prompt": "Q?", "chosen": 3, "rejected": "No."}] * 30, *PAIRS[9:]]
    data = stream(Data(uri=str(jsonl(tmp_path / "a.jsonl", rows))))
    one, other = read_twice(data)
    assert one == other
    assert "row 7" in one and "row 11" in one and "11 more bad rows" in one
    given = [row for part in _until_error(data) for row in part.rows]
    assert len(given) == 4  # the block before the first bad row; nothing after it is more than checked


def _until_error(data: Stream) -> Iterator[Part]:
    with suppress(InputError):
        yield from data.parts(elsewhere)


def test_too_many_rows_that_teach_nothing_are_told_by_blocks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "ROWS", 4)
    one, other = read_twice(stream(Data(uri=str(jsonl(tmp_path / "a.jsonl", [*PAIRS, EQUAL, EQUAL])))))
    assert one == other and "2 of 22" in one


def test_lines_travel_as_they_stand(tmp_path: Path) -> None:
    """With their numbers, their files and their ends, which tell where a bad one is cut off."""
    data = stream(Data(uri=str(folder(tmp_path / "data"))))
    (block,) = data._blocks(ReadCounts())
    assert isinstance(block, RawRows)
    there = pickle.loads(pickle.dumps(block))
    assert list(there.unread) == list(block.unread)
    assert there.unread[6:8] == [
        Line(7, json.dumps(PAIRS[6]).encode(), "train-1.jsonl"),
        Line(1, json.dumps(PAIRS[7]).encode() + b"\n", "train-2.jsonl"),
    ]


def test_of_parsed_rows_only_the_cells_that_are_read_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others may be pictures, which no other process can have, or vectors."""
    monkeypatch.setattr(blocks, "CHARACTERS", 3_000)
    reading = Reading("data", "pairs", layout_of(Data(uri="data"), [{**PAIRS[0], "image": "x"}], "pairs"))
    rows = [Raw(number, {**row, "image": object(), "vector": [0.5] * 100}) for number, row in enumerate(PAIRS, 1)]
    (block,) = blocks.raw(reading, rows, ReadCounts())
    assert list(block.unread) == [Raw(number, row) for number, row in enumerate(PAIRS, 1)]


def test_numbers_that_are_read_count_as_much_as_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with a hundred numbers of 32 bytes, where 10,000 characters are allowed: every fourth passes the bound."""
    monkeypatch.setattr(blocks, "CHARACTERS", 10_000)
    given = [{"prompt": [], "completion": [], "scores": [0.5] * 100} for _ in range(8)]
    assert [len(block.given) for block in blocks.given(given)] == [4, 4]


def test_cells_may_be_nested_as_deeply_as_json_is(tmp_path: Path) -> None:
    nested: Any = "deep"
    for _ in range(700):
        nested = [nested]
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{**row, "extra": nested} for row in PAIRS]), encoding="utf-8")
    data = stream(Data(uri=str(file)))
    assert [row for part in data.parts(elsewhere) for row in part.rows] == list(data)
