"""A finished training as its run has recorded it: settings, checkpoints, digest of its rows, numbers of its steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.tracking.earlier import EarlierRun, earlier, stages_of
from valuedrift_mlflow.tracking.logged import checkpoint_path
from valuedrift_mlflow.tracking.models import without_weights

if TYPE_CHECKING:
    from mlflow.entities import Run

_CHECKPOINT = re.compile(r"step-(\d{6,})$")


@dataclass(frozen=True)
class TrainedRun:
    """A stage's run.

    Attributes:
        run: its id, status and the digest of its rows.
        name: the name of the stage.
        parameters: every setting that it and its parent have recorded, flat.
        checkpoints: the steps of its checkpoints, in order.
        parent: the id of the pipeline's run that it is part of, None for a stage on its own.
        suite: hash of the suite that it was measured with; empty where none is recorded.
    """

    run: EarlierRun
    name: str
    parameters: Mapping[str, str]
    checkpoints: tuple[int, ...]
    parent: str | None
    suite: str

    def uri(self, step: int) -> str:
        """The URI of a checkpoint."""
        return f"runs:/{self.run.run_id}/{checkpoint_path(step)}"


def trained_runs(run_id: str, field: str) -> list[TrainedRun]:
    """The stage that a run is, or every stage of the pipeline that it is; the base model is none.

    Raises:
        InputError: there is no such run, or it is another kind of run; ``field`` names the parameter.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        reason = one_line(error.message)
        raise InputError(problem(field, run_id, "the id of a run in the tracking store", reason)) from None
    role = run.data.tags.get("valuedrift.role", "no role")
    if role == "pipeline":
        # The store gives the newest first.
        return [_trained(one.run_id, name) for name, one in reversed(stages_of(run_id).items()) if name != "base"]
    names = _stage_names(run)
    if role != "stage" or len(names) != 1:
        found = f"{run_id} ({'the base model' if role == 'stage' else role})"
        raise InputError(problem(field, found, "a run of a trained stage or of a pipeline"))
    return [_trained(run_id, names[0])]


def _stage_names(run: Run) -> list[str]:
    return [key.removesuffix(".algorithm") for key in run.data.params if key.endswith(".algorithm")]


def _trained(run_id: str, name: str) -> TrainedRun:
    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.get_run(run_id)
    parent = run.data.tags.get("mlflow.parentRunId")
    inherited = client.get_run(parent).data.params if parent else {}
    found = (_CHECKPOINT.search(entry.path) for entry in client.list_artifacts(run_id, "checkpoints"))
    steps = sorted(int(match.group(1)) for match in found if match)
    suite = run.data.tags.get("valuedrift.suite.hash", "")
    return TrainedRun(earlier(run), name, {**run.data.params, **inherited}, tuple(steps), parent, suite)


def model_of(parent: str, name: str) -> str | None:
    """The URI of the last model that a stage of a pipeline (or ``base``) has logged; None of one without weights."""
    from mlflow import MlflowClient

    named = stages_of(parent).get(name)
    if named is None:
        return None
    outputs = MlflowClient().get_run(named.run_id).outputs
    last = max(outputs.model_outputs if outputs else (), key=lambda output: int(output.step), default=None)
    # Adapters that lie on a folder have it logged as `NAME-base`, at step 0: the last one is the stage's own.
    uri = f"models:/{last.model_id}" if last is not None else ""
    return uri if uri and not without_weights(uri) else None


def step_values(run_id: str, key: str) -> dict[int, float]:
    """A metric of a run by its steps."""
    from mlflow import MlflowClient

    return {int(one.step): float(one.value) for one in MlflowClient().get_metric_history(run_id, key)}


def text_of(run_id: str, file: str) -> str:
    """A text file at the artifact root of a run; empty where it has none."""
    from mlflow import MlflowClient, artifacts

    if file not in {entry.path for entry in MlflowClient().list_artifacts(run_id)}:
        return ""
    return str(artifacts.load_text(f"runs:/{run_id}/{file}"))


def table_of(run_id: str, file: str) -> list[dict[str, object]]:
    """The rows of a table that a run has logged; none where it has no such table.

    Raises:
        InputError: the table is damaged.
    """
    from mlflow import MlflowClient

    if file not in {entry.path for entry in MlflowClient().list_artifacts(run_id)}:
        return []
    import mlflow

    try:
        table = mlflow.load_table(file, run_ids=[run_id])
    except Exception as error:  # whatever a damaged file makes of MLflow's reader
        found = f"a table that is damaged ({type(error).__name__}: {one_line(error, 100)})"
        raise InputError(problem(f"runs:/{run_id}/{file}", found, "the table that the run has logged")) from None
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
