"""What leads from one thing in the store to another: models of runs, pages of the UI."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.tracking.away import patiently
from valuedrift_mlflow.tracking.delivery import Attempt, delivers
from valuedrift_mlflow.tracking.models import logged_model_id
from valuedrift_mlflow.tracking.write import OpenRun, send


def used_model(run: OpenRun, uri: str) -> None:
    """Show a model of the store as one that a run has started from, or evaluated; others have no place there."""
    send(run, "used_model", uri=redacted(uri))


@delivers("used_model")
def _used_model(attempt: Attempt, *, run_id: str, uri: str) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelInput

    model_id = logged_model_id(uri)
    inputs = MlflowClient().get_run(run_id).inputs
    if model_id and model_id not in {one.model_id for one in (inputs.model_inputs if inputs else ())}:
        MlflowClient().log_inputs(run_id, models=[LoggedModelInput(model_id)])


def show_model(run: OpenRun, uri: str, step: int) -> None:
    """Show a model that a run below this one has made as one of this one too."""
    send(run, "shown_model", uri=redacted(uri), step=step)


@delivers("shown_model")
def _shown_model(attempt: Attempt, *, run_id: str, uri: str, step: int) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    model_id = logged_model_id(uri)
    outputs = MlflowClient().get_run(run_id).outputs
    if model_id and model_id not in {one.model_id for one in (outputs.model_outputs if outputs else ())}:
        MlflowClient().log_outputs(run_id, [LoggedModelOutput(model_id, step)])


def page_of(run_id: str, file: str = "") -> str:
    """The page of a run, or of one of its artifacts, below the address of the server; as one of model training."""
    artifact = f"/artifacts/{file}" if file else ""
    return f"#/experiments/{origin(run_id).experiment}/runs/{run_id}{artifact}?workflowType=machine_learning"


@dataclass(frozen=True)
class Origin:
    """Where a run comes from; empty where it is not known.

    Attributes:
        experiment: the id of its experiment.
        parent: the id of the run that it is nested in.
        commit: that of the code that made it, as MLflow has noted it.
    """

    experiment: str
    parent: str
    commit: str


@lru_cache(maxsize=4096)
@patiently
def origin(run_id: str) -> Origin:
    """What never changes of a run: it is asked once, when the run is opened, and known while the store is away."""
    from mlflow import MlflowClient

    run = MlflowClient().get_run(run_id)
    tags = run.data.tags
    commit = str(tags.get("mlflow.source.git.commit", ""))
    return Origin(str(run.info.experiment_id), str(tags.get("mlflow.parentRunId", "")), commit)


def commit_of(run_id: str) -> str:
    """The commit of the code that made a run, as MLflow has noted it; empty where it has not."""
    return origin(run_id).commit


def parent_of(run_id: str) -> str:
    """The id of the run that a run is nested in; empty where it is in none."""
    return origin(run_id).parent
