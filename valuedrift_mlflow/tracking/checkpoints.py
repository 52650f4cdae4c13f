"""Checkpoints: artifacts of a run that are also models of MLflow, without a second copy of their weights."""

from __future__ import annotations

from pathlib import Path

from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.models import CHECKPOINT, checkpoint_path, logged_before, model_name
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
    from mlflow.entities import LoggedModelOutput

    name, path = model_name(stage, step), checkpoint_path(step)
    known = logged_before(run, name)
    if known:
        return known
    client, weights = MlflowClient(), f"runs:/{run.run_id}/{path}"
    model = client.create_logged_model(
        client.get_run(run.run_id).info.experiment_id,
        name=name,
        source_run_id=run.run_id,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage_name": stage, CHECKPOINT: weights},
    )
    model_id = str(model.model_id)
    log_folder(run, folder, path)
    if answering is not None:
        with temporary_folder() as scratch:
            made = _packaged(Path(scratch), run, folder, path, answering, model_id)
            log_folder(run, made, path)
            tell(made, answering, weights)
            client.log_model_artifacts(model_id, str(made))
    client.finalize_logged_model(model_id, "READY")
    # Last of all: a model without this link is one that was left half-way, see `logged_model`.
    client.log_outputs(run.run_id, [LoggedModelOutput(model_id, step)])
    return model_id


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
