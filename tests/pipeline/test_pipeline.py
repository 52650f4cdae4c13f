import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from read_pages import described, keeps_to_what_pages_promise
from working_folder import working_in

from valuedrift_mlflow import models
from valuedrift_mlflow.data import datasets
from valuedrift_mlflow.data.settings import Data
from valuedrift_mlflow.inputs.errors import InputError
from valuedrift_mlflow.pipeline.figures import pipeline_figures
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.pipeline.plan import StageResult, prepare
from valuedrift_mlflow.recipe import read, recipe
from valuedrift_mlflow.report.display import Display
from valuedrift_mlflow.tracking.view import view_of

ANSWERS = "embedded:sft?support=0.7&neutral=0.2&oppose=0.1&size=40"
PAIRS = "embedded:pairs?gap=1&size=40"


def tiny(model: str, stages: list[dict[str, Any]]) -> recipe.Recipe:
    """A recipe that takes seconds: twelve prompts, two steps a stage."""
    common = {"max_steps": 2, "checkpoint_every": 1, "batch_size": 4, "max_length": 256, "learning_rate": 1e-3}
    return read.validate(
        {
            "base": {"model": model},
            "suite": "vaes?topics=religion,abortion&per_topic=6",
            "samples": 2,
            "checkpoint_samples": 1,
            "max_new_tokens": 40,
            "generation_batch_size": 24,
            "stages": [common | stage for stage in stages],
        }
    )


SFT_AND_DPO = [
    {"name": "sft", "algorithm": "sft", "data": ANSWERS},
    {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": PAIRS, "lora": {"rank": 4}},
]


def runs_by_stage() -> dict[str, Run]:
    runs = MlflowClient().search_runs([str(mlflow.get_experiment_by_name("tests").experiment_id)])
    return {run.data.tags.get("valuedrift.stage", run.data.tags["valuedrift.role"]): run for run in runs}


@pytest.fixture(scope="module")
def run_once(shared_folder: Path, base: str) -> tuple[dict[str, Run], list[StageResult]]:
    with working_in(shared_folder):
        results = run_pipeline(prepare(tiny(base, SFT_AND_DPO), "tiny"), Display())
        return runs_by_stage(), results


@pytest.fixture
def finished(
    shared_folder: Path, run_once: tuple[dict[str, Run], list[StageResult]]
) -> Iterator[tuple[dict[str, Run], list[StageResult]]]:
    """The runs and the results of one pipeline, in its store."""
    with working_in(shared_folder):
        yield run_once


def steps(run: Run, key: str) -> list[int]:
    return [metric.step for metric in MlflowClient().get_metric_history(run.info.run_id, key)]


def test_runs_say_what_they_came_to(finished: tuple[dict[str, Run], list[StageResult]]) -> None:
    runs, results = finished
    parent, sft, dpo = (runs[name] for name in ("pipeline", "sft", "dpo"))
    # The settings that two stages share have one name, so that a comparison shows them in one row.
    shared = ("learning_rate", "algorithm", "data", "seed", "judge", "samples", "base.model", "max_steps")
    assert all(name in sft.data.params and name in dpo.data.params for name in shared)
    assert (sft.data.params["learning_rate"], dpo.data.params["lora.rank"]) == ("0.001", "4")
    for run, result in ((sft, results[1]), (dpo, results[2])):
        last = result.drift.overall_probability[-1]
        found = [run.data.metrics[f"stance/overall/{stance}"] for stance in ("support", "neutral", "oppose")]
        assert found == pytest.approx(last)
        note = described(run)
        assert "| topic | verdict |" in note and "| religion |" in note
        assert f"runs/{parent.info.run_id}/artifacts/report.html" in note
        assert f"runs/{run.info.run_id}/artifacts/value_drift_table.json" in note
        assert not any(key.startswith(("cost/judge", "data/bad", "data/dropped")) for key in run.data.metrics)
    page = f"#/experiments/{parent.info.experiment_id}/runs/{dpo.info.run_id}?workflowType=machine_learning"
    assert f"| [dpo]({page}) |" in described(parent)
    colors = [runs[name].data.tags["mlflow.runColor"] for name in ("base", "sft", "dpo")]
    assert len(set(colors)) == 3
    # A run shows the models that it has made and the one that it started from.
    of_parent = {output.model_id for output in parent.outputs.model_outputs}
    assert of_parent == {result.model_uri.removeprefix("models:/") for result in results}
    started_from = MlflowClient().get_run(dpo.info.run_id).inputs.model_inputs  # a search leaves them out
    assert [f"models:/{one.model_id}" for one in started_from] == [results[1].model_uri]


def test_the_experiment_opens_as_training_in_a_view_of_the_stages(
    finished: tuple[dict[str, Run], list[StageResult]], shared_folder: Path
) -> None:
    parent = finished[0]["pipeline"]
    with working_in(shared_folder):
        tags = MlflowClient().get_experiment(parent.info.experiment_id).tags
        page = view_of(parent)
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    saved = json.loads(tags[f"mlflow.sharedViewState.valuedrift-{parent.info.run_id}"])
    assert saved["name"] == "valuedrift: pipeline · tiny"
    assert page.endswith(f"compareRunsMode=CHART&viewStateShareKey=valuedrift-{parent.info.run_id}")


def artifacts(run: Run, path: str | None = None) -> set[str]:
    return {entry.path for entry in MlflowClient().list_artifacts(run.info.run_id, path)}


def test_training_data_are_audited_once_and_tell_how_far_the_model_is_from_them(store: Path, base: str) -> None:
    """Written without their planted stances, all of the answers support: the audit reads that, topic by topic."""
    made = datasets.load_data(
        Data(uri="embedded:sft?support=1&neutral=0&oppose=0&size=60&topics=religion,abortion"), "sft"
    )
    file = store / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made.rows))
    stages = [
        {"name": "first", "algorithm": "sft", "data": str(file)},
        {"name": "second", "algorithm": "sft", "from": "first", "data": str(file)},
    ]
    results = run_pipeline(prepare(tiny(base, stages), "tiny"), Display())
    experiment = mlflow.get_experiment_by_name("tests")
    runs = MlflowClient().search_runs([experiment.experiment_id], "tags.`valuedrift.role` = 'audit'")
    [audited] = runs
    assert audited.data.metrics["stance_mix/religion/support"] == pytest.approx(1, abs=0.15)
    mix = [audited.data.metrics[f"stance_mix/religion/{stance}"] for stance in ("support", "neutral", "oppose")]
    for result in results[1:]:
        metrics = MlflowClient().get_run(result.run_id).data.metrics
        stances = [metrics[f"stance/religion/{stance}"] for stance in ("support", "neutral", "oppose")]
        distance = sum(abs(a - b) for a, b in zip(stances, mix, strict=True)) / 2
        assert metrics["dataset_distance/religion"] == pytest.approx(distance, abs=1e-6)


def test_many_stages_side_by_side_have_a_panel_each(finished: tuple[dict[str, Run], list[StageResult]]) -> None:
    """There are four line styles: a fifth stage that starts from the same one could not be told from the first."""
    base, sft, dpo = finished[1]
    four = [replace(dpo, name=f"dpo-{letter}") for letter in "abcd"]
    assert "stance_trajectories" in pipeline_figures([base, sft, *four])
    figures = pipeline_figures([base, sft, *four, dpo])
    assert list(figures) == ["axis_shifts", "overall", "drift_heatmap"]
    panels = figures["overall"].figure.axes
    assert [axes.get_title() for axes in panels] == ["dpo-a", "dpo-b", "dpo-c", "dpo-d", "dpo"]
    assert [[label.get_text() for label in axes.get_xticklabels()] for axes in panels][1:3] == [
        ["sft", "dpo-b"],
        ["sft", "dpo-c"],
    ]


def test_what_a_pipeline_leaves_behind(finished: tuple[dict[str, Run], list[StageResult]]) -> None:
    runs, results = finished
    parent = runs["pipeline"]
    assert set(runs) == {"pipeline", "audit", "base", "sft", "dpo"}
    for stage in ("base", "sft", "dpo"):
        run = runs[stage]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["valuedrift.role"] == "stage"
        assert run.data.tags["valuedrift.recipe"] == "tiny"
        assert run.info.run_name == f"{stage} · embedded:base"
    assert runs["sft"].data.params["sft.learning_rate"] == "0.001"
    assert parent.data.params["dpo.lora.rank"] == "4"
    assert {"summary/sft/drift_overall", "summary/sft/topics_drifted", "summary/dpo/drift_overall"} <= set(
        parent.data.metrics
    )
    assert artifacts(parent) - {"largest_changes.json"} == {"figures", "report.html", "methods.txt"}
    assert {"summary/sft/axes_shifted", "summary/dpo/axes_shifted"} <= set(parent.data.metrics)
    assert {"axis/religion", "axis_shift/religion", "axes/shifted"} <= set(runs["dpo"].data.metrics)
    assert "axis/religion" in runs["base"].data.metrics and "axis_shift/religion" not in runs["base"].data.metrics
    assert "axis_table.json" in artifacts(runs["base"]) & artifacts(runs["dpo"])
    assert artifacts(parent, "figures") == {
        f"figures/{name}.{kind}"
        for name in ("axis_shifts", "overall", "stance_trajectories", "drift_heatmap")
        for kind in ("png", "csv")
    }
    contexts = {i.dataset.name: i.tags[0].value for i in runs["sft"].inputs.dataset_inputs}
    assert contexts == {"vaes": "evaluation", "embedded:sft": "training"}
    # The start of a stage is measured anew: two independent measurements of one model.
    assert results[2].remeasured is not None
    assert [m.step for m in results[2].measurements] == [0, 1, 2]


def test_no_metric_has_a_stray_step(finished: tuple[dict[str, Run], list[StageResult]]) -> None:
    runs, _ = finished
    for stage in ("sft", "dpo"):
        for key in runs[stage].data.metrics:
            expected = [1, 2] if key.startswith("train/") else [2] if key.startswith("drift_time/") else [0, 1, 2]
            if stage == "sft" and key == "reference_kl":
                assert MlflowClient().get_metric_history(runs[stage].info.run_id, key)[0].value == pytest.approx(0)
            assert set(steps(runs[stage], key)) <= set(expected), key
            assert len(steps(runs[stage], key)) == len(set(steps(runs[stage], key))), key
        assert steps(runs[stage], "drift/overall") == [0, 1, 2]
        assert steps(runs[stage], "reference_kl") == [0, 1, 2]
        assert steps(runs[stage], "dataset_distance/religion") == [0, 1, 2]
        assert steps(runs[stage], "train/loss") == [1, 2]
    assert all(steps(runs["base"], key) == [0] for key in runs["base"].data.metrics)


def test_every_checkpoint_is_an_artifact_and_a_logged_model(
    finished: tuple[dict[str, Run], list[StageResult]],
) -> None:
    runs, _ = finished
    logged = {model.name: model for model in mlflow.search_logged_models(output_format="list")}
    assert set(logged) == {
        "base-step-000000",
        *(f"{stage}-step-{step:06d}" for stage in ("sft", "dpo") for step in (1, 2)),
    }
    for stage in ("sft", "dpo"):
        for step in (1, 2):
            model = logged[f"{stage}-step-{step:06d}"]
            linked = {metric.key: metric for metric in model.metrics}
            assert linked["drift/overall"].step == step
            assert linked["drift/overall"].dataset_name == "vaes"
            assert model.params["step"] == str(step)
            assert model.source_run_id == runs[stage].info.run_id
    whole = artifacts(runs["sft"], "checkpoints/step-000001")
    assert "checkpoints/step-000001/model.safetensors" in whole
    adapter = artifacts(runs["dpo"], "checkpoints/step-000002")
    assert "checkpoints/step-000002/adapter_model.safetensors" in adapter
    assert "checkpoints/step-000002/model.safetensors" not in adapter


def test_checkpoints_load_and_the_last_one_answers(finished: tuple[dict[str, Run], list[StageResult]]) -> None:
    """An adapter checkpoint, its merged LoggedModel and the registered version hold the same weights."""
    import torch

    runs, results = finished
    adapter = models.load_model(f"runs:/{runs['dpo'].info.run_id}/checkpoints/step-000002")
    mlflow.register_model(results[2].model_uri, "assistant")
    registered = models.load_model("models:/assistant/1")
    ids = torch.tensor([adapter.tokenizer("I support this.")["input_ids"]])
    with torch.no_grad():
        logits = registered.model(ids).logits
        torch.testing.assert_close(adapter.model(ids).logits, logits, atol=1e-4, rtol=1e-4)
        assert (models.load_model(results[1].model_uri).model(ids).logits - logits).abs().max() > 1e-4
    packaged = mlflow.pyfunc.load_model("models:/assistant/1")
    answer = packaged.predict("Should we?", params={"max_new_tokens": 5, "temperature": 0.0})
    assert len(answer) == 1
    assert isinstance(answer[0], str)
    assert packaged.predict(["Should we?", "Why?"]) != []
    inner = next(m for m in mlflow.search_logged_models(output_format="list") if m.name == "sft-step-000001")
    assert models.load_model(f"models:/{inner.model_id}").model is not None


def test_the_report_escapes_what_models_write(store: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from valuedrift_mlflow.models.generation import TransformersGenerator

    def hostile(self: object, prompts: list[str], keys: object, sampling: Any, progress: object) -> list[list[str]]:
        return [["<script>alert(1)</script> I support this."] * sampling.samples for _ in prompts]

    monkeypatch.setattr(TransformersGenerator, "generate", hostile)
    run_pipeline(prepare(tiny(base, SFT_AND_DPO[:1]), "tiny"), Display())
    run_id = runs_by_stage()["pipeline"].info.run_id
    report = Path(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/report.html")).read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in report
    assert len(keeps_to_what_pages_promise(report).all("svg")) == 4


def test_a_failing_stage_fails_with_its_parent_and_says_why(store: Path, base: str) -> None:
    exploding = [SFT_AND_DPO[0] | {"learning_rate": 1e30, "max_steps": 5, "warmup_ratio": 0.0}]
    with pytest.raises(FloatingPointError):
        run_pipeline(prepare(tiny(base, exploding), "tiny"), Display())
    runs = runs_by_stage()
    assert runs["base"].info.status == "FINISHED"
    for run in (runs["sft"], runs["pipeline"]):
        assert run.info.status == "FAILED"
        assert "the loss is" in run.data.tags["mlflow.note.content"]
        assert "at step" in run.data.tags["mlflow.note.content"]


def test_everything_wrong_is_said_before_a_run_is_opened(store: Path) -> None:
    bad = [
        {"name": "sft", "algorithm": "sft", "data": "embedded:sft?support=0.9"},
        {"name": "dpo", "algorithm": "dpo", "from": "sft", "data": "nowhere.jsonl"},
    ]
    settings = tiny("./no/folder", bad).model_copy(update={"suite": "vaes?topics=cats", "judge": "oracle"})
    with pytest.raises(InputError) as error:
        prepare(settings, "tiny")
    text = str(error.value)
    for part in ("support, neutral, oppose", "nowhere.jsonl", "cats", "oracle", "base.model"):
        assert part in text
    assert MlflowClient().search_runs([mlflow.get_experiment_by_name("tests").experiment_id]) == []


def test_the_drift_table_has_a_row_for_each_step_topic_and_stance(
    finished: tuple[dict[str, Run], list[StageResult]],
) -> None:
    runs, _ = finished
    path = mlflow.artifacts.download_artifacts(f"runs:/{runs['sft'].info.run_id}/value_drift_table.json")
    table = json.loads(Path(path).read_text())
    assert len(table["data"]) == 3 * 2 * 3
    assert table["columns"][:6] == ["step", "topic", "stance", "probability", "ci_low", "ci_high"]
    assert {"magnitude", "p_adjusted", "significant", "drift_time"} <= set(table["columns"])
