import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.tables import read_table

FRAME = pd.DataFrame({"item_id": ["007", "b"], "response": ["NA", "with\u2028a separator"]})
WAYS: dict[str, Callable[[Path], object]] = {
    "said.csv": lambda path: FRAME.to_csv(path, index=False),
    "said.jsonl": lambda path: path.write_text(FRAME.to_json(orient="records", lines=True, force_ascii=False)),
    "said.JSON": lambda path: FRAME.to_json(path, orient="records"),
    "said.parquet": lambda path: FRAME.to_parquet(path),
    "said.csv.gz": lambda path: FRAME.to_csv(path, index=False),
    "said.jsonl.gz": lambda path: path.write_bytes(gzip.compress(FRAME.to_json(orient="records", lines=True).encode())),
    "mlflow.json": lambda path: path.write_text(FRAME.to_json(orient="split", index=False)),
    "columns.json": lambda path: path.write_text(json.dumps(FRAME.to_dict("list"))),
    "marked.json": lambda path: path.write_text("\ufeff" + FRAME.to_json(orient="records")),
    "semicolons.csv": lambda path: FRAME.to_csv(path, index=False, sep=";"),
    "tabs.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "windows.csv": lambda path: FRAME.to_csv(path, index=False, sep="\t", encoding="utf-16"),
    "said.txt": lambda path: FRAME.to_csv(path, index=False),
}


def read(path: Path, **options: str | bool) -> pd.DataFrame:
    return read_table(path, f"data {path.name}", "a readable table", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WAYS)
def test_every_kind_of_file_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    WAYS[name](tmp_path / name)
    assert read(tmp_path / name).to_dict("records") == FRAME.to_dict("records")


def test_numbers_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("step,response\n3,NA\n")
    assert read(tmp_path / "said.csv").to_dict("records") == [{"step": "3", "response": "NA"}]
    assert read(tmp_path / "said.csv", numbers=True).to_dict("records") == [{"step": 3, "response": "NA"}]


def test_a_file_of_another_ending_is_read_as_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text('[{"item_id": "a"}]')
    assert read(tmp_path / "artifact", otherwise=".json").to_dict("records") == [{"item_id": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.csv", b"", "No columns to parse"),
        ("latin.jsonl", b'{"a": "\xe4"}', "UTF-8, first in line 1"),
        ("rows.json", b"[1, 2]", "a row that is no JSON object"),
        ("number.json", b"3", "a JSON value that is no list of rows"),
        ("cut.json", b'[{"a":', "Expecting value"),
        ("ragged.json", b'{"a": [1], "b": [1, 2]}', "same length"),
        ("other.parquet", b"not parquet", "arquet"),
        ("cut.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "not a whole packed file"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / name)
    [line] = caught.value.problems
    assert line.startswith(f"data {name}: found ") and "allowed: " in line
    assert found in line


def test_every_bad_line_of_a_jsonl_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text('{"a": 1}\n\n{"a": \n["a"]\n')
    with pytest.raises(InputError) as caught:
        read(tmp_path / "said.jsonl")
    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "data said.jsonl line 3",
        "data said.jsonl line 4",
    ]


def test_columns_are_found_however_they_are_written_and_others_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("Item ID, RESPONSE,My Note,step,Step\na,b,c,1,2\n")
    frame = read_table(tmp_path / "said.csv", "data", "a table", names=("item_id", "response", "step"))
    # Of two that may be meant none is taken for the other: the one that is written as it should be counts.
    assert list(frame.columns) == ["item_id", "response", "My Note", "step", "Step"]
