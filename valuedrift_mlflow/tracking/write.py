"""What is written to a run: metrics, parameters, tags, tables, figures, texts and files."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from valuedrift_mlflow.inputs.redaction import redacted
from valuedrift_mlflow.inputs.scratch import temporary_folder

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models.evaluation.base import EvaluationResult

NOTE = "mlflow.note.content"
PARAMETERS_AT_ONCE = 100  # the most that MLflow takes


@dataclass(frozen=True)
class OpenRun:
    """A run that is written to.

    Attributes:
        run_id: its id.
        last_steps: of a run that is continued, the last step that each metric was logged at before; None of a new one.
    """

    run_id: str
    last_steps: Mapping[str, int] | None = None

    @classmethod
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
    The client is used because the fluent call would also record the model as an input of the run that made it.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    run_id = run.run_id
    name, digest = (dataset.name, dataset.digest) if dataset else (None, None)
    batch = [
        Metric(key, float(value), now, step, model_id=model_id, dataset_name=name, dataset_digest=digest, run_id=run_id)
        for key, value in metrics.items()
        if run.lacks(key, step)
    ]
    for start in range(0, len(batch), 1000):  # the most metrics that MLflow takes at once
        MlflowClient().log_batch(run_id, metrics=batch[start : start + 1000])


def metric_name(name: str) -> str:
    """A name as a part of a metric's key, which takes no other signs.

    >>> metric_name("dpo · models:/assistant/2")
    'dpo_models:_assistant_2'
    """
    return re.sub(r"[^A-Za-z0-9_.:-]+", "_", name).strip("_")


def log_parameters(run_id: str, parameters: Mapping[str, str]) -> None:
    """Log parameters, except those that ``mlflow run`` has already recorded for this run; secrets are masked."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    known = client.get_run(run_id).data.params
    # MLflow refuses a longer value, and a second value of a parameter that is there.
    new = [Param(key, recorded_value(value)) for key, value in parameters.items() if key not in known]
    for start in range(0, len(new), PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=new[start : start + PARAMETERS_AT_ONCE])


def recorded_value(value: str) -> str:
    """What a run keeps of a parameter."""
    return redacted(value)[:6000]


def log_tags(run: OpenRun, tags: Mapping[str, str]) -> None:
    """Set tags of this package: ``valuedrift.KEY``."""
    from mlflow import MlflowClient
    from mlflow.entities import RunTag

    MlflowClient().log_batch(
        run.run_id, tags=[RunTag(f"valuedrift.{key}", redacted(value)) for key, value in tags.items()]
    )


def describe(run: OpenRun, text: str) -> None:
    """Give a run a description, unless it has one."""
    from mlflow import MlflowClient

    client = MlflowClient()
    # The reason of a failure is kept in the same tag.
    if NOTE not in client.get_run(run.run_id).data.tags:
        client.set_tag(run.run_id, NOTE, redacted(text))


def log_table(run: OpenRun, table: pd.DataFrame, file: str) -> None:
    """Log a table at the artifact root, in the form that MLflow's UI shows; one that is there already is replaced."""
    from mlflow import MlflowClient
    from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

    client = MlflowClient()
    client.log_text(run.run_id, _written(table), file)
    # By this tag the UI knows that it is a table. MLflow's own `log_table` sets it too, but rounds to 10 digits and
    # appends to a table that is there.
    shown = json.loads(client.get_run(run.run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    if (told := {"path": file, "type": "table"}) not in shown:
        client.set_tag(run.run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*shown, told]))


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
    from mlflow import MlflowClient

    MlflowClient().log_text(run.run_id, redacted(text), file)


def log_folder(run: OpenRun, folder: Path, path: str) -> None:
    """Log the files of a folder as artifacts under ``path``."""
    from mlflow import MlflowClient

    MlflowClient().log_artifacts(run.run_id, str(folder), path)


def log_file(run: OpenRun, file: Path, path: str) -> None:
    """Log a file as an artifact under ``path``."""
    from mlflow import MlflowClient

    MlflowClient().log_artifact(run.run_id, str(file), path)


@dataclass(frozen=True)
class LoggedDataset:
    """What metrics name their dataset by."""

    name: str
    digest: str
