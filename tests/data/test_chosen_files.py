"""``data.data_files`` and ``data.data_dir``, against ``datasets.load_dataset`` with the same arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from valuedrift_mlflow.data.datasets import load_data, stream
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.inputs.strict import flat
from valuedrift_mlflow.pipeline.dry_run import read as read_for_plan
from valuedrift_mlflow.recipe import read


def rows(name: str, many: int = 2) -> list[dict[str, str]]:
    return [{"prompt": f"{name}{number}?", "completion": "Yes."} for number in range(many)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of ``a`` in parquet, one of ``b`` in json lines, a test file and notes."""
    made = tmp_path_factory.mktemp("repository")
    for name in ("a", "b/deep"):
        (made / name).mkdir(parents=True)
    for part in range(2):
        pd.DataFrame(rows(f"a{part}-")).to_parquet(made / "a" / f"part-{part}.parquet")
    for name in ("b/deep/one", "held"):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(Path(name).name)))
    (made / "notes.md").write_text("Tea.")
    return made


def asked(**settings: Any) -> list[str]:
    return [row["prompt"][0]["content"] for row in load_data(Data.model_validate(settings), "sft").rows]


@pytest.mark.parametrize(
    ("files", "split"),
    [
        ("a/*.parquet", "train"),
        (["a/part-1.parquet", "a/part-0.parquet"], "train"),
        ({"train": "a/*.parquet", "test": "held.jsonl"}, "train"),
        ({"train": ["b/**/*.jsonl", "held.jsonl"]}, "train"),
        ({"one": "held.jsonl"}, "one"),
        ("a/*.parquet", "train[1:3]"),
        ({"test": "a/*.parquet"}, "test[:50%]"),
    ],
)
def test_the_rows_are_those_of_load_dataset(folder: Path, tmp_path: Path, files: Any, split: str) -> None:
    # The library reads files of one split by one builder: each pattern's own type.
    whole = {"train": files} if not isinstance(files, dict) else files
    name = split.partition("[")[0]
    kind = "parquet" if "parquet" in str(whole[name]) else "json"
    peer = datasets.load_dataset(
        kind, data_dir=str(folder), data_files={name: whole[name]}, split=split, cache_dir=str(tmp_path)
    )
    assert asked(path=str(folder), data_files=files, split=split) == list(peer["prompt"])


def test_a_folder_within_and_a_name_of_a_builder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = ["a0-0?", "a0-1?", "a1-0?", "a1-1?"]
    assert asked(path=str(folder), data_dir="a") == inside
    assert asked(path=str(folder), data_dir="a", data_files="*.parquet") == inside
    monkeypatch.chdir(folder)
    assert asked(path="json", data_files="held.jsonl") == ["held0?", "held1?"]
    assert asked(path="parquet", data_dir="a", data_files={"train": "*"}) == inside


def test_audits_and_dry_runs_read_them_too(folder: Path) -> None:
    data = Data(uri=str(folder), data_files="b/**/*.jsonl")
    assert [row["prompt"][0]["content"] for row in stream(data)] == ["one0?", "one1?"]
    tree: dict[str, Any] = {"stages": [{"name": "sft", "algorithm": "sft", "learning_rate": 1e-3, "data": str(folder)}]}
    assert not read.apply_settings(tree, "sft.data.data_files=held.jsonl sft.data.split=train[:1]")
    [stage] = read.validate(tree).stages
    assert len(read_for_plan(stage, "embedded:base").rows) == 1
    assert flat(stage.model_dump(by_alias=True))["data.data_files"] == "held.jsonl"
    split = Data(uri=str(folder), data_files={"train": ["held.jsonl"]})
    assert flat(split.model_dump())["data_files.train"] == "['held.jsonl']"


def test_bad_rows_keep_their_file_and_number(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(rows("x", 1)[0]) + '\n{"prompt": "?"\n')
    with pytest.raises(InputError, match=r"x\.jsonl row 2: found .no json"):
        asked(path=str(tmp_path), data_files="*.jsonl")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data_files": "c/*.parquet"}, r"data_files: found 'c/\*.parquet', allowed: files of .*: a/part-0.parquet, "),
        ({"data_files": {"train": "a/*", "test": "c"}}, r"data_files: found 'c', allowed: files of"),
        ({"data_files": {"train": "a/*"}, "split": "test"}, r"split: found 'test', allowed: train, as data_files"),
        ({"data_files": "a/*", "split": "train[:x]"}, r"split: found 'train\[:x\]', allowed: a slice"),
        ({"data_files": "notes.md"}, r"notes.md.*allowed: a jsonl"),
        ({"data_files": "a/*", "subset": "x"}, r"subset: found 'x', allowed: none: data_files names"),
        ({"data_dir": "z"}, r"data_dir: found 'z', allowed: a folder within it"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        asked(path=str(folder), **settings)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("uri", ["embedded:sft?size=4", "{folder}/held.jsonl", "{folder}/a/*.parquet"])
def test_what_is_no_folder_has_no_files(folder: Path, uri: str) -> None:
    for chosen in ({"data_files": "x.jsonl"}, {"data_dir": "x"}):
        with pytest.raises(InputError, match=r"allowed: none: only folders and hub datasets have files"):
            asked(path=uri.format(folder=folder), **chosen)


@pytest.mark.parametrize("files", [["held.jsonl", " "], [], {}, {"train": []}, ""])
def test_no_pattern_is_refused_by_the_recipe(files: Any) -> None:
    stage = {"name": "sft", "algorithm": "sft", "learning_rate": 1e-3, "data": {"uri": "here", "data_files": files}}
    with pytest.raises(InputError) as caught:
        read.validate({"stages": [stage]})
    [line] = caught.value.problems
    assert line.startswith("data.data_files: found ") and "a pattern, a list of them" in line


def test_names_of_load_dataset_are_understood() -> None:
    tree = {"path": "HuggingFaceH4/ultrafeedback_binarized", "name": "default", "split": "train_prefs"}
    data = Data.model_validate(tree)
    assert (data.uri, data.subset, data.split) == (tree["path"], "default", "train_prefs")
    with pytest.raises(ValueError, match="path"):
        Data.model_validate({"path": "a", "uri": "b"})
