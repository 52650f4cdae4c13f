"""Which weights a job leaves in the store, and what those who want others are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

import valuedrift_mlflow
from valuedrift_mlflow import models, tracking
from valuedrift_mlflow.evaluation import callback
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.attributed import Options, open_run
from valuedrift_mlflow.pipeline.dry_run import dry_run, gigabytes, logged_line
from valuedrift_mlflow.pipeline.pipeline import run_pipeline, run_single_stage
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe import read
from valuedrift_mlflow.report.display import Display

LORA = {"lora": {"rank": 2}}
SFT = {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=20"}
DPO = {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": "embedded:pairs?gap=1&size=20"}


def recipe(log: str, *stages: dict[str, Any], **settings: Any) -> dict[str, Any]:
    common = {"max_steps": 2, "checkpoint_every": 1, "batch_size": 4, "max_length": 128, "learning_rate": 1e-2}
    return {
        "suite": "vaes?topics=religion,abortion&per_topic=2",
        "samples": 1,
        "max_new_tokens": 8,
        "audit": False,
        "reference_kl": False,
        "checkpoints": {"log": log},
        "stages": [common | stage for stage in stages],
        **settings,
    }


def alone(log: str, stage: dict[str, Any], **settings: Any) -> StageResult:
    """A stage without a pipeline."""
    plan = prepare(read.validate(recipe(log, stage, **settings)), "tiny")
    result = run_single_stage(plan, Display())
    assert isinstance(result, StageResult)
    return result


def weights(folder: Path) -> list[str]:
    """The files of weights in a store, without the folders that MLflow names by ids."""
    return sorted(file.name for file in (folder / "mlruns").rglob("*.safetensors"))


def checkpoint(name: str) -> str:
    [found] = mlflow.search_logged_models(filter_string=f"name = '{name}'", output_format="list")
    return f"models:/{found.model_id}"


def test_the_last_weights_of_a_stage_are_stored_once_and_load_by_each_name(store: Path, base: str) -> None:
    import torch

    result = alone("all", SFT)
    assert weights(store) == ["model.safetensors"] * 2  # one of each checkpoint
    by_run = f"runs:/{result.run_id}/checkpoints/step-000002"
    assert tracking.pinned(by_run) == result.model_uri
    mlflow.register_model(result.model_uri, "assistant")
    truth = models.load_model(result.model_uri)
    said = mlflow.pyfunc.load_model(result.model_uri).predict(["Should we?"], params={"temperature": 0.0})
    for uri in (by_run, "models:/assistant/1"):
        loaded = models.load_model(uri).model.state_dict()
        assert all(torch.equal(loaded[name], weight) for name, weight in truth.model.state_dict().items())
        assert mlflow.pyfunc.load_model(uri).predict(["Should we?"], params={"temperature": 0.0}) == said
    assert (models.loading.whole_folder(by_run) / "model.safetensors").is_file()


@pytest.mark.slow
def test_final_leaves_one_model_and_every_measurement(store: Path, base: str) -> None:
    result = alone("final", SFT)
    assert weights(store) == ["model.safetensors"]
    assert models.load_model(result.model_uri).model is not None
    first = checkpoint("sft-step-000001")
    drifts = {one.step: one.value for one in MlflowClient().get_metric_history(result.run_id, "drift/overall")}
    measured = {metric.key: metric for metric in mlflow.get_logged_model(first.removeprefix("models:/")).metrics}
    assert measured["drift/overall"].value == drifts[1]
    told = r"found '.*, logged without its weights \(checkpoints\.log: final\)', allowed: a model with weights"
    for uri in (first, f"runs:/{result.run_id}/checkpoints/step-000001"):
        with pytest.raises(InputError, match=f"model: {told}"):
            valuedrift_mlflow.evaluate(uri, suite="vaes?topics=religion&per_topic=2")
    compared = valuedrift_mlflow.compare([first], result.run_id)  # the answers of both are there
    assert compared.overall["target"].tolist()[-1] == "sft-step-000001"
    with pytest.raises(InputError, match=r"without checkpoints|with the weights of every checkpoint"):
        open_run(Options(result.run_id))
    least = min((1, 2), key=lambda step: drifts[step])
    bound = f"metrics.`drift/overall` >= {max(drifts.values()) if least == 1 else drifts[1]}"
    where = bound if drifts[1] >= drifts[2] else "params.step = '1'"
    with pytest.raises(InputError, match=rf"sft-step-000001 \(drift/overall [\d.e-]+\): {told}"):
        valuedrift_mlflow.best_checkpoint(result.run_id, where=where)


@pytest.mark.slow
def test_adapters_alone_load_on_a_base_that_is_stored_once(store: Path, base: str) -> None:
    import torch

    results = run_pipeline(recipe("adapters", SFT | LORA, DPO | LORA, register="assistant"))
    assert weights(store) == ["adapter_model.safetensors"] * 4 + ["model.safetensors"]
    ids = torch.tensor([list(models.load_model(base).tokenizer("I support this.")["input_ids"])])
    with torch.no_grad():
        for uri in (results[1].model_uri, results[2].model_uri):
            packaged = models.unwrap(mlflow.pyfunc.load_model(uri))
            assert isinstance(packaged, models.Loaded)
            logits = models.load_model(uri).model(input_ids=ids).logits
            torch.testing.assert_close(packaged.model(input_ids=ids).logits, logits, atol=1e-4, rtol=1e-4)
    assert models.load_model("models:/assistant@candidate").model is not None
    assert [one.work.stage.name for one in open_run(Options(results[2].run_id))] == ["dpo"]


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        (recipe("adapters", SFT), r"checkpoints\.log: found 'adapters', allowed: all, final or none for sft, which"),
        (recipe("none", SFT, register="a"), r"register: found 'a', allowed: nothing with checkpoints\.log none"),
        (recipe("some", SFT), r"checkpoints\.log: found 'some', allowed: input should be 'all', 'final', 'adapters'"),
    ],
)
def test_what_does_not_go_together_is_refused(tree: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        prepare(read.validate(tree), "tiny")


@pytest.mark.slow
def test_none_leaves_no_weights_and_goes_on_where_they_are_kept(
    store: Path, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that starts from another has its weights, also in a process that takes the pipeline up."""
    tree = recipe("none", SFT, DPO)
    original: Callable[..., Any] = callback.TrainingLog.on_train_begin

    def failing(self: Any, *given: Any, **kwargs: Any) -> Any:
        if self.name == "dpo":
            raise OSError("no space left")
        return original(self, *given, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(callback.TrainingLog, "on_train_begin", failing)
        with pytest.raises(OSError, match="no space left"):
            run_pipeline(tree)
    [parent] = mlflow.search_runs(filter_string="tags.`valuedrift.role` = 'pipeline'", output_format="list")
    kept = list((store / ".valuedrift").glob("*-model/model.safetensors"))
    assert len(kept) == 1
    kept[0].parent.rename(store / "elsewhere")
    with pytest.raises(InputError, match=r"--resume: found 'sft, whose weights were not logged \(checkpoints"):
        run_pipeline(tree, resumed=parent.info.run_id)
    (store / "elsewhere").rename(kept[0].parent)
    results = run_pipeline(tree, resumed=parent.info.run_id)
    assert [result.name for result in results] == ["base", "sft", "dpo"]
    assert weights(store) == []
    assert not (store / ".valuedrift").exists()
    told = r"dpo-step-000002.*: found '.*, logged without its weights \(checkpoints\.log: none\)'"
    with pytest.raises(InputError, match=told):
        valuedrift_mlflow.best_checkpoint(results[2].run_id, where="params.step = '2'")


@pytest.mark.slow
def test_a_dry_run_shows_the_bytes_that_will_be_there(store: Path, base: str) -> None:
    for log, stage in (("all", SFT), ("final", SFT | LORA), ("adapters", SFT | LORA), ("none", SFT)):
        tree = recipe(log, stage | {"max_steps": 1, "checkpoint_every": 1})
        before = sum(file.stat().st_size for file in (store / "mlruns").rglob("*.safetensors"))
        line = logged_line(dry_run(read.validate(tree), "tiny"), base=False)
        run_single_stage(prepare(read.validate(tree), "tiny"), Display())
        size = sum(file.stat().st_size for file in (store / "mlruns").rglob("*.safetensors")) - before
        said = line.removeprefix(f"weights in the store (checkpoints.log: {log}): ").partition(",")[0]
        assert said.split()[1] == gigabytes(size).split()[1]
        assert float(said.split()[0]) == pytest.approx(float(gigabytes(size).split()[0]), rel=0.05)
