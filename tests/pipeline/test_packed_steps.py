"""Rows that are packed make fewer steps: the dry run, the checkpoints and the held-out loss count what there is."""

from pathlib import Path
from typing import Any

import mlflow
import pytest

from valuedrift_mlflow.pipeline import dry_run
from valuedrift_mlflow.pipeline.pipeline import run_single_stage
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.recipe.recipe import Recipe
from valuedrift_mlflow.report.display import Display

ROWS = 30


def recipe(folder: Path, **settings: Any) -> Recipe:
    sft = {"name": "sft", "algorithm": "sft", "data": f"embedded:sft?size={ROWS}", "batch_size": 1, "max_length": 256}
    sft |= {"trainer": {"packing": True}, "epochs": 2} | settings
    short = {"samples": 1, "max_new_tokens": 4, "suite": "vaes?topics=abortion&per_topic=1"}
    short |= {"audit": False, "reference_kl": False}
    return read.validate({"base": {"model": str(folder)}, "stages": [sft]} | short)


def test_the_dry_run_counts_the_steps_that_the_training_has(
    random_folder: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = recipe(random_folder, eval_data="embedded:sft?size=6&seed=9")
    [planned] = dry_run.dry_run(wanted, "test").stages
    assert planned.steps is not None and 2 <= planned.steps < 2 * ROWS  # two passes over one row a step
    assert planned.packing == f"packing: {planned.steps // 2} rows of at most 256 tokens"
    single = dry_run.dry_run(recipe(random_folder, trainer={}), "test").stages[0]
    assert planned.tokens == single.tokens  # the same rows, whatever they are joined to
    run_single_stage(prepare(wanted, "test"), Display())
    run = mlflow.search_runs(output_format="list")[0]
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert max(entry.step for entry in history) == planned.steps
    measured = mlflow.MlflowClient().get_metric_history(run.info.run_id, "quality/unscored_rate")
    every = max(1, planned.steps // 10)
    assert sorted({entry.step for entry in measured}) == [*range(0, planned.steps, every), planned.steps]
    assert len(measured) - 1 == planned.checkpoints
    held_out = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/eval_loss")
    assert {entry.step for entry in held_out} <= {entry.step for entry in measured}
    assert f"{ROWS} rows packed into {planned.steps // 2}: {planned.steps} steps" in capsys.readouterr().out


def test_a_number_of_steps_that_is_given_stays(random_folder: Path) -> None:
    [planned] = dry_run.dry_run(recipe(random_folder, max_steps=7), "test").stages
    assert (planned.steps, planned.packing) == (7, "")


def test_where_the_tokenizer_is_not_at_hand_the_steps_are_said_to_be_a_bound() -> None:
    tree = recipe(Path("embedded:base"))
    plan = dry_run.dry_run(tree, "test")
    assert plan.stages[0].steps == 2 * ROWS
    assert "  packing: steps and checkpoints are an upper bound, of one row each" in dry_run.lines_of(plan)
