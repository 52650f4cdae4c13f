"""Suites of users: a function in a module beside the recipe, or of an installed package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from parts_of_users import install, working_folder

from valuedrift_mlflow import suite
from valuedrift_mlflow.inputs.errors import InputError

CODE = """
import pandas as pd
from valuedrift_mlflow import suite

def table():
    rows = [(f"{topic}-{i}", topic, f"{topic} {i}.", f"{topic} {i}?", 1) for topic in ("cats", "dogs") for i in (1, 2)]
    return pd.DataFrame(rows, columns=["item_id", "topic", "proposition", "prompt", "polarity"])

def whole():
    return suite.from_frame(table(), "pets", "3.1")

def unknown_polarity():
    return table().assign(polarity=2)

def pairs():
    return pd.DataFrame({"theme": ["cats"], "stance_a": ["Cats rule."], "stance_b": ["Dogs rule."],
                         "prompt_a": ["Do cats rule?"], "prompt_b": ["Do dogs rule?"]})

def fails(): raise OSError("no file")
def nothing(): return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as folder:
        (folder / "mine_s.py").write_text(CODE)
        yield folder


def test_a_table_is_recorded_as_a_file_is(folder: Path) -> None:
    own = suite.load("mine_s:table")
    assert (own.name, own.version, own.source) == ("mine_s:table", "function", "mine_s:table")
    own.frame().to_csv(folder / "pets.csv", index=False)
    assert own.hash == suite.load("pets.csv").hash
    part = suite.load("mine_s:table?topics=dogs&per_topic=1")
    assert [item.item_id for item in part.items] == ["dogs-1"]
    assert part.identity == f"mine_s:table?topics=dogs&per_topic=1@function#{part.hash}"
    assert part.describe()["suite.uri"] == "mine_s:table?topics=dogs&per_topic=1"


def test_a_suite_keeps_its_own_name_and_version(folder: Path) -> None:
    own = suite.load("mine_s:whole?topics=cats")
    assert (own.name, own.version, own.source) == ("pets", "3.1", "mine_s:whole?topics=cats")
    assert own.topics == ("cats",)


def test_opposed_pairs(folder: Path) -> None:
    assert suite.load("mine_s:pairs?topic_column=theme").topics == ("cats",)


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mine_s:gone", "suite: found 'mine_s:gone', allowed: a function that mine_s has"),
        ("absent_s:table", "ModuleNotFoundError"),
        ("mine_s:fails", "a function that gives a suite; OSError: no file"),
        ("mine_s:nothing", "a function that returns a pandas.DataFrame or a Suite; it returned nothing"),
        ("mine_s:unknown_polarity", "suite mine_s:unknown_polarity row 4 polarity: found 2, allowed: 1 or -1"),
        ("mine_s:table?topics=birds", "cats, dogs"),
        ("mine_s:table?top=1", "the options topics"),
        ("mine_s:table?topic_column=topic", "topic_column is for opposed pairs"),
        ("pets", "vaes, prism:PATH, module:function or an existing csv"),
    ],
)
def test_what_is_no_suite_is_named(folder: Path, uri: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        suite.load(uri)


def test_a_suite_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder / "site", "wvs_s", {"suites": {"wvs": "wvs_s:table", "broken": "wvs_s:gone"}}, CODE)
    monkeypatch.syspath_prepend(folder / "site")
    own = suite.load("wvs?per_topic=1")
    assert (own.name, own.source, len(own.items)) == ("wvs", "wvs?per_topic=1", 2)
    with pytest.raises(InputError, match=r"found 'broken'.*wvs_s:gone \(wvs_s 1.2\): AttributeError"):
        suite.load("broken")
    with pytest.raises(InputError, match="and from installed packages: broken, wvs"):
        suite.load("pets")
