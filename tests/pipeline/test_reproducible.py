"""One seed fixes everything: a second run on the same machine has the same metrics and responses, to the last digit."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

# What a run took is no result.
CLOCKS = ("cost/", "train/runtime", "train/samples_per_second", "train/steps_per_second", "system/")


SHORT: dict[str, Any] = {"samples": 2, "max_new_tokens": 6, "suite": "vaes?per_topic=1", "audit": False}
DPO = {"name": "dpo", "algorithm": "dpo", "data": "embedded:pairs?size=8", "max_steps": 3, "batch_size": 2}


def measured(base: Path, seed: int) -> tuple[dict[str, list[tuple[int, float]]], str]:
    """Every metric of a short stage with its steps, and the table of its responses."""
    stages = [DPO | {"checkpoint_every": 2}]
    recipe = read.validate({"base": {"model": str(base)}, "stages": stages, "seed": seed, **SHORT})
    result = run_single_stage(prepare(recipe, "test"), Display())
    client, histories = MlflowClient(), {}
    for key in client.get_run(result.run_id).data.metrics:
        if not key.startswith(CLOCKS):
            history = client.get_metric_history(result.run_id, key)
            histories[key] = [(metric.step, metric.value) for metric in history]
    table = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/responses.json")).read_text()
    return histories, table


@pytest.mark.usefixtures("store")
def test_two_runs_of_one_seed_are_the_same_run(random_folder: Path) -> None:
    first = measured(random_folder, seed=3)
    second = measured(random_folder, seed=3)
    assert first == second
    assert len(first[0]) > 50
    assert measured(random_folder, seed=4) != first
    epochs = first[0]["train/epoch"]
    assert len({step for step, _ in epochs}) == len(epochs)
    tags = mlflow.last_active_run().data.tags
    assert "torch" in tags["valuedrift.software"]
    assert tags["valuedrift.threads"].isdecimal()
