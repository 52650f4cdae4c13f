"""Adapters on a base in 4 bits, with the library itself, on the CPU: what trains, what stays, what is logged."""

import importlib.util
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import How
from valuedrift_mlflow.models.reloads import Reloads
from valuedrift_mlflow.pipeline import dry_run
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import StageRun, prepare
from valuedrift_mlflow.pipeline.train import load_start
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

if importlib.util.find_spec("bitsandbytes") is None:
    pytest.skip("bitsandbytes is not installed", allow_module_level=True)

FOUR = How(quantization="4bit")
DATA = {"sft": "embedded:sft?size=8", "dpo": "embedded:pairs?size=8"}


def recipe(folder: Path, algorithm: str, rank: int = 4) -> Recipe:
    stage = {"name": algorithm, "algorithm": algorithm, "data": DATA[algorithm], "max_steps": 2, "batch_size": 4}
    stage |= {"learning_rate": 1e-2, "warmup_ratio": 0, "max_length": 256, "lora": {"rank": rank}}
    short = {"samples": 1, "max_new_tokens": 4, "suite": "vaes?topics=abortion&per_topic=1", "audit": False}
    base = {"model": str(folder), "quantization": "4bit"}
    return read.validate({"base": base, "stages": [stage], "reference_kl": False} | short)


def logits(loaded: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loaded.eval()(input_ids=ids, use_cache=False).logits.float()
    return found


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_adapters_move_and_what_lies_below_them_does_not(random_folder: Path, tmp_path: Path, algorithm: str) -> None:
    loaded = models.load_model(str(random_folder), FOUR)
    loaded.model.name_or_path = str(random_folder)
    stage = recipe(random_folder, algorithm).stages[0]
    rows = datasets.load_data(stage.data, stage.kind)
    below = {name: weight.detach().clone() for name, weight in loaded.model.named_parameters()}
    assert any(weight.dtype == torch.uint8 for weight in below.values())  # two numbers of 4 bits in each
    trainer: Any = build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, tmp_path, 0))
    before = {name: w.detach().clone() for name, w in trainer.model.named_parameters() if w.requires_grad}
    assert all("lora_" in name for name in before)
    trainer.train()
    now = dict(trainer.model.named_parameters())
    assert sum(not now[name].equal(weight) for name, weight in before.items()) > len(before) / 2
    kept = {
        name.replace(".base_layer", ""): weight for name, weight in trainer.model.get_base_model().named_parameters()
    }
    for name, weight in below.items():
        # What is not in 4 bits may have been widened for the training, which changes no value.
        assert kept[name].to(weight.dtype).equal(weight), name
    trainer.model.save_pretrained(tmp_path / "step")
    Reloads(algorithm, FOUR).check(trainer.model, loaded.tokenizer, tmp_path / "step")


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_what_is_logged_at_the_end_is_the_model_that_was_measured(
    random_folder: Path, store: Path, algorithm: str
) -> None:
    """Its merged weights are those that the 4 bits stand for, with the adapters: not rounded to 4 bits again."""
    from peft import PeftModel

    result: Any = run_single_stage(prepare(recipe(random_folder, algorithm), "test"), Display())
    whole = models.load_model(result.model_uri)
    adapters = mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/checkpoints/step-000002")
    measured = PeftModel.from_pretrained(models.load_model(str(random_folder), FOUR).model, adapters)
    start = models.load_model(str(random_folder), FOUR)
    ids = torch.tensor([whole.tokenizer("Should we keep our word?")["input_ids"]])
    said, moved = logits(whole.model, ids), logits(start.model, ids)
    expected = logits(measured, ids)
    # The measured model multiplies in 16 bits, the merged one in 32: three digits are the same.
    assert float((said - expected).abs().max()) < 2e-2 * float(expected.abs().max())
    assert float((moved - expected).abs().max()) > 10 * float((said - expected).abs().max())
    assert not getattr(whole.model, "is_quantized", False)
    # A checkpoint before the last one has its adapters alone; evaluated it is what was measured too.
    logged = {model.name: model.model_id for model in mlflow.search_logged_models(output_format="list")}
    step = models.load_model(f"models:/{logged[f'{algorithm}-step-000001']}")
    adapters = mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/checkpoints/step-000001")
    first = logits(PeftModel.from_pretrained(models.load_model(str(random_folder), FOUR).model, adapters), ids)
    assert float((logits(step.model, ids) - first).abs().max()) < 2e-2 * float(first.abs().max())


def test_all_weights_are_not_trained_on_it(random_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"base\.quantization: .*sft, which trains all weights"):
        prepare(recipe(random_folder, "sft", rank=0), "test")
    models.load_model(str(random_folder), FOUR).model.save_pretrained(tmp_path / "four")
    models.load_tokenizer(str(random_folder)).save_pretrained(tmp_path / "four")
    tree = {"name": "sft", "algorithm": "sft", "data": DATA["sft"], "max_steps": 1}
    plan = prepare(read.validate({"base": {"model": str(tmp_path / "four")}, "stages": [tree]}), "test")
    with pytest.raises(InputError, match=r"sft model: .*a quantized model.*sft\.lora\.rank"):
        load_start(StageRun(plan, plan.recipe.stages[0], plan.recipe.base.model))


def test_the_dry_run_says_so_and_counts_half_a_byte_a_weight(random_folder: Path) -> None:
    plan = dry_run.dry_run(recipe(random_folder, "sft"), "test")
    assert plan.model is not None
    assert f"{plan.model.parameters:,} parameters, loaded in 4 bits (NF4)" in dry_run.lines_of(plan)[0]
    memory = plan.stages[0].memory
    assert memory is not None
    trained = plan.model.adapters(plan.plan.recipe.stages[0])
    assert memory["weights"] == plan.model.parameters / 2 + 4 * trained
