"""Formats of users: a function in a module beside the recipe, or of an installed package."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts_of_users import install, working_folder

from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data, Kind
from valuedrift_mlflow.inputs.errors import InputError

CODE = """
def answers(row):
    return {"prompt": row["q"], "completion": row["good"], "topic": "taxes", "stance": "support"}

def messages(row):
    said = zip(("user", "assistant"), (row["q"], row["good"]))
    return {"messages": [{"role": role, "content": text} for role, text in said]}

def pairs(row):
    return {"prompt": row["q"], "chosen": row["good"], "rejected": row["bad"]}

def labelled(row):
    return {"prompt": row["q"], "completion": row["bad"], "label": False}

def prompts(row):
    return {"prompt": row["q"]}

def nothing(row):
    return None

def strange(row):
    return {"question": row["q"]}

def mixed(row):
    return pairs(row) if row["q"].startswith("Should") else answers(row)
"""
ROWS = [{"q": "Should taxes rise?", "good": "Yes.", "bad": "No."}, {"q": "Do cats rule?", "good": "No.", "bad": "Yes."}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as folder:
        (folder / "mine_f.py").write_text(CODE)
        write(folder, ROWS)
        yield folder


def write(folder: Path, rows: list[dict[str, str]]) -> None:
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def data(format: str, **settings: str) -> Data:
    return Data.model_validate({"uri": "own.jsonl", "format": format, **settings})


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("answers", "sft"),
        ("messages", "sft"),
        ("pairs", "pairs"),
        ("pairs", "labelled"),
        ("labelled", "labelled"),
        ("prompts", "prompts"),
        ("answers", "prompts"),
    ],
)
def test_the_kind_is_found_from_the_keys(folder: Path, function: str, kind: Kind) -> None:
    loaded = datasets.load_data(data(f"mine_f:{function}"), kind)
    assert loaded.format == f"mine_f:{function}"
    assert len(loaded.rows) == (4 if (function, kind) == ("pairs", "labelled") else 2)
    assert set(loaded.rows[0]) == set(datasets.COLUMNS[kind])
    assert loaded.rows[0]["prompt"] == [{"role": "user", "content": "Should taxes rise?"}]
    if kind == "sft":
        assert loaded.rows[1]["completion"] == [{"role": "assistant", "content": "No."}]


def test_what_the_function_says_of_stances_is_kept(folder: Path) -> None:
    assert datasets.load_data(data("mine_f:answers"), "sft").stance_mix == {"taxes": (1.0, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("format", "kind", "words"),
    [
        ("mine_f:gone", "sft", "data.format: found 'mine_f:gone', allowed: a function that mine_f has"),
        ("absent_f:row", "sft", "ModuleNotFoundError"),
        ("mine_f:answers", "pairs", r"mine_f:answers \(sft\).*prompt, chosen and rejected"),
        ("mine_f:nothing", "sft", r"row 1: found 'the function returned None, expected a row \(a dict\)'"),
        ("mine_f:strange", "sft", "row 2: found 'the function returned question, expected prompt, chosen, rejected;"),
        ("mine_f:mixed", "pairs", "row 2: found 'the function returned prompt, completion, topic, stance, of other "),
        ("anthropic", "sft", "wildchat.*, module:function$"),
    ],
)
def test_what_is_no_format_is_named(folder: Path, format: str, kind: Kind, words: str) -> None:
    with pytest.raises(InputError, match=words):
        datasets.load_data(data(format), kind)


def test_a_row_that_the_function_cannot_read_is_bad_with_its_number_and_reason(folder: Path) -> None:
    write(folder, [{"question": "?"}, *ROWS])
    with pytest.raises(InputError, match=r"^data own.jsonl row 1: found \"KeyError: 'q'\", allowed: a row of format"):
        datasets.load_data(data("mine_f:pairs"), "pairs")
    loaded = datasets.load_data(data("mine_f:pairs", on_bad_row="skip"), "pairs")
    assert (len(loaded.rows), loaded.bad) == (2, 1)


def test_a_format_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder / "site", "wvs_f", {"formats": {"wvs": "wvs_f:pairs", "broken": "wvs_f:gone"}}, CODE)
    monkeypatch.syspath_prepend(folder / "site")
    assert datasets.load_data(data("wvs"), "pairs").format == "wvs"
    datasets.check_data(data("wvs"))
    with pytest.raises(InputError, match=r"found 'broken'.*wvs_f:gone \(wvs_f 1.2\): AttributeError"):
        datasets.check_data(data("broken"))
    with pytest.raises(InputError, match=r"module:function, and from installed packages: broken, wvs$"):
        datasets.check_data(data("anthropic"))
