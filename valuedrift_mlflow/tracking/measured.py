"""Runs that hold responses: what was measured in them, of which model, with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.tracking.earlier import stages_of

if TYPE_CHECKING:
    from mlflow.entities import Run

RESPONSES = "responses.json"


@dataclass(frozen=True)
class MeasuredRun:
    """A run that holds a table of responses.

    Attributes:
        run_id: its id.
        name: its name.
        step: the step of the table that is meant; None for its last.
        settings: every setting that it and its parent have recorded, flat.
        tags: its tags of this package, without their prefix.
        model_id: the LoggedModel that was measured; None where none is known.
    """

    run_id: str
    name: str
    step: int | None
    settings: Mapping[str, str]
    tags: Mapping[str, str]
    model_id: str | None = None

    @property
    def table(self) -> str:
        """The URI of its responses."""
        return f"runs:/{self.run_id}/{RESPONSES}"


def measured_runs(run_id: str, field: str) -> list[MeasuredRun]:
    """What a run holds of responses: its own, or those of every stage of the pipeline that it is.

    Raises:
        InputError: there is no such run, or it holds none; ``field`` names the parameter.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        reason = one_line(error.message)
        raise InputError(problem(field, run_id, "the id of a run in the tracking store", reason)) from None
    if run.data.tags.get("valuedrift.role") == "pipeline":
        ids = [one.run_id for one in reversed(stages_of(run_id).values())]  # the store gives the newest first
        found = [_measured(MlflowClient().get_run(one), None) for one in ids if _has_responses(one)]
    else:
        found = [_measured(run, None)] if _has_responses(run_id) else []
    if not found:
        allowed = "a run with a table of responses: a stage, a pipeline, an evaluation"
        raise InputError(problem(field, f"{run_id} ({run.data.tags.get('valuedrift.role', 'no role')})", allowed))
    return found


def measurements_of_model(model_id: str) -> list[MeasuredRun]:
    """The runs that have measured a LoggedModel: the stage that trained it, then evaluations, newer ones first."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient()
    model = mlflow.get_logged_model(model_id)
    found: list[MeasuredRun] = []
    # A model's metrics name the runs that have measured it, and its source is not always one of them.
    measuring = dict.fromkeys([str(model.source_run_id), *(str(one.run_id) for one in reversed(model.metrics or []))])
    for run_id in measuring:
        try:
            run = client.get_run(run_id)
        except MlflowException:  # deleted since
            continue
        role, active = run.data.tags.get("valuedrift.role"), run.info.lifecycle_stage == "active"
        if role not in ("stage", "evaluation") or not active or not _has_responses(run_id):
            continue
        step = int((model.params or {}).get("step", 0)) if role == "stage" else None
        if role == "stage" and run_id != model.source_run_id:
            continue
        found.append(_measured(run, step, model_id))
    return found


def _has_responses(run_id: str) -> bool:
    from mlflow import MlflowClient

    return RESPONSES in {entry.path for entry in MlflowClient().list_artifacts(run_id)}


def _measured(run: Run, step: int | None, model_id: str | None = None) -> MeasuredRun:
    from mlflow import MlflowClient

    parent = run.data.tags.get("mlflow.parentRunId")
    inherited = MlflowClient().get_run(parent).data.params if parent else {}
    prefix = "valuedrift."
    tags = {key.removeprefix(prefix): value for key, value in run.data.tags.items() if key.startswith(prefix)}
    name = str(run.info.run_name or run.info.run_id)
    return MeasuredRun(run.info.run_id, name, step, {**inherited, **run.data.params}, tags, model_id)
