"""A pipeline whose tracking server goes away in the middle of a training, and comes back after its end."""

from pathlib import Path

import mlflow
import pytest
from failing_tracking import tracking_server

from valuedrift_mlflow import tracking
from valuedrift_mlflow.evaluation.callback import TrainingLog
from valuedrift_mlflow.pipeline.pipeline import run_pipeline
from valuedrift_mlflow.tracking.away import WAIT
from valuedrift_mlflow.tracking.spool import Undelivered


@pytest.mark.slow
def test_a_pipeline_comes_to_its_end_without_its_server(
    store: Path, random_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WAIT, "2")
    recipe = {
        "base": {"model": str(random_folder)},
        "suite": "vaes?topics=religion&per_topic=8",
        "judge": "lexical",
        "samples": 1,
        "max_new_tokens": 4,
        "audit": False,
        "stages": [
            {"name": "sft", "algorithm": "sft", "data": "embedded:sft?size=8", "max_steps": 2, "batch_size": 2}
            | {"checkpoint_every": 1}
        ],
    }
    with tracking_server(store, monkeypatch) as server:
        original = TrainingLog.on_train_begin

        def begin(*given: object, **named: object) -> None:
            server.away = True
            original(*given, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(TrainingLog, "on_train_begin", begin)
        with pytest.raises(Undelivered, match="valuedrift replay"):
            run_pipeline(recipe)
        server.away = False
        [folder] = store.glob(".valuedrift/spool-*")
        assert tracking.replay(folder).refused == ()
        runs = {run.info.run_name: run for run in mlflow.search_runs(output_format="list")}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        [sft] = [run for name, run in runs.items() if name.startswith("sft")]
        steps = [one.step for one in mlflow.MlflowClient().get_metric_history(sft.info.run_id, "quality/unscored_rate")]
        assert steps == [0, 1, 2]
        [parent] = [run for name, run in runs.items() if name.startswith("pipeline")]
        assert tracking.text_of(parent.info.run_id, "report.html")
        models = mlflow.search_logged_models(filter_string="name = 'sft-step-000002'", output_format="list")
        assert [model.metrics is not None for model in models] == [True]
        assert mlflow.pyfunc.load_model(f"models:/{models[0].model_id}").predict(["Hello"])
