"""Checkpoints: artifacts of a run that are also models of MLflow, without a second copy of their weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.delivery import METRICS, Attempt, deliver, delivers
from valuedrift_mlflow.tracking.logged import (
    begun,
    checkpoint_path,
    complete,
    model_name,
    send_final,
    send_model,
)
from valuedrift_mlflow.tracking.models import CHECKPOINT, HOLDS, WITHOUT
from valuedrift_mlflow.tracking.packaging import (
    LOADER,
    Answering,
    answering_signature,
    own_code_config,
    requirements,
    tell,
)
from valuedrift_mlflow.tracking.write import OpenRun, Point, log_folder, point, send


def log_checkpoint(run: OpenRun, folder: Path, *, stage: str, step: int, answering: Answering | None = None) -> str:
    """Log a saved checkpoint as artifacts and as a LoggedModel of a run; returns what metrics name the model by.

    With ``answering`` both are models that load, can be evaluated, registered and served: ``MLmodel`` and the one file
    that loads it stand beside the weights, and the LoggedModel has the same files with a pointer to the weights.
    Without, as for reward models, the weights alone are logged.
    """
    return send_model(run, "checkpoint", folder, stage=stage, step=step, answering=answering)


@delivers("checkpoint")
def _checkpoint(
    attempt: Attempt, *, run_id: str, model: str, again: bool, stage: str, step: int, answering: Answering | None
) -> str:
    from mlflow import MlflowClient

    known = begun(attempt, run_id, model_name(stage, step), again=again)
    if known.model_id and known.complete:
        return known.model_id
    path = checkpoint_path(step)
    assert attempt.files is not None
    weights = f"runs:/{run_id}/{path}"
    model_id = known.model_id or _created(run_id, stage, step, {CHECKPOINT: weights})
    _put(run_id, attempt.files, path)
    if answering is not None:
        with temporary_folder() as scratch:
            packaged = _packaged(Path(scratch), run_id, attempt.files, path, answering, model_id)
            _put(run_id, packaged, path)
            tell(packaged, answering, weights)
            MlflowClient().log_model_artifacts(model_id, str(packaged))
    complete(run_id, model_id, step)
    return model_id


def log_measured_checkpoint(run: OpenRun, *, stage: str, step: int, setting: str) -> str:
    """Log a checkpoint as a LoggedModel that has measurements and no weights; returns what metrics name it by.

    It can be found by its metrics and compared as it was measured. Whoever wants its weights is told ``setting``, such
    as ``checkpoints.log: final``.
    """
    return send_model(run, "measured_checkpoint", None, stage=stage, step=step, answering=None, setting=setting)


@delivers("measured_checkpoint")
def _measured_checkpoint(
    attempt: Attempt, *, run_id: str, model: str, again: bool, stage: str, step: int, answering: None, setting: str
) -> str:
    known = begun(attempt, run_id, model_name(stage, step), again=again)
    if known.model_id and known.complete:
        return known.model_id
    model_id = known.model_id or _created(run_id, stage, step, {WITHOUT: setting})
    complete(run_id, model_id, step)
    return model_id


def log_last_checkpoint(run: OpenRun, folder: Path, *, stage: str, step: int, answering: Answering) -> str:
    """Log a stage's last checkpoint in a folder, of all weights, as a whole model; returns what metrics name it by.

    Among the artifacts of the run stands what loads as the same model, with a pointer to these weights.
    """
    tags = {HOLDS: f"runs:/{run.run_id}/{checkpoint_path(step)}"}
    return send_final(run, "last_checkpoint", folder, stage=stage, step=step, answering=answering, tags=tags)


@delivers("last_checkpoint")
def _last_checkpoint(
    attempt: Attempt, *, run_id: str, stage: str, step: int, answering: Answering, **more: object
) -> str:
    told = {"run_id": run_id, "stage": stage, "step": step, "answering": answering, **more}
    # Before the pointer: the model is complete only with all of its weights. Delivered again, it is the same pointer.
    model_id, path = str(deliver("final_model", attempt, told)), checkpoint_path(step)
    assert attempt.files is not None
    with temporary_folder() as scratch:
        made = _packaged(Path(scratch), run_id, attempt.files, path, answering, model_id)
        tell(made, answering, f"models:/{model_id}")
        _put(run_id, made, path)
    return model_id


def _created(run_id: str, stage: str, step: int, tags: Mapping[str, str]) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=model_name(stage, step),
        source_run_id=run_id,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage_name": stage, **tags},
    )
    return str(model.model_id)


def _put(run_id: str, folder: Path, path: str) -> None:
    # Once: whoever delivers tries again.
    deliver("folder", Attempt(folder), {"run_id": run_id, "path": path})


def log_checkpoint_files(run: OpenRun, folder: Path, *, step: int, answering: Answering, copied: bool) -> None:
    """Log a saved checkpoint as artifacts alone, which are a model that loads; ``copied`` where files may change."""
    path = checkpoint_path(step)
    log_folder(run, folder, path, copied=copied)
    with temporary_folder() as scratch:
        log_folder(run, _packaged(Path(scratch), run.run_id, folder, path, answering, None), path)


def _packaged(scratch: Path, run_id: str, folder: Path, path: str, answering: Answering, model_id: str | None) -> Path:
    """The files of a model without its weights, which are in ``folder``."""
    import mlflow
    from mlflow.models import Model

    made = scratch / "model"
    mlflow.pyfunc.save_model(
        made,
        mlflow_model=Model(artifact_path=path, run_id=run_id, model_id=model_id),
        loader_module=LOADER.stem,
        code_paths=[str(LOADER)],
        model_config=own_code_config(folder),
        signature=answering_signature(answering),
        pip_requirements=requirements(adapted=(folder / "adapter_config.json").is_file()),
    )
    tell(made, answering)
    return made


# What a training comes to, by the names that TRL's trainers give it; of some of them it is all there is.
_COURSE = ("loss", "eval_loss", "reward", "rewards/margins", "rewards/accuracies", "kl")


def log_course(run: OpenRun) -> None:
    """Give the checkpoints of a finished training what the trainer logged on the way to each: ``checkpoint/loss``, ...

    Each is the mean over the steps since the checkpoint before. The trainer's own ``train/...`` belong to no
    checkpoint: a query for models could not ask for them.
    """
    send(run, "course", timestamp=int(time.time() * 1000))


@delivers("course")
def _course(attempt: Attempt, *, run_id: str, timestamp: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    stage = client.get_run(run_id)
    outputs = stage.outputs.model_outputs if stage.outputs else ()
    models = {int(output.step): str(output.model_id) for output in outputs if output.step}
    points: list[Point] = []
    again = attempt.repeated
    for key in (key for key in _COURSE if f"train/{key}" in stage.data.metrics):
        history = [(one.step, one.value) for one in client.get_metric_history(run_id, f"train/{key}")]
        # A stage that was killed behind this is taken up, and tells it once more: with the time of the first telling,
        # or it would be another point.
        told = {one.step: one.timestamp for one in client.get_metric_history(run_id, f"checkpoint/{key}")}
        again = again or bool(told)
        before = 0
        for step, model_id in sorted(models.items()):
            values = [value for at, value in history if before < at <= step]
            if values:
                mean = sum(values) / len(values)
                points.append(point(f"checkpoint/{key}", mean, step, told.get(step, timestamp), model=model_id))
            before = step
    deliver(METRICS, replace(attempt, repeated=again), {"run_id": run_id, "metrics": points})
