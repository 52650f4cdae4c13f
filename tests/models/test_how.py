"""How models are loaded: precision, attention, quantization and code of their own, from the recipe to the weights."""

import importlib.util
from pathlib import Path
from typing import Any

import families
import mlflow
import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import How, check_how
from valuedrift_mlflow.pipeline.model_size import model_of
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageRun, prepare
from valuedrift_mlflow.pipeline.train import load_start
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.report.display import Display

SFT: dict[str, Any] = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=4", "max_steps": 1}


def recipe(folder: Path | str, stage: dict[str, Any] | None = None, **base: Any) -> Recipe:
    short = {"samples": 1, "max_new_tokens": 4, "suite": "vaes?per_topic=1", "audit": False, "reference_kl": False}
    return read.validate({"base": {"model": str(folder)} | base, "stages": [SFT | (stage or {})]} | short)


def started(wanted: Recipe) -> models.Loaded:
    plan = prepare(wanted, "test")
    return load_start(StageRun(plan, plan.recipe.stages[0], plan.recipe.base.model))


def test_without_settings_all_weights_are_trained_in_32_bits(random_folder: Path) -> None:
    loaded = started(recipe(random_folder))
    assert loaded.model.dtype == torch.float32


@pytest.mark.parametrize("lora", [{}, {"rank": 2}])
def test_precision_and_attention_are_those_that_were_asked_for(random_folder: Path, lora: dict[str, int]) -> None:
    loaded = started(recipe(random_folder, {"lora": lora}, dtype="bfloat16", attn_implementation="eager"))
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_the_embedded_model_has_them_too() -> None:
    loaded = models.load_model("embedded:random", How("bfloat16", "eager"))
    assert loaded.model.dtype == torch.bfloat16
    assert loaded.model.config._attn_implementation == "eager"


def test_a_stage_is_trained_and_measured_in_the_precision_asked_for(random_folder: Path, store: Path) -> None:
    """Its checkpoints are saved as they were measured."""
    wanted = recipe(random_folder, {"learning_rate": 0.1, "warmup_ratio": 0}, dtype="bfloat16")
    assert wanted.parameters()["base.dtype"] == "bfloat16"
    run_single_stage(prepare(wanted, "test"), Display())
    newest = mlflow.search_logged_models(output_format="list")[0]
    assert models.load_model(f"models:/{newest.model_id}").model.dtype == torch.bfloat16


def test_the_dry_run_counts_the_bytes_of_that_precision(random_folder: Path) -> None:
    adapted = {"lora": {"rank": 2}}
    sizes = {dtype: model_of(recipe(random_folder, adapted, dtype=dtype)) for dtype in ("auto", "bfloat16")}
    assert {dtype: size.bytes_each for dtype, size in sizes.items() if size} == {"auto": 4, "bfloat16": 2}
    four = model_of(recipe(random_folder, {"lora": {"rank": 2}}, quantization="4bit"))
    assert four is not None and four.bytes_each == 0.5


def test_all_weights_are_not_trained_in_16_bits_that_round_them_away(random_folder: Path) -> None:
    with pytest.raises(InputError, match=r"base\.dtype: found 'float16', allowed: auto, float32 or bfloat16 for sft"):
        prepare(recipe(random_folder, dtype="float16"), "test")


def test_attention_that_is_not_here_is_refused() -> None:
    with pytest.raises(InputError, match=r"base\.attn_implementation: found 'fast', allowed: eager, .*sdpa"):
        check_how(How(attention="fast"))
    with pytest.raises(InputError, match="flash_attn is not"):
        check_how(How(attention="flash_attention_2"))
    check_how(How(attention="sdpa"))


def test_quantization_is_for_adapters(random_folder: Path) -> None:
    with pytest.raises(InputError, match=r"base\.quantization: .*sft, which trains all weights; .*sft\.lora\.rank"):
        prepare(recipe(random_folder, quantization="4bit"), "test")
    reward = {"name": "reward", "algorithm": "reward", "data": "embedded:pairs?size=4", "lora": {"rank": 2}}
    with pytest.raises(InputError, match=r"base\.quantization: .*reward: a reward model's new head is whole"):
        prepare(recipe(random_folder, reward, quantization="4bit"), "test")


def test_quantization_needs_its_library(random_folder: Path) -> None:
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("the library is here")
    with pytest.raises(
        InputError, match=r"base\.quantization: found '4bit', .*pip install 'valuedrift-mlflow\[quant\]'"
    ):
        prepare(recipe(random_folder, {"lora": {"rank": 2}}, quantization="4bit"), "test")


def test_quantization_is_told_to_transformers(random_folder: Path) -> None:
    told = How("float16", quantization="4bit").arguments()
    assert told["quantization_config"].load_in_4bit is True
    assert told["quantization_config"].bnb_4bit_compute_dtype == torch.float16
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    loaded = models.load_model(str(random_folder), How(quantization="4bit"))
    assert getattr(loaded.model, "is_loaded_in_4bit", False)


def test_a_models_own_code_runs_where_that_is_asked_for_and_nowhere_else(random_folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = families.with_own_code(random_folder, tmp_path / "mine", ran)
    with pytest.raises(InputError, match=r"base\.model: .*base\.trust_remote_code: true"):
        prepare(recipe(folder), "test")
    assert not ran.exists()
    loaded = started(recipe(folder, trust_remote_code=True))
    assert type(loaded.model).__name__ == "Mine"
    assert ran.exists()
