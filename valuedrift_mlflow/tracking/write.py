"""What is written to a run: metrics, parameters, tags, tables, figures, texts and files."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypedDict

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.away import patiently
from valuedrift_mlflow.tracking.delivery import METRICS, Attempt, delivers, insist
from valuedrift_mlflow.tracking.spool import Spool

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric
    from mlflow.models.evaluation.base import EvaluationResult

NOTE = "mlflow.note.content"
PARAMETERS_AT_ONCE = 100  # the most that MLflow takes


@dataclass(frozen=True)
class OpenRun:
    """A run that is written to.

    Attributes:
        run_id: its id.
        last_steps: of a run that is continued, the last step that each metric was logged at before; None of a new one.
        spool: where what is written waits for the store; without one it is written at once.
    """

    run_id: str
    last_steps: Mapping[str, int] | None = None
    spool: Spool | None = None

    @classmethod
    @patiently
    def continued(cls, run_id: str) -> OpenRun:
        """A run that has been written to before: no metric is logged again at a step that it has, or before it."""
        from mlflow import MlflowClient

        client = MlflowClient()
        last_steps = {
            key: max(metric.step for metric in client.get_metric_history(run_id, key))
            for key in client.get_run(run_id).data.metrics
        }
        return cls(run_id, last_steps)

    def lacks(self, key: str, step: int) -> bool:
        """Whether a metric was not yet logged at this step when the run was taken up."""
        # By the last step, not by a set of steps: what a resumed
        # training repeats lies before the point where it was cut off.
        return self.last_steps is None or step > self.last_steps.get(key, -1)


def send(
    run: OpenRun,
    kind: str,
    files: Path | None = None,
    *,
    copied: bool = True,
    checked: bool = True,
    **content: object,
) -> str | None:
    """Write to a run: now, or by its spool; gives the id of a LoggedModel that was made now.

    Args:
        run: the run.
        kind: what is written, see ``delivers``.
        files: a file or a folder that goes with it.
        copied: whether the files may be changed later.
        checked: whether an error of an earlier write is raised here.
        content: what is written.
    """
    content = {"run_id": run.run_id, **content}
    if run.spool is not None:
        run.spool.add(kind, content, files, copied=copied, checked=checked)
        return None
    return insist(kind, files, content)


def settle(run: OpenRun) -> None:
    """Wait until the store has what was written to a run; one that stays away is not waited for any longer."""
    if run.spool is not None:
        run.spool.wait()


def log_metrics(
    run: OpenRun,
    metrics: Mapping[str, float],
    step: int,
    *,
    model_id: str | None = None,
    dataset: LoggedDataset | None = None,
) -> None:
    """Log metrics at exactly ``step``, linked to a LoggedModel and to the dataset they were measured on.

    A continued run keeps the values that it has: the steps it repeats give the same ones again.
    """
    now = int(time.time() * 1000)
    batch = [
        point(key, value, step, now, model=model_id, dataset=dataset)
        for key, value in metrics.items()
        if run.lacks(key, step)
    ]
    for start in range(0, len(batch), 1000):  # the most metrics that MLflow takes at once
        send(run, METRICS, metrics=batch[start : start + 1000])


class Point(TypedDict):
    """A value of a metric, as it is written down."""

    key: str
    value: float
    timestamp: int
    step: int
    model: str | None
    dataset: Sequence[str] | None


def point(
    key: str,
    value: float,
    step: int,
    timestamp: int,
    *,
    model: str | None = None,
    dataset: LoggedDataset | None = None,
) -> Point:
    """A value of a metric, with what it was measured of and on; the timestamp is in milliseconds."""
    measured_on = [dataset.name, dataset.digest] if dataset else None
    return {
        "key": key,
        "value": float(value),
        "timestamp": timestamp,
        "step": step,
        "model": model,
        "dataset": measured_on,
    }


@delivers(METRICS)
def _metrics(attempt: Attempt, *, run_id: str, metrics: Sequence[Point]) -> None:
    """Log metrics: by the client, as the fluent call would also record a model as an input of the run that made it."""
    from mlflow import MlflowClient

    batch = [_metric(attempt, run_id, point) for point in metrics]
    if attempt.repeated:
        batch = _lacking(run_id, batch)
    if batch:
        MlflowClient().log_batch(run_id, metrics=batch)


def _metric(attempt: Attempt, run_id: str, point: Point) -> Metric:
    from mlflow.entities import Metric

    name, digest = point["dataset"] or (None, None)
    return Metric(
        point["key"],
        point["value"],
        point["timestamp"],
        point["step"],
        model_id=point["model"] and attempt.model(point["model"]),
        dataset_name=name,
        dataset_digest=digest,
        run_id=run_id,
    )


def _lacking(run_id: str, batch: Sequence[Metric]) -> list[Metric]:
    """Those that a lost request has not logged. A run keeps a value once; a model takes it once, and no second time."""
    import mlflow

    known = set()
    for model_id in {metric.model_id for metric in batch if metric.model_id}:
        for one in mlflow.get_logged_model(model_id).metrics or []:
            if one.run_id == run_id:
                known.add((model_id, one.key, one.step, one.timestamp))
    return [one for one in batch if (one.model_id, one.key, one.step, one.timestamp) not in known]


def metric_name(name: str) -> str:
    """A name as a part of a metric's key, which takes no other signs.

    >>> metric_name("dpo · models:/assistant/2")
    'dpo_models:_assistant_2'
    """
    return re.sub(r"[^A-Za-z0-9_.:-]+", "_", name).strip("_")


def log_parameters(run: OpenRun, parameters: Mapping[str, str]) -> None:
    """Log parameters, except those that ``mlflow run`` has already recorded for this run; secrets are masked."""
    send(run, "parameters", parameters={key: recorded_value(value) for key, value in parameters.items()})


@delivers("parameters")
def _parameters(attempt: Attempt, *, run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    known = client.get_run(run_id).data.params
    # MLflow refuses a longer value, and a second value of a parameter that is there.
    new = [Param(key, value) for key, value in parameters.items() if key not in known]
    for start in range(0, len(new), PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=new[start : start + PARAMETERS_AT_ONCE])


def recorded_value(value: str) -> str:
    """What a run keeps of a parameter."""
    return redacted(value)[:6000]


def log_tags(run: OpenRun, tags: Mapping[str, str]) -> None:
    """Set tags of this package: ``valuedrift.KEY``."""
    set_tags(run, {f"valuedrift.{key}": redacted(value) for key, value in tags.items()})


def set_tags(run: OpenRun, tags: Mapping[str, str]) -> None:
    """Set tags by their whole names."""
    send(run, "tags", tags=dict(tags))


@delivers("tags")
def _tags(attempt: Attempt, *, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import RunTag

    MlflowClient().log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def describe(run: OpenRun, text: str) -> None:
    """Give a run a description, unless it has one."""
    send(run, "description", text=redacted(text))


@delivers("description")
def _description(attempt: Attempt, *, run_id: str, text: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    # The reason of a failure is kept in the same tag.
    if NOTE not in client.get_run(run_id).data.tags:
        client.set_tag(run_id, NOTE, text)


def log_table(run: OpenRun, table: pd.DataFrame, file: str) -> None:
    """Log a table at the artifact root, in the form that MLflow's UI shows; one that is there already is replaced."""
    _log_text(run, _written(table), file)
    send(run, "shown_table", file=file)


@delivers("shown_table")
def _shown_table(attempt: Attempt, *, run_id: str, file: str) -> None:
    """Tell the UI that a file is a table.

    MLflow's own `log_table` does so too, but rounds to 10 digits and appends to a table that is there.
    """
    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    client = MlflowClient()
    shown = json.loads(client.get_run(run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    if (told := {"path": file, "type": "table"}) not in shown:
        client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*shown, told]))


def _written(table: pd.DataFrame) -> str:
    """A table as JSON, its numbers to the last digit; what is missing or not finite is null."""
    rows = [[_plain(cell) for cell in row] for row in table.itertuples(index=False, name=None)]
    return json.dumps({"columns": [_plain(name) for name in table.columns], "data": rows}, ensure_ascii=False)


def _plain(value: object) -> object:
    """A cell of the types that JSON has."""
    import numpy as np
    import pandas as pd

    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):  # pandas' missing time is one, too
        return value.isoformat() if value == value else None
    if value is None or isinstance(value, str | int):
        return value
    return None if value is pd.NA else str(value)


def log_evaluation(run: OpenRun, metrics: Mapping[str, float], tables: Mapping[str, pd.DataFrame]) -> EvaluationResult:
    """Log tables as ``NAME.json``, and make of them and the metrics what MLflow's callers expect of an evaluation."""
    from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact
    from mlflow.models.evaluation.base import EvaluationResult

    artifacts = {}
    for name, table in tables.items():
        # At the root: nowhere else does MLflow find the tables of an evaluation.
        log_table(run, table, f"{name}.json")
        artifacts[name] = JsonEvaluationArtifact(uri=f"runs:/{run.run_id}/{name}.json", content=table.to_dict("list"))
    return EvaluationResult(dict(metrics), artifacts, run.run_id)


class Drawn(Protocol):
    """A figure as it was drawn, and its data as csv; empty where there are none."""

    @property
    def png(self) -> bytes:
        """The picture."""

    @property
    def csv(self) -> str:
        """What it shows."""


def log_figures(run: OpenRun, pictures: Mapping[str, Drawn]) -> None:
    """Log pictures by their names under ``figures/``, with their data beside them."""
    if not pictures:
        return
    with temporary_folder() as scratch:
        for name, picture in pictures.items():
            Path(scratch, f"{name}.png").write_bytes(picture.png)
            if picture.csv:
                Path(scratch, f"{name}.csv").write_text(picture.csv, encoding="utf-8")
        log_folder(run, Path(scratch), "figures")


def log_text(run: OpenRun, text: str, file: str) -> None:
    """Log a text file at the artifact root."""
    _log_text(run, redacted(text), file)


def _log_text(run: OpenRun, text: str, file: str) -> None:
    with temporary_folder() as scratch:
        written = Path(scratch, file)
        written.write_text(text, encoding="utf-8")
        log_file(run, written, "")


def log_folder(run: OpenRun, folder: Path, path: str, *, copied: bool = True) -> None:
    """Log the files of a folder as artifacts under ``path``; ``copied`` where they may be changed afterwards."""
    send(run, "folder", folder, copied=copied, path=path)


@delivers("folder")
def _folder(attempt: Attempt, *, run_id: str, path: str) -> None:
    from mlflow import MlflowClient

    MlflowClient().log_artifacts(run_id, str(attempt.files), path or None)


def log_file(run: OpenRun, file: Path, path: str) -> None:
    """Log a file as an artifact under ``path``."""
    send(run, "file", file, path=path)


@delivers("file")
def _file(attempt: Attempt, *, run_id: str, path: str) -> None:
    from mlflow import MlflowClient

    MlflowClient().log_artifact(run_id, str(attempt.files), path or None)


@dataclass(frozen=True)
class LoggedDataset:
    """What metrics name their dataset by."""

    name: str
    digest: str
