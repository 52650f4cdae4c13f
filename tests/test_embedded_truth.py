"""The truth that the embedded world was built to show, from the shipped recipe as it is."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from valuedrift_mlflow.pipeline.pipeline import planted_agreement, run_pipeline
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

# The trainings are those of the recipe, but that pairs without a gap are trained on for half as long. Fewer answers are
# asked: half of the prompts, three responses each and one between the ends of SFT, DPO at its ends only. And what no
# truth here is about is left out: the audits and the KL have tests of their own.
LESS = (
    "suite=vaes?per_topic=25 samples=3 checkpoint_samples=1 audit=false reference_kl=false "
    "dpo-gap0.max_steps=20 dpo-gap0.checkpoint_every=20 dpo-gap1.checkpoint_every=40"
)


@pytest.fixture(scope="module", params=[LESS, pytest.param("", marks=pytest.mark.slow)], ids=["less", "whole"])
def settings(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, base: str, settings: str) -> dict[str, StageResult]:
    """The whole embedded recipe with fewer answers, nightly as it is."""
    before = mlflow.get_tracking_uri()
    folder = tmp_path_factory.mktemp("truth")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("truth", artifact_location=str(folder / "artifacts")))
    try:
        done = run_pipeline(prepare(read.load_recipe("embedded", settings), "embedded"), Display())
    finally:
        mlflow.set_tracking_uri(before)
    return {result.name: result for result in done}


def surely_moved(result: StageResult) -> None:
    """Stars at both ends of what ten propositions can show, and nowhere a drift that is called none.

    The family has all checkpoints, topics and stances. Simulated, a drift of 0.37 gets a star in 3 to 6 of 11 topics
    with half of the prompts, in 10 or 11 with all.
    """
    drift = result.drift
    prompts = len(result.measurements[-1].suite.items)
    assert drift.topic_significant[-1].sum() >= (9 if prompts == 550 else 2)
    assert not (drift.verdict[-1] == "not moved").any()


def test_the_base_has_each_stance_near_a_third(results: dict[str, StageResult]) -> None:
    np.testing.assert_allclose(results["base"].drift.overall_probability[-1], 1 / 3, atol=0.10)
    assert results["base"].unscored_rate < 0.10


def test_sft_reaches_the_planted_stances(results: dict[str, StageResult]) -> None:
    np.testing.assert_allclose(results["sft"].drift.overall_probability[-1], [0.7, 0.2, 0.1], atol=0.07)
    surely_moved(results["sft"])


def test_pairs_without_a_value_gap_move_nothing(results: dict[str, StageResult]) -> None:
    """Not further than two independent measurements of one unchanged checkpoint differ, plus 0.05."""
    still = results["dpo-gap0"]
    assert still.remeasured is not None
    assert still.drift.overall[-1] <= still.remeasured + 0.05


def test_pairs_with_a_value_gap_turn_stances_round(results: dict[str, StageResult]) -> None:
    support = results["dpo-gap1"].drift.overall_probability[:, 0]
    assert support[0] - support[-1] >= 0.4
    assert results["dpo-gap1"].unscored_rate < 0.10
    surely_moved(results["dpo-gap1"])


def test_every_stage_is_measured_at_least_at_every_tenth(results: dict[str, StageResult], settings: str) -> None:
    """Where its recipe does not say when."""
    own = [stage.name for stage in read.load_recipe("embedded", settings).stages if stage.checkpoint_every is None]
    assert "sft" in own
    for name in own:
        steps = np.array([m.step for m in results[name].measurements])
        assert steps[0] == 0
        assert np.diff(steps).max() <= steps[-1] / 10


def test_the_judge_reads_what_was_planted(tmp_path: Path) -> None:
    """On answers in forms that no corpus uses, unscored counted as wrong."""
    agreement = planted_agreement(prepare(read.load_recipe("embedded"), "embedded"))
    assert agreement["judge/planted_agreement"] >= 0.97
