from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.recipe import read, recipe, table
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.stages import ALGORITHMS
from valuedrift_mlflow.stages.stage import LoRA

SFT = {"name": "sft", "algorithm": "sft", "data": "answers.jsonl"}


def dpo(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "algorithm": "dpo", "from": "sft", "data": "pairs.jsonl"} | settings


def stage(loaded: Recipe, name: str) -> Any:
    """The stage of that name; Any, because only some algorithms have a ``beta``."""
    [found] = [own for own in loaded.stages if own.name == name]
    return found


def problems(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(InputError) as caught:
        read.validate(tree)
    return str(caught.value).splitlines()


def setting_problems(source: str, settings: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        read.load_recipe(source, settings)
    return str(caught.value).splitlines()


def assert_line(lines: list[str], field: str, found: str, allowed: str) -> None:
    assert any(line.startswith(f"{field}:") and found in line and allowed in line for line in lines), "\n".join(lines)


# Recipes that come with the project ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", read.recipe_names())
def test_every_shipped_recipe_loads(name: str) -> None:
    assert isinstance(read.load_recipe(name), Recipe)


def test_the_embedded_recipe_is_sft_and_two_preference_stages_on_it() -> None:
    stages = read.load_recipe("embedded").stages
    assert [(own.name, own.algorithm, own.start) for own in stages] == [
        ("sft", "sft", "base"),
        ("dpo-gap0", "dpo", "sft"),
        ("dpo-gap1", "dpo", "sft"),
    ]


def test_a_file_is_a_recipe_too(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("samples: 2\nstages:\n  - {name: sft, algorithm: sft, data: a.jsonl, learning_rate: 1e-5}\n")
    loaded = read.load_recipe(str(file))
    assert loaded.samples == 2
    assert loaded.stages[0].learning_rate == 0.00001
    assert loaded.stages[0].data.uri == "a.jsonl"


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    [line] = setting_problems("embeded", "")
    assert "'embeded'" in line
    assert all(name in line for name in read.recipe_names())


@pytest.mark.parametrize("text", ["- a\n- list\n", "samples: [", "just text"])
def test_a_file_that_is_no_mapping_is_one_line_that_names_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    [line] = setting_problems(str(file), "")
    assert str(file) in line
    assert "YAML mapping" in line


def test_a_recipe_is_read_without_the_libraries_that_train() -> None:
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets', 'mlflow', 'pandas'}"
    read = "import sys; from valuedrift_mlflow.recipe import read; read.load_recipe('embedded')"
    code = f"{read}; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Problems ------------------------------------------------------------------------------------------------------------


def test_all_problems_are_shown_at_once_one_line_each() -> None:
    lines = problems(
        {
            "sample": 3,  # unknown key
            "temperature": "hot",  # wrong type
            "stages": [
                SFT | {"betta": 0.1, "max_steps": 0},  # unknown key, out of range
                {"name": "tune", "algorithm": "ppo2", "data": "x.jsonl"},  # unknown algorithm
                {"name": "first", "algorithm": "dpo", "from": "second"},  # a later stage, no data
                dpo("second", lora={"rank": -1}),
            ],
        }
    )
    assert len(lines) == 8
    assert_line(lines, "sample", "3", "samples")
    assert_line(lines, "temperature", "'hot'", "number")
    assert_line(lines, "sft.betta", "0.1", "batch_size")
    assert_line(lines, "sft.max_steps", "0", "greater than or equal to 1")
    assert_line(lines, "tune.algorithm", "'ppo2'", "sft, dpo")
    assert_line(lines, "first.data", "nothing", "URI")
    assert_line(lines, "first.from", "'second'", "base, sft, tune")
    assert_line(lines, "second.lora.rank", "-1", "greater than or equal to 0")


def test_stages_that_do_not_fit_together_are_all_shown() -> None:
    lines = problems({"stages": [SFT, dpo("a"), dpo("a"), dpo("b", **{"from": "c"}), dpo("c"), dpo("base")]})
    assert len(lines) == 3
    assert_line(lines, "a.name", "'a'", "no other stage")
    assert_line(lines, "b.from", "'c'", "base, sft, a")
    assert_line(lines, "base.name", "'base'", "taken")


def test_a_stage_cannot_start_from_itself() -> None:
    [line] = problems({"stages": [dpo("tune", **{"from": "tune"})]})
    assert_line([line], "tune.from", "'tune'", "base")


def test_an_algorithms_name_is_a_stages_name_only_where_it_is_clear() -> None:
    assert read.validate({"stages": [SFT, dpo("dpo")]}).stages[1].name == "dpo"
    assert_line(problems({"stages": [SFT, dpo("dpo"), dpo("dpo-2")]}), "dpo.name", "'dpo'", "single stage")
    assert_line(problems({"stages": [SFT | {"name": "dpo"}]}), "dpo.name", "'dpo'", "single stage")


@pytest.mark.parametrize("name", ["DPO", "1st", "with space", "with.dot", "a" * 65])
def test_a_stages_name_is_a_slug(name: str) -> None:
    [line] = problems({"stages": [SFT | {"name": name}]})
    assert f"found '{name}'" in line


def test_problems_of_settings_and_of_the_recipe_are_shown_together() -> None:
    lines = setting_problems("embedded", "smples=2 samples=0 dpo-gap0.betta=1 nonsense")
    assert len(lines) == 4
    assert any("'smples'" in line and "samples" in line and "dpo-gap0.KEY" in line for line in lines)
    assert any("'nonsense'" in line and "key=value" in line for line in lines)
    assert_line(lines, "samples", "0", "greater than or equal to 1")
    assert_line(lines, "dpo-gap0.betta", "1", "beta")


# --set ---------------------------------------------------------------------------------------------------------------


def test_set_by_stage_name_changes_that_stage_only() -> None:
    loaded = read.load_recipe("embedded", "dpo-gap0.beta=0.7")
    assert stage(loaded, "dpo-gap0").beta == 0.7
    assert stage(loaded, "dpo-gap1").beta == 0.3


def test_set_by_algorithm_changes_all_its_stages_and_the_later_setting_wins() -> None:
    loaded = read.load_recipe("embedded", "dpo.beta=0.2 dpo-gap1.beta=0.4")
    assert stage(loaded, "dpo-gap0").beta == 0.2
    assert stage(loaded, "dpo-gap1").beta == 0.4


def test_set_recipe_keys_nested_keys_and_small_floats() -> None:
    loaded = read.load_recipe(
        "embedded", "samples=2 seed=7 base.model=models:/m@champion sft.lora.rank=8 dpo.learning_rate=1e-5"
    )
    assert (loaded.samples, loaded.seed, loaded.base.model) == (2, 7, "models:/m@champion")
    assert stage(loaded, "sft").lora.rank == 8
    assert stage(loaded, "dpo-gap0").lora.rank == 0
    assert stage(loaded, "dpo-gap1").learning_rate == 0.00001


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.0e-5", "0.00001"])
def test_a_float_may_be_written_as_python_writes_it(text: str) -> None:
    assert read.load_recipe("sft", f"sft.learning_rate={text}").stages[0].learning_rate == 0.00001


def test_uris_with_options_keep_every_character() -> None:
    pairs = "embedded:pairs?gap=0.5&chosen=oppose&rejected=support&size=10&seed=3"
    loaded = read.load_recipe("embedded", f"dpo-gap0.data={pairs} suite=vaes?topics=abortion,religion&per_topic=5")
    assert stage(loaded, "dpo-gap0").data.uri == pairs
    assert loaded.suite == "vaes?topics=abortion,religion&per_topic=5"


def test_a_data_format_is_set_without_losing_the_uri() -> None:
    data = read.load_recipe("sft", "sft.data=own.csv sft.data.format=alpaca").stages[0].data
    assert (data.uri, data.format) == ("own.csv", "alpaca")


def test_null_takes_a_setting_back() -> None:
    assert read.load_recipe("embedded", "checkpoint_samples=null").checkpoint_samples is None


@pytest.mark.parametrize("key", ["stages", "sft", "ppo.beta", "dpo-gap2.beta", "Samples"])
def test_an_unknown_key_is_one_line_with_the_known_ones(key: str) -> None:
    [line] = setting_problems("embedded", f"{key}=1")
    assert f"'{key}'" in line
    assert "samples" in line and "sft.KEY" in line and "dpo-gap1.KEY" in line


# Equal stages --------------------------------------------------------------------------------------------------------


def test_stages_that_became_equal_are_trained_once_under_the_algorithms_name() -> None:
    merged, notes = read.load_recipe("embedded", "dpo.data=pairs.jsonl").merged()
    assert [(own.name, own.start, own.data.uri) for own in merged.stages[1:]] == [("dpo", "sft", "pairs.jsonl")]
    [note] = notes
    assert all(name in note for name in ("dpo-gap0", "dpo-gap1", "as dpo"))


def test_a_default_that_is_spelled_out_makes_no_difference() -> None:
    loaded = read.validate({"stages": [SFT, dpo("a", beta=0.1, batch_size=8), dpo("b")]})
    assert [own.name for own in loaded.merged()[0].stages] == ["sft", "dpo"]


def test_different_stages_are_left_alone() -> None:
    loaded = read.load_recipe("embedded")
    assert loaded.merged() == (loaded, [])


def test_a_stage_that_starts_from_a_merged_one_follows_it() -> None:
    loaded = read.validate({"stages": [SFT, dpo("a"), dpo("b"), dpo("after", beta=0.3, **{"from": "b"})]})
    merged, _ = loaded.merged()
    assert [own.start for own in merged.stages] == ["base", "sft", merged.stages[1].name]


def test_stages_that_start_from_different_models_are_not_equal() -> None:
    loaded = read.validate({"stages": [SFT, dpo("a"), dpo("b", **{"from": "base"})]})
    assert [own.name for own in loaded.merged()[0].stages] == ["sft", "a", "b"]


# What is recorded and shown ------------------------------------------------------------------------------------------


def test_parameters_are_flat_text() -> None:
    flat = read.load_recipe("embedded", "sft.lora.rank=4").parameters()
    assert all(isinstance(value, str) for value in flat.values())
    expected = {
        "base.model": "embedded:base",
        "samples": "5",
        "sft.algorithm": "sft",
        "sft.from": "base",
        "sft.learning_rate": "0.001",
        "sft.lora.rank": "4",
        "sft.data": "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=2000&seed=1",
        "dpo-gap1.beta": "0.3",
        "dpo-gap1.from": "sft",
    }
    assert {key: flat[key] for key in expected} == expected


def test_what_is_not_given_is_not_recorded() -> None:
    flat = read.validate({"stages": [SFT]}).parameters()
    assert "checkpoint_samples" not in flat
    assert "sft.seed" not in flat


def test_the_table_has_every_key_of_the_models() -> None:
    models: list[type[BaseModel]] = [Recipe, recipe.Base, Data, LoRA, *ALGORITHMS.values()]
    fields = {field.serialization_alias or name for model in models for name, field in model.model_fields.items()}
    quoted = re.findall(r"`([^`]+)`", table.markdown_table())
    assert fields <= {part for key in quoted for part in key.split(".")}


def test_the_table_has_three_columns_and_the_defaults() -> None:
    assert {row.count("|") for row in table.markdown_table().splitlines()} == {4}
    assert "| `samples` | `5` |" in table.markdown_table()
    assert "| `STAGE.lora.rank` | `0` |" in table.markdown_table()
    assert "| `dpo.beta` | `0.1` |" in table.markdown_table()


def test_a_merged_stage_leaves_no_other_starting_from_its_old_name() -> None:
    first, between = SFT | {"name": "first"}, SFT | {"name": "between", "from": "a"}
    stages = [first, dpo("a", **{"from": "first"}), between, dpo("b", **{"from": "first"})]
    merged, _ = read.validate({"stages": stages}).merged()
    assert [(own.name, own.start) for own in merged.stages] == [("first", "base"), ("dpo", "first"), ("between", "dpo")]


@pytest.mark.parametrize("order", [("a", "b", "other"), ("other", "a", "b"), ("a", "other", "b")])
def test_a_merged_stage_keeps_its_name_where_the_algorithms_would_not_be_clear(order: tuple[str, ...]) -> None:
    loaded = read.validate({"stages": [SFT, *(dpo(name, beta=0.5 if name == "other" else 0.1) for name in order)]})
    merged, [note] = loaded.merged()
    assert {own.name for own in merged.stages} == {"sft", "a", "other"}
    assert note.endswith("as a")


def test_three_equal_stages_are_one_with_one_note() -> None:
    merged, [note] = read.validate({"stages": [SFT, dpo("a"), dpo("b"), dpo("c")]}).merged()
    assert [own.name for own in merged.stages] == ["sft", "dpo"]
    assert all(name in note for name in ("a and b and c", "as dpo"))


def test_from_may_not_name_a_later_stage_under_its_field_name_either() -> None:
    assert_line(problems({"stages": [SFT | {"start": "later"}]}), "sft.from", "'later'", "base")


@pytest.mark.parametrize("stages", [3, "sft", {"sft": {}}])
def test_stages_are_a_list(stages: Any) -> None:
    [line] = problems({"stages": stages})
    assert_line([line], "stages", repr(stages), "list")


def test_values_that_yaml_cannot_make_are_a_line_or_text(tmp_path: Path) -> None:
    assert read.load_recipe("sft", "sft.data=2024-13-45").stages[0].data.uri == "2024-13-45"
    file = tmp_path / "own.yaml"
    for content, where in (
        (b"samples: 2024-13-45\n", "samples: found '2024-13-45'"),
        (b"\xff\xfe\x00s: 3\n", str(file)),
    ):
        file.write_bytes(content)
        [line] = setting_problems(str(file), "")
        assert where in line


def test_what_stands_for_a_mapping_is_named_by_its_keys() -> None:
    assert_line(problems({"stages": [SFT | {"data": 3}]}), "sft.data", "3", "a URI, or the keys uri, format, split")
    assert_line(problems({"stages": [SFT | {"lora": 8}]}), "sft.lora", "8", "rank")
    assert_line(problems({"stages": [SFT | {"data": {"format": "alpaca"}}]}), "sft.data.uri", "nothing", "a hub id")
    assert_line(problems({"stages": [SFT | {"name": "lora", "alpha": 3}]}), "lora.alpha", "3", "learning_rate")


def test_a_stage_without_a_name_is_numbered() -> None:
    assert_line(problems({"stages": [SFT, {"algorithm": "dpo", "data": "x"}]}), "stages[1].name", "nothing", "name")


def test_numbers_are_finite() -> None:
    assert_line(problems({"temperature": float("inf")}), "temperature", "inf", "finite")


def test_the_split_of_a_hub_dataset_is_recorded() -> None:
    loaded = read.validate({"stages": [SFT | {"data": {"uri": "org/data", "split": "test"}}]})
    assert loaded.parameters()["sft.data.split"] == "test"
