"""Models that a run logs: what they are called, how they are written, and what is left of one that was cut off."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.delivery import Attempt, deliver, delivers
from valuedrift_mlflow.tracking.packaging import (
    LOADER,
    Answering,
    answering_signature,
    own_code_config,
    requirements,
    tell,
)
from valuedrift_mlflow.tracking.write import OpenRun, send

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def checkpoint_path(step: int) -> str:
    """Where a checkpoint lies among the artifacts of its run."""
    return f"checkpoints/step-{step:06d}"


def model_name(stage: str, step: int) -> str:
    """The name of a checkpoint's LoggedModel."""
    # MLflow allows none of / : . % and quotes in it; a stage's name has none of them (`Stage.name`).
    return f"{stage}-step-{step:06d}"


def send_model(
    run: OpenRun, kind: str, folder: Path | None, *, stage: str, step: int, answering: Answering | None, **more: object
) -> str:
    """Write a model to a run; returns its id, or what it is called until the run's spool has delivered it."""
    name = model_name(stage, step)
    again = run.last_steps is not None
    called = f"{run.run_id}/{name}"
    told: dict[str, Any] = {"again": again, "stage": stage, "step": step, "answering": answering, **more}
    return send(run, kind, folder, copied=False, model=called, **told) or called


@dataclass(frozen=True)
class Begun:
    """What a run has of a LoggedModel.

    Attributes:
        model_id: its id; None where there is none yet.
        complete: whether nothing is left to do.
    """

    model_id: str | None = None
    complete: bool = False


def begun(attempt: Attempt, run_id: str, name: str, *, again: bool) -> Begun:
    """What there is of a LoggedModel where the run may have it: it is continued, or a request was lost."""
    if not attempt.repeated:
        known = logged_model(run_id, name) if again else None
        return Begun(known, complete=known is not None)
    complete, half_made = _models_of(run_id, name)
    # One is gone on with: where replies are lost often, none would ever come to its end.
    _delete(half_made[0 if complete else 1 :])
    return Begun(complete or next(iter(half_made), None), complete=complete is not None)


def uri_of(run: OpenRun, model: str, step: int) -> str:
    """The URI of a model that was logged at a step; waits until it is delivered.

    Of a store that stays away that of the run's checkpoint, which will be the same model.
    """
    if run.spool is None:
        return f"models:/{model}"
    if not run.spool.wait() and model not in run.spool.models:
        return f"runs:/{run.run_id}/{checkpoint_path(step)}"
    return f"models:/{run.spool.models.get(model, model)}"


def log_final_model(
    run: OpenRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stage: str,
    step: int,
    **answering: Unpack[Answering],
) -> str:
    """Log a whole model so that ``mlflow.pyfunc.load_model`` loads it and it can be registered.

    Returns what metrics name it by, see ``uri_of``. The model carries the one file that loads it, so that it needs
    neither this package nor pickle. ``model`` must be merged.
    """
    with temporary_folder(scratch_of(run)) as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return log_final_folder(run, folder, stage=stage, step=step, **answering)


def log_final_folder(run: OpenRun, folder: Path, *, stage: str, step: int, **answering: Unpack[Answering]) -> str:
    """As ``log_final_model``, for a whole model and its tokenizer that lie in a folder."""
    return send_final(run, "final_model", folder, stage=stage, step=step, answering=answering, tags={})


def send_final(
    run: OpenRun, kind: str, folder: Path, *, stage: str, step: int, answering: Answering, tags: Mapping[str, str]
) -> str:
    """Write a whole model in a folder to a run, with tags beside those that MLflow gives every model."""
    from mlflow.tracking.context.registry import resolve_tags

    tell(folder, answering)
    given = {key: str(value) for key, value in resolve_tags({"valuedrift.stage_name": stage, **tags}).items()}
    return send_model(run, kind, folder, stage=stage, step=step, answering=answering, tags=given)


@delivers("final_model")
def _final_model(
    attempt: Attempt,
    *,
    run_id: str,
    model: str,
    again: bool,
    stage: str,
    step: int,
    answering: Answering,
    tags: Mapping[str, str],
) -> str:
    """Log a model step by step: MLflow's ``log_model`` needs the active run, and asks for every metric's history."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.models import Model

    known = begun(attempt, run_id, model_name(stage, step), again=again)
    if known.model_id and known.complete:
        return known.model_id
    assert attempt.files is not None
    client = MlflowClient()
    run = client.get_run(run_id)
    made = (
        client.get_logged_model(known.model_id)
        if known.model_id
        else client.create_logged_model(
            run.info.experiment_id,
            name=model_name(stage, step),
            source_run_id=run_id,
            params={"stage": stage, "step": str(step), **run.data.params},
            tags=dict(tags),
        )
    )
    model_id, config = str(made.model_id), own_code_config(attempt.files)
    with temporary_folder() as scratch:
        folder = Path(scratch, "model")
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(made.artifact_location, run_id, model_uuid=model_id, model_id=model_id),
            loader_module=LOADER.stem,
            code_paths=[str(LOADER)],
            data_path=str(attempt.files),
            model_config=config,
            signature=answering_signature(answering),
            pip_requirements=requirements(),
        )
        client.log_model_artifacts(model_id, str(folder))
    if config:
        deliver(
            "parameters", attempt, {"run_id": run_id, "parameters": {key: str(value) for key, value in config.items()}}
        )
    complete(run_id, model_id, step)
    return model_id


def complete(run_id: str, model_id: str, step: int) -> None:
    """Say that a LoggedModel has all its files."""
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    client = MlflowClient()
    client.finalize_logged_model(model_id, "READY")
    # Last of all: a model without this link is one that was left half-way, see `logged_model`.
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])


def scratch_of(run: OpenRun) -> Path | None:
    """Where a run's files are prepared: on the disk where they will wait, so that none is copied there."""
    return None if run.spool is None else run.spool.scratch()


def log_classifier(run: OpenRun, folder: Path, register: str) -> str:
    """Log a sequence classifier that lies in a folder, register it where a name is given; returns its URI."""
    import mlflow
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    parts = {
        "model": AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no input example, and no card on the hub
        info = mlflow.transformers.log_model(
            parts,
            name="judge",
            task="text-classification",
            registered_model_name=register or None,
            pip_requirements=requirements(),
        )
    return f"models:/{register}/{info.registered_model_version}" if register else f"models:/{info.model_id}"


def logged_model(run_id: str, name: str) -> str | None:
    """The id of a run's LoggedModel of this name, None where there is none; one that was left half-way is deleted."""
    complete, half_made = _models_of(run_id, name)
    _delete(half_made)  # so that a name has one model; the run that goes on logs it again
    return complete


def _models_of(run_id: str, name: str) -> tuple[str | None, list[str]]:
    """The id of the LoggedModel of this name that a run has, and of those that were left half-way."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelStatus

    run = MlflowClient().get_run(run_id)
    candidates = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
        output_format="list",
    )
    linked = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    # READY alone is not enough: a process may have been killed before the run named it as its output.
    complete = [one.model_id for one in candidates if one.status == LoggedModelStatus.READY and one.model_id in linked]
    half_made = [str(one.model_id) for one in candidates if one.model_id not in complete]
    return (str(complete[-1]) if complete else None), half_made


def _delete(models: Sequence[str]) -> None:
    from mlflow import MlflowClient

    for model_id in models:
        MlflowClient().delete_logged_model(model_id)
