import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from peft import LoraConfig, get_peft_model

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.models import Loaded
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.stages.job import build_trainer
from valuedrift_mlflow.stages.stage import Job

PAIRS = "embedded:pairs?gap=1&chosen=oppose&rejected=support&size=16"
ANSWERS = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=16"
SAMPLING: dict[str, dict[str, Any]] = {
    "ppo": {"response_length": 8},
    "grpo": {"response_length": 8, "generations": 2},
    "rloo": {"response_length": 8, "generations": 2},
}
ALGORITHMS = ("sft", "dpo", "simpo", "orpo", "kto", "reward", *SAMPLING)


@pytest.fixture(scope="module")
def adapter_folder(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters that move their base, as PEFT saves them, with the base's tokenizer beside them."""
    start = models.load_model(str(random_folder))
    start.model.name_or_path = str(random_folder)
    adapted = get_peft_model(start.model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(str(folder))
    start.tokenizer.save_pretrained(str(folder))
    return folder


def lengths_of(prompts: object, responses: Sequence[str]) -> torch.Tensor:
    """A reward that needs no model: longer responses are better."""
    return torch.tensor([float(len(response)) for response in responses])


def trainer_of(algorithm: str, loaded: Loaded, scratch: Path, **settings: Any) -> Any:
    tree = {"name": algorithm, "algorithm": algorithm, "data": ANSWERS if algorithm == "sft" else PAIRS}
    tree |= {"batch_size": 4, "max_length": 256, "max_steps": 1, "learning_rate": 1e-3, "warmup_ratio": 0.0}
    if algorithm in SAMPLING:
        tree |= {"reward": "valuedrift_mlflow.embedded.rewards:opposes", **SAMPLING[algorithm]}
    stage = read.validate({"stages": [tree | settings]}).stages[0]
    rows = datasets.load_data(stage.data, stage.kind)
    reward = lengths_of if algorithm in SAMPLING else None
    return build_trainer(Job(stage, loaded.model, loaded.tokenizer, rows, scratch, 0, [], reward))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_full_fine_tuning_from_adapters_moves_the_whole_model(
    adapter_folder: Path, tmp_path: Path, algorithm: str
) -> None:
    """The base below an adapter is loaded frozen; what is merged from both must train like any model."""
    loaded = models.load_model(str(adapter_folder))
    before = {name: weight.detach().clone() for name, weight in loaded.model.named_parameters()}
    steps = 3 if algorithm in SAMPLING else 1  # equal rewards in a group leave a step without a gradient
    trainer = trainer_of(algorithm, loaded, tmp_path, max_steps=steps)
    trainer.train()
    trained = trainer.model.policy if algorithm == "ppo" else trainer.model
    moved = {name for name, weight in trained.named_parameters() if name in before and not weight.equal(before[name])}
    assert any("layers.0." in name for name in moved)
    assert any("embed" in name for name in moved)


def test_a_frozen_model_is_refused_before_the_first_step(random_folder: Path, tmp_path: Path) -> None:
    for algorithm in ("sft", "ppo"):
        loaded = models.load_model(str(random_folder))
        loaded.model.requires_grad_(False)
        with pytest.raises(InputError, match=r"0 of \d+ tensors can be trained"):
            trainer_of(algorithm, loaded, tmp_path).train()


def test_a_step_that_rounds_every_update_away_is_an_error(random_folder: Path, tmp_path: Path) -> None:
    """In 16 bits a weight of 0.02 has steps of 1e-4: an update of 1e-9 is none."""
    loaded = models.load_model(str(random_folder))
    loaded.model.to(torch.bfloat16)
    with pytest.raises(InputError, match="step 1 moved no weight"):
        trainer_of("sft", loaded, tmp_path, learning_rate=1e-12).train()


def test_a_warm_up_is_no_standstill(random_folder: Path, tmp_path: Path) -> None:
    trainer = trainer_of("sft", models.load_model(str(random_folder)), tmp_path, max_steps=4, warmup_ratio=0.5)
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize("start", ["folder", "step"])
def test_adapters_on_adapters_name_what_they_were_trained_on(store: Path, adapter_folder: Path, start: str) -> None:
    """Every checkpoint loads as what was measured: the last one as the whole model that was logged beside it."""
    uri = str(adapter_folder)
    for _ in range(2 if start == "step" else 1):
        stage = {"name": "sft", "algorithm": "sft", "data": ANSWERS, "batch_size": 4, "max_length": 256, "max_steps": 2}
        stage |= {"checkpoint_every": 1, "learning_rate": 1e-2, "warmup_ratio": 0.0, "lora": {"rank": 4}}
        tree = {"base": {"model": uri}, "suite": "vaes?topics=religion&per_topic=2", "samples": 1, "max_new_tokens": 4}
        run_pipeline(prepare(read.validate(tree | {"stages": [stage]}), "tiny"), Display())
        logged = [
            model for model in mlflow.search_logged_models(output_format="list") if model.name == "sft-step-000002"
        ]
        last = max(logged, key=lambda model: model.creation_timestamp)
        run = MlflowClient().get_run(last.source_run_id)
        artifacts = f"runs:/{run.info.run_id}/checkpoints/step-000002"
        folder = Path(mlflow.artifacts.download_artifacts(artifacts))
        below_it = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert below_it.startswith("models:/m-")  # the logged start, which loads on another machine too
        ids = torch.tensor([[5, 6, 7, 8]])
        with torch.no_grad():
            whole = models.load_model(f"models:/{last.model_id}").model(ids).logits
            stacked = models.load_model(artifacts).model(ids).logits
            below = models.load_model(below_it).model(ids).logits
            torch.testing.assert_close(below, models.load_model(uri).model(ids).logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(stacked, whole, atol=1e-4, rtol=1e-4)
        assert (stacked - below).abs().max() > 1e-2
        uri = artifacts
