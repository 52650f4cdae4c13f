"""Checkpoints: artifacts of a run that are also models of MLflow, without a second copy of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.models import (
    CHECKPOINT,
    WITHOUT,
    checkpoint_path,
    log_final_folder,
    logged_before,
    model_name,
)
from valuedrift_mlflow.tracking.packaging import (
    LOADER,
    Answering,
    answering_signature,
    own_code_config,
    requirements,
    tell,
)
from valuedrift_mlflow.tracking.write import OpenRun, log_folder, log_metrics


def log_checkpoint(run: OpenRun, folder: Path, *, stage: str, step: int, answering: Answering | None = None) -> str:
    """Log a saved checkpoint as artifacts and as a LoggedModel of a run; returns the LoggedModel's id.

    With ``answering`` both are models that load, can be evaluated, registered and served: ``MLmodel`` and the one file
    that loads it stand beside the weights, and the LoggedModel has the same files with a pointer to the weights.
    Without, as for reward models, the weights alone are logged.
    """
    from mlflow import MlflowClient

    known = logged_before(run, model_name(stage, step))
    if known:
        return known
    path = checkpoint_path(step)
    client, weights = MlflowClient(), f"runs:/{run.run_id}/{path}"
    model_id = _begun(run, stage, step, {CHECKPOINT: weights})
    log_folder(run, folder, path)
    if answering is not None:
        with temporary_folder() as scratch:
            made = _packaged(Path(scratch), run, folder, path, answering, model_id)
            log_folder(run, made, path)
            tell(made, answering, weights)
            client.log_model_artifacts(model_id, str(made))
    _ended(run, model_id, step)
    return model_id


def log_measured_checkpoint(run: OpenRun, *, stage: str, step: int, setting: str) -> str:
    """Log a checkpoint as a LoggedModel that has measurements and no weights; returns its id.

    It can be found by its metrics and compared as it was measured. Whoever wants its weights is told ``setting``, such
    as ``checkpoints.log: final``.
    """
    known = logged_before(run, model_name(stage, step))
    if known:
        return known
    model_id = _begun(run, stage, step, {WITHOUT: setting})
    _ended(run, model_id, step)
    return model_id


def log_last_checkpoint(run: OpenRun, folder: Path, *, stage: str, step: int, answering: Answering) -> str:
    """Log a stage's last checkpoint in a folder, of all weights, as a whole model; returns its id.

    Among the artifacts of the run stands what loads as the same model, with a pointer to these weights.
    """
    path = checkpoint_path(step)
    holds = f"runs:/{run.run_id}/{path}"
    model_id = log_final_folder(run, folder, stage=stage, step=step, holds=holds, **answering)
    with temporary_folder() as scratch:
        made = _packaged(Path(scratch), run, folder, path, answering, model_id)
        tell(made, answering, f"models:/{model_id}")
        log_folder(run, made, path)
    return model_id


def _begun(run: OpenRun, stage: str, step: int, tags: Mapping[str, str]) -> str:
    from mlflow import MlflowClient

    client = MlflowClient()
    model = client.create_logged_model(
        client.get_run(run.run_id).info.experiment_id,
        name=model_name(stage, step),
        source_run_id=run.run_id,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage_name": stage, **tags},
    )
    return str(model.model_id)


def _ended(run: OpenRun, model_id: str, step: int) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    MlflowClient().finalize_logged_model(model_id, "READY")
    # Last of all: a model without this link is one that was left half-way, see `logged_model`.
    MlflowClient().log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])


def log_checkpoint_files(run: OpenRun, folder: Path, *, step: int, answering: Answering) -> None:
    """Log a saved checkpoint as artifacts alone, which are a model that loads."""
    path = checkpoint_path(step)
    log_folder(run, folder, path)
    with temporary_folder() as scratch:
        log_folder(run, _packaged(Path(scratch), run, folder, path, answering, None), path)


def _packaged(scratch: Path, run: OpenRun, folder: Path, path: str, answering: Answering, model_id: str | None) -> Path:
    """The files of a model without its weights, which are in ``folder``."""
    import mlflow
    from mlflow.models import Model

    made = scratch / "model"
    mlflow.pyfunc.save_model(
        made,
        mlflow_model=Model(artifact_path=path, run_id=run.run_id, model_id=model_id),
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
    from mlflow import MlflowClient

    client = MlflowClient()
    stage = client.get_run(run.run_id)
    outputs = stage.outputs.model_outputs if stage.outputs else ()
    models = {int(output.step): str(output.model_id) for output in outputs if output.step}
    for key in (key for key in _COURSE if f"train/{key}" in stage.data.metrics):
        history = [(one.step, one.value) for one in client.get_metric_history(run.run_id, f"train/{key}")]
        before = 0
        for step, model_id in sorted(models.items()):
            values = [value for at, value in history if before < at <= step]
            if values:
                log_metrics(run, {f"checkpoint/{key}": sum(values) / len(values)}, step, model_id=model_id)
            before = step
