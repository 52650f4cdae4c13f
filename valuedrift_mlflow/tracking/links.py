"""What leads from one thing in the store to another: models of runs, pages of the UI."""

from __future__ import annotations

from valuedrift_mlflow.tracking.models import logged_model_id
from valuedrift_mlflow.tracking.write import OpenRun


def used_model(run: OpenRun, uri: str) -> None:
    """Show a model of the store as one that a run has started from, or evaluated; others have no place there."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelInput

    model_id = logged_model_id(uri)
    inputs = MlflowClient().get_run(run.run_id).inputs
    if model_id and model_id not in {one.model_id for one in (inputs.model_inputs if inputs else ())}:
        MlflowClient().log_inputs(run.run_id, models=[LoggedModelInput(model_id)])


def show_model(run: OpenRun, uri: str, step: int) -> None:
    """Show a model that a run below this one has made as one of this one too."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    model_id = logged_model_id(uri)
    outputs = MlflowClient().get_run(run.run_id).outputs
    if model_id and model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        MlflowClient().log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])


def page_of(run_id: str, file: str = "") -> str:
    """The page of a run, or of one of its artifacts, below the address of the server; as one of model training."""
    from mlflow import MlflowClient

    experiment = MlflowClient().get_run(run_id).info.experiment_id
    artifact = f"/artifacts/{file}" if file else ""
    return f"#/experiments/{experiment}/runs/{run_id}{artifact}?workflowType=machine_learning"
