"""Algorithms of users: a class derived from ``Stage``, beside the recipe or of an installed package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from parts_of_users import install, working_folder

from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.stages import ALGORITHMS, stage_class

CODE = """
from typing import Literal
from pydantic import Field
from valuedrift_mlflow.stages.sft import SFT
from valuedrift_mlflow.stages.stage import Stage

class Named(SFT):
    '''Named.'''
    algorithm: Literal["slow_sft"]
    patience: int = Field(3, ge=1, description="how slow")

class Bare(SFT):
    learning_rate: float = Field(1e-3, gt=0)

class Abstract(Stage):
    kind = "sft"
    learning_rate: float = 1e-3

class Kindless(Stage):
    def build(self, job): ...

class Other: ...
def function(job): ...
"""
STAGE = {"name": "first", "data": "answers.jsonl"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with working_folder(tmp_path, monkeypatch) as folder:
        (folder / "mine_a.py").write_text(CODE)
        yield folder


def problems(*stages: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        read.validate({"stages": list(stages)})
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(("name", "word", "rate"), [("mine_a:Named", "slow_sft", 2e-5), ("mine_a:Bare", "bare", 1e-3)])
def test_a_class_beside_the_recipe(folder: Path, name: str, word: str, rate: float) -> None:
    recipe = read.validate({"stages": [STAGE | {"algorithm": name}]})
    [stage] = recipe.stages
    assert (stage.algorithm, stage.word, stage.kind, stage.learning_rate) == (name, word, "sft", rate)
    assert stage.parameters()["first.algorithm"] == recipe.parameters()["first.algorithm"] == name
    # As another process is given it.
    assert read.validate(recipe.model_dump(mode="json", by_alias=True)) == recipe


def test_its_own_settings_are_checked(folder: Path) -> None:
    named = STAGE | {"algorithm": "mine_a:Named"}
    [stage] = read.validate({"stages": [named | {"patience": 7}]}).stages
    assert stage.parameters()["first.patience"] == "7"
    assert "first.patience: found 0" in problems(named | {"patience": 0})
    assert "first.hurry: found 1" in (lines := problems(named | {"hurry": 1}))
    assert "patience" in lines


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine_a:Gone", "first.algorithm: found 'mine_a:Gone', allowed: a Stage that mine_a has"),
        ("absent_a:Named", "first.algorithm: found 'absent_a:Named', allowed: module:Stage that can be imported"),
        ("mine_a:Abstract", "a class with a method build(job)"),
        ("mine_a:Kindless", "give the class a line such as kind = 'sft'"),
        ("mine_a:Other", "a class derived from valuedrift_mlflow.stages.stage.Stage; it is Other"),
        ("mine_a:function", "a class derived from valuedrift_mlflow.stages.stage.Stage; it is function"),
        ("magic", "rloo, module:Stage"),
        (3, "rloo, module:Stage"),
    ],
)
def test_what_is_no_algorithm_is_named(folder: Path, name: object, words: str) -> None:
    assert words in problems(STAGE | {"algorithm": name})


def test_equal_stages_are_trained_once_under_the_first_name(folder: Path) -> None:
    twins = [STAGE | {"algorithm": "mine_a:Named"}, STAGE | {"name": "second", "algorithm": "mine_a:Named"}]
    merged, notes = read.validate({"stages": twins}).merged()
    assert [stage.name for stage in merged.stages] == ["first"]
    assert notes == ["first and second have the same settings: trained once, as first"]


def test_an_algorithm_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder / "site", "wvs_a", {"algorithms": {"slow": "wvs_a:Named", "broken": "wvs_a:Gone"}}, CODE)
    monkeypatch.syspath_prepend(folder / "site")
    [stage] = read.validate({"stages": [STAGE | {"algorithm": "slow"}]}).stages
    assert (stage.algorithm, stage.word) == ("slow", "slow")
    assert stage_class("sft") is ALGORITHMS["sft"]
    assert "wvs_a:Gone (wvs_a 1.2): AttributeError" in problems(STAGE | {"algorithm": "broken"})
    assert "module:Stage, and from installed packages: broken, slow" in problems(STAGE | {"algorithm": "magic"})
