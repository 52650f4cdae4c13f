"""Runs that were stopped: what they have done is kept, and they go on from their last checkpoint.

While a stage runs, a folder of its own holds the trainer's newest checkpoint (weights, optimizer, schedule, random
states) with the measurements up to it. A stage that is taken up continues the same MLflow run from there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from valuedrift_mlflow.datasets import TrainingData
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.measurement import JudgedResponse, Measurement, responses_table
from valuedrift_mlflow.recipe import Recipe
from valuedrift_mlflow.stances import STANCES, Label, RefusalRule, Verdict
from valuedrift_mlflow.suite import Suite

if TYPE_CHECKING:
    from mlflow.entities import Run
    from transformers import Trainer

MEASUREMENTS = "valuedrift.json"  # the measurements that belong to a trainer's checkpoint, inside its folder
_COMPLETE = "complete"  # the last file that is written into a checkpoint's folder
_OPINION = "verdict of "


def state_folder(run_id: str) -> Path:
    """Where a run's checkpoint is kept until it is finished: ``.valuedrift/RUN_ID`` beside a SQLite tracking store.

    With a tracking server it is in the working folder. ``VALUEDRIFT_STATE`` names another place for all runs.
    """
    import mlflow

    named = os.environ.get("VALUEDRIFT_STATE")
    if named:
        return Path(named).expanduser().absolute() / run_id
    store = urlsplit(mlflow.get_tracking_uri())
    beside = Path(store.path[1:]).parent if store.scheme == "sqlite" else Path()
    return beside.absolute() / ".valuedrift" / run_id


def forget(folder: Path) -> None:
    """Delete what a finished run no longer needs."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(complete, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def complete(checkpoint: Path) -> None:
    """Say that a checkpoint is written to its end, then delete the older ones beside it."""
    (checkpoint / _COMPLETE).touch()
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other != checkpoint:
            shutil.rmtree(other)


def take_up(trainer: Trainer, checkpoint: Path | None) -> None:
    """Train, from a checkpoint of the same training where there is one."""
    if checkpoint:
        _count_on(trainer, checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _count_on(trainer: Trainer, checkpoint: Path) -> None:
    """Let a TRL trainer count its tokens on from the checkpoint; it would begin again at 0."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    counted = [entry["num_tokens"] for entry in history if "num_tokens" in entry]
    if counted and hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = counted[-1]


def write_measurements(file: Path, measurements: Sequence[Measurement], run_id: str) -> None:
    """Write measurements with all digits, and the run that they were logged to."""
    table = responses_table(measurements)
    content = {"run_id": run_id, "columns": list(table.columns), "data": table.to_numpy().tolist()}
    file.write_text(json.dumps(content), encoding="utf-8")


def read_measurements(file: Path, suite: Suite, refusal: RefusalRule) -> tuple[list[Measurement], str]:
    """The measurements of a file as ``write_measurements`` or MLflow writes it, and their run (MLflow: empty).

    What each verdict cost, and what a panel's members said beyond their labels, is not in these tables.

    Raises:
        InputError: no such file, or responses to another suite.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(problem(str(file), error.strerror, "the measurements of a run that is taken up")) from None
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    items = {item.item_id: item for item in suite.items}
    by_step: dict[int, list[JudgedResponse]] = {}
    for row in rows:
        if row["suite"] != suite.identity:
            raise InputError(problem(str(file), row["suite"], suite.identity, "resume with the suite of the run"))
        judged = JudgedResponse(items[row["item_id"]], row["sample"], row["response"], _verdict(row))
        by_step.setdefault(row["step"], []).append(judged)
    judge = {row["step"]: row["judge"] for row in rows}
    measurements = [
        Measurement(step, suite, judge[step], refusal, tuple(responses), 0.0) for step, responses in by_step.items()
    ]
    return measurements, content.get("run_id", "")


def _verdict(row: Mapping[str, Any]) -> Verdict:
    support, neutral, oppose = (row[stance.value] for stance in STANCES)
    return Verdict(
        Label(row["verdict"]),
        None if support is None else (support, neutral, oppose),
        reason=row.get("reason") or "",
        opinions=tuple(
            (column.removeprefix(_OPINION), Verdict(Label(label)))
            for column, label in row.items()
            if column.startswith(_OPINION) and label is not None
        ),
    )


def logged_measurements(run_id: str, suite: Suite, refusal: RefusalRule) -> list[Measurement]:
    """The measurements of a finished stage, from its ``responses.json``.

    Raises:
        InputError: the run has no such table, or its responses are to another suite.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = f"runs:/{run_id}/responses.json"
    try:
        file = Path(mlflow.artifacts.download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise InputError(
            problem("--resume", uri, "the table of responses of a finished stage", one_line(error))
        ) from None
    return read_measurements(file, suite, refusal)[0]


def stopped_run(run_id: str, role: str, parameters: Mapping[str, str], suite: Suite) -> Run:
    """A run that can be taken up with these settings.

    Raises:
        InputError: no such run, a run of another kind, a finished one, or a recipe that differs from the one it has
            recorded; every key that differs is named.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        reason = str(error.message).splitlines()[0]
        raise InputError(problem("--resume", run_id, "the id of a run in the tracking store", reason)) from None
    tags = run.data.tags
    found = tags.get("valuedrift.role", "no role")
    if found != role or run.info.lifecycle_stage != "active":
        kinds = {
            "pipeline": "a pipeline, by the entry point main",
            "ablation": "an ablation",
            "stage": "a single stage",
        }
        kind = kinds[role]
        raise InputError(problem("--resume", f"{run_id} ({found}, {run.info.lifecycle_stage})", f"a run of {kind}"))
    if role == "stage" and "mlflow.parentRunId" in tags:
        mend = f"resume what it is part of, by main or ablate, with --resume {tags['mlflow.parentRunId']}"
        raise InputError(problem("--resume", f"{run_id}, a stage of a pipeline", "a run without a parent", mend))
    if run.info.status == "FINISHED":
        raise InputError(problem("--resume", f"{run_id}, finished", "a run that was stopped or has failed"))
    differences = _differences(run, parameters)
    recorded_suite = tags.get("valuedrift.suite.hash")
    if recorded_suite and recorded_suite != suite.hash:
        differences.append(problem("suite", suite.hash, f"{recorded_suite}, as the run has recorded"))
    if differences:
        raise InputError(differences)
    return run


def _differences(run: Run, parameters: Mapping[str, str]) -> list[str]:
    """One line for each key whose value is not the one that the run has recorded."""
    recorded = {
        key: value for key, value in run.data.params.items() if "." in key or key in (*Recipe.model_fields, *parameters)
    }
    lines = []
    for key in sorted(recorded.keys() | parameters.keys()):
        now, then = parameters.get(key, "nothing")[:6000], recorded.get(key, "nothing")
        if now != then:
            lines.append(problem(key, now, f"{then}, as run {run.info.run_id} has recorded", "resume with its recipe"))
    return lines


def check_data(run: Run, data: TrainingData, stage: str) -> None:
    """Refuse training data that changed since a stage was stopped.

    Raises:
        InputError: the rows have another digest than those that the run has recorded.
    """
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        context = {tag.key: tag.value for tag in entry.tags}.get("mlflow.data.context")
        if context == "training" and entry.dataset.digest != data.digest():
            raise InputError(
                problem(
                    f"{stage}.data",
                    f"{data.uri} with digest {data.digest()}",
                    f"digest {entry.dataset.digest}, as run {run.info.run_id} has recorded",
                    "the rows are not those that the stage began with",
                )
            )


def stages_of(pipeline_id: str) -> dict[str, Run]:
    """The stage runs of a pipeline or an ablation by the names of their stages (``base`` too)."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(pipeline_id).info.experiment_id
    found = client.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{pipeline_id}' and tags.`valuedrift.role` = 'stage'"
    )
    named: dict[str, Run] = {}
    for run in found:
        names = [key.removesuffix(".algorithm") for key in run.data.params if key.endswith(".algorithm")]
        named[names[0] if names else run.data.tags.get("valuedrift.stage", "")] = run
    return named


def audits_of(pipeline_id: str) -> dict[tuple[str, str], dict[str, tuple[float, ...]]]:
    """What a pipeline's finished audits found: the (support, neutral, oppose) shares of topics, by URI and format."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(pipeline_id).info.experiment_id
    nested = f"tags.`mlflow.parentRunId` = '{pipeline_id}' and tags.`valuedrift.role` = 'audit'"
    found: dict[tuple[str, str], dict[str, tuple[float, ...]]] = {}
    for run in client.search_runs([experiment], f"{nested} and attributes.status = 'FINISHED'"):
        metrics = run.data.metrics
        topics = {key.split("/")[1] for key in metrics if key.startswith("stance_mix/")}
        found[run.data.params["data"], run.data.params["format"]] = {
            topic: tuple(metrics[f"stance_mix/{topic}/{stance.value}"] for stance in STANCES)
            for topic in sorted(topics)
        }
    return found
