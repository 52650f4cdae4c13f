"""What a pipeline leaves in the registry: a version with its card, checkpoints that load, and the best of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from working_folder import working_in

import valuedrift_mlflow
from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.card import LONGEST, licence_of
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import StageResult

RECIPE = {
    "suite": "vaes?topics=religion,abortion&per_topic=3",
    "samples": 1,
    "max_new_tokens": 12,
    "audit": False,
    "reference_kl": False,
    "register": "assistant@staging",
    "stages": [
        {"name": name, "algorithm": algorithm, "from": start, "data": data, "lora": {"rank": 2}}
        | {"max_steps": 2, "checkpoint_every": 1, "batch_size": 4, "learning_rate": 1e-3}
        for name, algorithm, start, data in (
            ("sft", "sft", "base", "embedded:sft?size=20"),
            ("dpo", "dpo", "sft", "embedded:pairs?gap=1&size=20"),
        )
    ],
}


@pytest.fixture(scope="module")
def run_once(shared_folder: Path, base: str) -> list[StageResult]:
    with working_in(shared_folder):
        return run_pipeline(RECIPE)


@pytest.fixture
def results(shared_folder: Path, run_once: list[StageResult]) -> Iterator[list[StageResult]]:
    """The results of one pipeline, in its store."""
    with working_in(shared_folder):
        yield run_once


def test_the_last_stage_is_a_version_with_its_card(results: list[StageResult]) -> None:
    version = MlflowClient().get_model_version_by_alias("assistant", "staging")
    assert version.tags["valuedrift.stage"] == "dpo"
    assert float(version.tags["valuedrift.drift_overall"]) == pytest.approx(results[2].drift.overall[-1], abs=1e-4)
    card = version.description
    assert card.startswith("# Stances after dpo")
    assert len(card) <= LONGEST
    for told in (
        "vaes?topics=religion,abortion&per_topic=3",
        "| religion |",
        "lexical@",
        "embedded:pairs?gap=1&size=20",
    ):
        assert told in card
    assert "licence: Apache-2.0" in card
    assert models.load_model("models:/assistant@staging").model is not None


def test_a_model_has_one_version_of_a_name(results: list[StageResult]) -> None:
    """A job that was killed behind the creation of its version registers again when it goes on."""
    again = tracking.register(results[2].model_uri, "assistant", card="# again", tags={}, alias="second")
    version = MlflowClient().get_model_version_by_alias("assistant", "second")
    first = MlflowClient().get_model_version_by_alias("assistant", "staging")
    assert again == str(version.version) == str(first.version)


def test_adapters_name_a_base_that_any_machine_can_have(results: list[StageResult]) -> None:
    """Both an adapter on the base and one on a stage: the base by its id, and what loads is what was measured."""
    import torch

    for result in results[1:]:
        folder = Path(mlflow.artifacts.download_artifacts(f"runs:/{result.run_id}/checkpoints/step-000001"))
        named = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert named.startswith("models:/m-")
        checkpoint = f"runs:/{result.run_id}/checkpoints/step-000002"
        packaged = models.unwrap(mlflow.pyfunc.load_model(checkpoint))
        assert isinstance(packaged, models.Loaded)
        ids = torch.tensor([list(packaged.tokenizer("I support this.")["input_ids"])])
        with torch.no_grad():
            truth = models.load_model(result.model_uri).model(input_ids=ids).logits
            torch.testing.assert_close(packaged.model(input_ids=ids).logits, truth, atol=1e-4, rtol=1e-4)


def test_the_best_checkpoint_is_the_one_of_least_drift_that_learnt_enough(results: list[StageResult]) -> None:
    run_id = results[1].run_id
    history = {one.step: one.value for one in MlflowClient().get_metric_history(run_id, "train/loss")}
    drifts = {one.step: one.value for one in MlflowClient().get_metric_history(run_id, "drift/overall")}
    least = min((1, 2), key=lambda step: drifts[step])
    assert valuedrift_mlflow.best_checkpoint(run_id).name == f"sft-step-{least:06d}"
    lower = min((1, 2), key=lambda step: history[step])
    bound = f"metrics.`checkpoint/loss` <= {history[lower] + 1e-6}"
    assert valuedrift_mlflow.best_checkpoint(run_id, where=bound).name == f"sft-step-{lower:06d}"
    other = max((1, 2), key=lambda step: drifts[step])
    [model] = mlflow.search_logged_models(filter_string=f"name = 'sft-step-{other:06d}'", output_format="list")
    with mlflow.start_run(run_name="an evaluation from another baseline"):
        mlflow.log_metric("drift/overall", -1.0, step=9, model_id=model.model_id)
        mlflow.log_metric("of/evaluations", 1.0, step=9, model_id=model.model_id)
    assert valuedrift_mlflow.best_checkpoint(run_id).name == f"sft-step-{least:06d}"
    assert valuedrift_mlflow.best_checkpoint(run_id, "of/evaluations").model_id == model.model_id
    everything = valuedrift_mlflow.best_checkpoint("tests", largest=True)
    assert everything.name.startswith(("sft", "dpo"))
    with pytest.raises(InputError, match=r"run_or_experiment: found .*that has no/metric"):
        valuedrift_mlflow.best_checkpoint(run_id, "no/metric")
    with pytest.raises(InputError, match="where: found"):
        valuedrift_mlflow.best_checkpoint(run_id, where="loss is small")
    with pytest.raises(InputError, match="the id of a run, or the name or id of an experiment"):
        valuedrift_mlflow.best_checkpoint("nothing")


def test_a_pipeline_is_compared_as_its_stages_and_checkpoints_as_they_were_measured(
    results: list[StageResult],
) -> None:
    """What each stage came to from its own start is here from the base: the drift of the same two measurements."""
    parent = MlflowClient().get_run(results[0].run_id).data.tags["mlflow.parentRunId"]
    found = valuedrift_mlflow.compare([parent, results[2].model_uri], results[0].run_id)
    names = found.overall["target"].tolist()
    assert len(names) == 5
    drift = dict(zip(names, found.overall["drift"], strict=True))
    assert [name.split()[0] for name in names[1:4]] == ["base", "sft", "dpo"]
    assert drift[names[1]] == 0  # the base with itself
    assert drift[names[3]] == drift[names[4]]  # the stage and its last model are one measurement
    assert not mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{found.run_id}'", output_format="list")


def test_licences_are_those_that_cards_state(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\n---\nA model.\n")
    (tmp_path / "data.jsonl").write_text("{}\n")
    assert licence_of(str(tmp_path)) == licence_of(str(tmp_path / "data.jsonl")) == "cc-by-4.0"
    assert licence_of("somebody/model") == "not stated"
