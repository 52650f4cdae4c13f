"""Stances planted along an axis reach the model, and axis shift finds them where net drift does not."""

from pathlib import Path

import pytest

from valuedrift_mlflow.pipeline.axis_report import planted_positions
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display


def test_the_recipe_of_axes_is_good() -> None:
    plan = prepare(read.load_recipe("axes"), "axes")
    assert [stage.name for stage in plan.recipe.stages] == ["one-side", "other-side", "agreement", "apart"]


@pytest.mark.slow
def test_answers_planted_to_one_side_move_the_model_there(store: Path, base: str) -> None:
    recipe = read.load_recipe("axes", "checkpoint_samples=1 audit=false reference_kl=false")
    recipe.stages = recipe.stages[:1]
    plan = prepare(recipe, "axes")
    results = run_pipeline(plan, Display())
    [(name, axis, planted, found)] = planted_positions(plan, results)
    assert (name, axis, planted) == ("one-side", "abortion", 1.0)
    # The model has seen 24 questions a proposition and is asked others: it carries a part of 1 to them.
    assert found > 0.35
    moved = results[-1].axes
    assert moved.leaning_ci[-1, moved.axes.index("abortion"), 0] > 0
    assert moved.leaning_ci[-1, moved.axes.index("gal_tan"), 1] < 0  # free choice lies at its - end
