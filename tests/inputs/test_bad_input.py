"""Generated bad input at every door: an answer or one line that can be mended, never a traceback or raw characters.

Each door is tried with some dozen cases; ``VALUEDRIFT_FUZZ=700`` tries all of them with more than 10,000.
"""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from bad_input import CASES, FILES, KEYS, NAMED, STAGES, TEXTS, VALUES, good_or_told
from hypothesis import given
from hypothesis import strategies as st

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.evaluation.responses import load_responses
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.labelled import load_answers as load_labelled
from valuedrift_mlflow.recipe.read import load_recipe, validate


def data_of(uri: str, **more: object) -> Data:
    """Data as a flag gives them, whose text no recipe has checked."""
    return Data(uri="x").model_copy(update={"uri": uri, **more})


DOORS: dict[str, Callable[[str], object]] = {
    "suite": suite.load,
    "responses": load_responses,
    "labelled": load_labelled,
    "data": lambda uri: load_data(data_of(uri), "sft"),
    "pairs": lambda uri: load_data(data_of(uri, on_bad_row="skip"), "pairs"),
}


@pytest.mark.parametrize("door", DOORS)
@CASES
@given(file=FILES)
def test_any_file(door: str, tmp_path: Path, file: tuple[str, bytes]) -> None:
    ending, content = file
    path = tmp_path / f"given{ending}"
    path.write_bytes(content)
    good_or_told(lambda: DOORS[door](str(path)))


@pytest.mark.parametrize("door", [*DOORS, "judge", "model", "recipe"])
@CASES
@given(text=TEXTS)
def test_any_text(store: Path, door: str, text: str) -> None:
    others: dict[str, Callable[[str], object]] = {
        "judge": judges.load,
        "model": models.check_model,
        "recipe": lambda given: load_recipe("embedded", given),
    }
    if door in ("data", "pairs") and re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", text):
        return  # an id of the hub, which is not asked here
    good_or_told(lambda: {**DOORS, **others}[door](text))


@CASES
@given(tree=st.dictionaries(KEYS | TEXTS, NAMED | VALUES, max_size=5), stages=STAGES)
def test_any_recipe(tree: dict[str, object], stages: list[object]) -> None:
    good_or_told(lambda: validate({**tree, "stages": stages}))


@CASES
@given(
    tree=VALUES,
    rubbish=st.sampled_from(["", "\n- ", ": :", "\n&a [*a]", "\n!!set {a}", "\n\t", "\n? [1]"]) | st.text(max_size=20),
)
def test_any_yaml(tmp_path: Path, tree: object, rubbish: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes((yaml.safe_dump(tree, allow_unicode=True) + rubbish).encode(errors="surrogatepass"))
    good_or_told(lambda: load_recipe(str(path)))


# By hand: what has broken before ---------------------------------------------------------------------------------


def test_few_bytes_that_stand_for_many_values_are_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="more than 100,000 values, with those that aliases stand for"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["suite.csv.gz", "suite.jsonl.gz"])
def test_a_packed_file_that_grows_without_end_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"item_id," + bytes(70 << 20)))
    for door in (suite.load, DOORS["data"]):
        with pytest.raises(InputError, match=r"grows without end.*200 times its size"):
            door(str(tmp_path / name))


def test_limits_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "x" * (2 << 20), "completion": "y"}))
    monkeypatch.setenv("VALUEDRIFT_MAX_ROW_MB", "1")
    with pytest.raises(InputError, match=r"more than 1 MB.*VALUEDRIFT_MAX_ROW_MB=4"):
        DOORS["data"](str(tmp_path / "long.jsonl"))
    monkeypatch.setenv("VALUEDRIFT_MAX_TABLE_MB", "1")
    with pytest.raises(InputError, match=r"more than 1 MB.*VALUEDRIFT_MAX_TABLE_MB=4"):
        load_labelled(str(tmp_path / "long.jsonl"))


def test_a_missing_cell_is_no_text_that_reads_none(tmp_path: Path) -> None:
    row = {"proposition": "P.", "prompt": "P?", "response": None, "label": "support"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=r"row 1 response: found None, allowed: a text"):
        load_labelled(str(tmp_path / "a.jsonl"))


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion,prompt\na,b,c\n")
    for door in (suite.load, DOORS["data"]):
        with pytest.raises(InputError, match="columns: found 'prompt', allowed: every column once"):
            door(str(tmp_path / "a.csv"))


def test_a_negative_step_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"item_id": suite.load().items[0].item_id, "response": "Yes.", "step": -1})
    )
    with pytest.raises(InputError, match="step: found -1, allowed: a whole number of at least 0"):
        load_responses(str(tmp_path / "a.jsonl"))


def test_marks_of_joined_files_are_no_part_of_a_row(tmp_path: Path) -> None:
    row = {"item_id": suite.load().items[0].item_id, "response": "Yes."}
    (tmp_path / "a.jsonl").write_text("\n".join(f"\ufeff{json.dumps(row | {'sample': n})}" for n in range(2)))
    assert load_responses(str(tmp_path / "a.jsonl")).samples == 2
    (tmp_path / "b.jsonl").write_text("\n".join(["\ufeff" + json.dumps({"prompt": "P?", "completion": "C."})] * 2))
    assert len(load_data(data_of(str(tmp_path / "b.jsonl")), "sft").rows) == 2
