"""Generated bad input at every door: an answer or one line that can be mended, never a traceback or raw characters.

Each door is tried with some dozen cases; ``VALUEDRIFT_FUZZ=700`` tries all of them with more than 10,000.
"""

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from valuedrift_mlflow import judges, models, suite
from valuedrift_mlflow.data.datasets import load_data
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.evaluation.responses import load_responses
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.judges.labelled import load_answers as load_labelled
from valuedrift_mlflow.recipe.read import load_recipe, validate

CASES = settings(
    max_examples=int(os.environ.get("VALUEDRIFT_FUZZ", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
STEERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

ODD_TEXTS = st.sampled_from(
    [
        *(
            "",
            " ",
            "~nouser/x",
            "a\0b",
            "x" * 300,
            "/" + "y/" * 3000,
            "\x1b]0;title\x07",
            "\u202eabc",
            "NaN",
            "null",
            "1e400",
        ),
        *(
            "9" * 5000,
            "-1",
            "100000000000000000000",
            "os:system",
            "embedded:",
            "openai:/",
            "models:/",
            "runs:/",
            "hf:",
            "a@b@c",
        ),
        *(
            "vaes?topics=",
            "vaes?per_topic=99999999999999999999",
            "prism:",
            "prism:x?clusters=0",
            "[" * 3000,
            "mine:f",
            ".",
            "..",
        ),
        *(
            "embedded:sft?size=1e9",
            "embedded:pairs?gap=2",
            "%00",
            "\\",
            "a,b,,c",
            "lexical,lexical",
            "{",
            "?",
            "??a=b",
            "\ud800",
        ),
    ]
)
TEXTS = ODD_TEXTS | st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)
KEYS = st.sampled_from(
    ["base", "suite", "judge", "samples", "temperature", "stages", "seed", "margin", "stop", "max_new_tokens", "audit"]
)
STAGE_KEYS = st.sampled_from(
    [
        "name",
        "algorithm",
        "from",
        "data",
        "learning_rate",
        "max_steps",
        "batch_size",
        "beta",
        "lora",
        "reward",
        "trainer",
    ]
)
NAMED = st.sampled_from(["sft", "dpo", "ppo", "embedded:sft", "embedded:pairs", "embedded:base", "lexical", "vaes"])
STAGES = st.lists(st.dictionaries(STAGE_KEYS | TEXTS, NAMED | VALUES, max_size=6), max_size=3)
COLUMNS = st.sampled_from(
    [
        *(
            "item_id",
            "topic",
            "proposition",
            "prompt",
            "polarity",
            "axis",
            "direction",
            "response",
            "label",
            "step",
            "sample",
        ),
        *(
            "messages",
            "chosen",
            "rejected",
            "completion",
            "stance_a",
            "stance_b",
            "prompt_a",
            "prompt_b",
            "suite",
            "kind",
        ),
    ]
)
ROWS = st.lists(st.dictionaries(COLUMNS, NAMED | VALUES, max_size=8), max_size=4)


def good_or_told(door: Callable[[], object]) -> None:
    """Whether a door takes what it is given or says in lines what is wrong; any other error is the test's."""
    try:
        door()
    except InputError as error:
        for line in str(error).split("\n"):
            assert len(line) < 2_000
            assert not STEERS.search(line), ascii(line)


def written(rows: object, ending: str) -> bytes:
    """Rows as a file of this ending has them."""
    if ending == ".csv":
        lines = [",".join(map(str, row)) if isinstance(row, dict) else str(row) for row in rows]  # type: ignore[attr-defined]
        return "\n".join(lines).encode(errors="surrogatepass")
    texts = [json.dumps(row) for row in rows] if ending == ".jsonl" else [json.dumps(rows)]  # type: ignore[attr-defined]
    return "\n".join(texts).encode()


def data_of(uri: str, **more: object) -> Data:
    """Data as a flag gives them, whose text no recipe has checked."""
    return Data(uri="x").model_copy(update={"uri": uri, **more})


FILES = st.builds(
    lambda rows, ending, bom, packed, rubbish: (
        ending + (".gz" if packed else ""),
        (gzip.compress if packed else bytes)((b"\xef\xbb\xbf" if bom else b"") + written(rows, ending) + rubbish),
    ),
    ROWS,
    st.sampled_from([".csv", ".jsonl", ".json"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"", b"", b"\n", b"\x00\xff", b"\nitem_id,item_id\n1,2", b"\n{", "\u2028".encode(), b'"']),
)
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
def test_any_text(door: str, text: str) -> None:
    others: dict[str, Callable[[str], object]] = {
        "judge": judges.load,
        "model": models.check_model,
        "recipe": lambda given: load_recipe("main", given),
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
    with pytest.raises(InputError, match="aliases that stand for more than 100,000 values"):
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
