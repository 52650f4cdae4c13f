"""Every MLflow write: runs, parameters, datasets, checkpoints, metrics, tables and figures."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from valuedrift_mlflow.inputs.errors import InputError

if TYPE_CHECKING:
    import mlflow
    import pandas as pd
    from mlflow.data.dataset import Dataset

    from valuedrift_mlflow.datasets import TrainingData
    from valuedrift_mlflow.labelled import Labelled
    from valuedrift_mlflow.suite import Suite

Role = Literal["pipeline", "ablation", "stage", "evaluation", "judge_check", "audit", "synthesis"]
NOTE = "mlflow.note.content"
# Of every run that is continued: the last step that each metric was logged at before.
_last_logged: dict[str, dict[str, int]] = {}


def work_offline() -> None:
    """Keep MLflow and the hub libraries from calling home. What the user has set stays."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_MODEL_CATALOG_URI", "")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def package_version() -> str:
    """The installed version of this package."""
    return version("valuedrift-mlflow")


def is_nested() -> bool:
    """Whether a run that is opened now has a parent."""
    import mlflow

    return mlflow.active_run() is not None


@contextmanager
def run(
    role: Role,
    *,
    name: str | None = None,
    stage: str | None = None,
    recipe: str | None = None,
    parameters: Mapping[str, str] | None = None,
    run_id: str | None = None,
) -> Iterator[mlflow.ActiveRun]:
    """Open a run, nested where one is active, or adopt the run of ``mlflow run``; an error leaves it FAILED.

    A run that is already active stays open, and it is FAILED too when the error passes through the block that opened
    it. With ``run_id`` a run that was stopped is continued: what it has logged stays and is not logged twice.
    """
    import mlflow

    nested = is_nested()
    if run_id:
        _continue(run_id)
    adopted = not run_id and not nested and "MLFLOW_RUN_ID" in os.environ  # start_run takes it out
    with mlflow.start_run(run_id=run_id, run_name=None if adopted or run_id else name, nested=nested) as active:
        try:
            if adopted and name:
                mlflow.set_tag("mlflow.runName", name)
            tags = {"role": role, "version": package_version(), "stage": stage, "recipe": recipe}
            mlflow.set_tags({f"valuedrift.{key}": value for key, value in tags.items() if value})
            if parameters:
                log_parameters(active.info.run_id, parameters)
            yield active
        except BaseException as error:
            mlflow.set_tag(NOTE, failure(error))
            raise
        finally:
            _last_logged.pop(active.info.run_id, None)


def _continue(run_id: str) -> None:
    """Make a stopped run ready to be opened again, in its own experiment and without the reason of its failure.

    The run that ``mlflow run`` has opened for this process stays empty; it says where the work is, and stands under it.
    """
    import mlflow
    from mlflow import MlflowClient

    client = MlflowClient()
    stopped = client.get_run(run_id)
    mlflow.set_experiment(experiment_id=stopped.info.experiment_id)
    if NOTE in stopped.data.tags:
        client.delete_tag(run_id, NOTE)
    opened = os.environ.pop("MLFLOW_RUN_ID", None) if mlflow.active_run() is None else None
    if opened and opened != run_id:
        client.set_tag(opened, "mlflow.parentRunId", run_id)
        client.set_tag(opened, "valuedrift.role", "resumption")
        client.set_tag(opened, NOTE, f"Continues run {run_id}")
        client.update_run(opened, name="resumption")
    skip_logged(run_id)


def skip_logged(run_id: str) -> None:
    """From now on log no metric of this run at a step that it has been logged at, or before it."""
    from mlflow import MlflowClient

    client = MlflowClient()
    _last_logged[run_id] = {
        key: max(metric.step for metric in client.get_metric_history(run_id, key))
        for key in client.get_run(run_id).data.metrics
    }


def log_anew(run_id: str) -> None:
    """From now on log every metric of a continued run, over the values that it has."""
    _last_logged.pop(run_id, None)


def failure(error: BaseException) -> str:
    """The description of a failed run: the reason first, then where it happened."""
    reason = str(error) or type(error).__name__
    if isinstance(error, InputError):
        return f"**FAILED** {reason}"
    where = "".join(traceback.format_exception(error))[-3000:]
    return f"**FAILED** {type(error).__name__}: {reason}\n\n```\n{where}\n```"


def log_parameters(run_id: str, parameters: Mapping[str, str]) -> None:
    """Log parameters, except those that ``mlflow run`` has already recorded for this run."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient()
    known = client.get_run(run_id).data.params
    new = [Param(key, value[:6000]) for key, value in parameters.items() if key not in known]
    for start in range(0, len(new), 100):
        client.log_batch(run_id, params=new[start : start + 100])


def last_child(run_id: str) -> str:
    """The id of the newest run that is nested in this one."""
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    nested = f"tags.`mlflow.parentRunId` = '{run_id}'"
    [newest] = client.search_runs([experiment], nested, max_results=1, order_by=["attributes.start_time DESC"])
    return str(newest.info.run_id)


def suite_dataset(suite: Suite) -> Dataset:
    """The suite as an MLflow dataset, whose digest is the suite's own hash."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    source = CodeDatasetSource({"uri": suite.source, "version": suite.version})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*integer column")
        dataset: Dataset = from_pandas(suite.frame(), source=source, name=suite.name, digest=suite.hash)
        dataset.to_dict()  # infers the schema that the warning is about
    return dataset


def log_suite(suite: Suite) -> Dataset:
    """Record the suite as the active run's evaluation dataset. Call it before any metric that was measured on it."""
    import mlflow

    dataset = suite_dataset(suite)
    mlflow.log_input(dataset, context="evaluation")
    mlflow.set_tags({f"valuedrift.{key}": value for key, value in suite.describe().items()})
    return dataset


def log_labelled(answers: Sequence[Labelled], uri: str) -> None:
    """Record labelled answers as the active run's evaluation dataset."""
    import mlflow
    import pandas as pd
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    rows = [
        {
            "proposition": a.answer.proposition,
            "prompt": a.answer.prompt,
            "response": a.answer.response,
            "label": a.label,
        }
        for a in answers
    ]
    frame = pd.DataFrame(rows, dtype=object).astype(str)
    digest = hashlib.sha256(frame.to_json().encode()).hexdigest()[:16]
    source = CodeDatasetSource({"uri": uri})
    mlflow.log_input(from_pandas(frame, source=source, name=Path(uri).stem, digest=digest), context="evaluation")


def log_training_data(data: TrainingData) -> None:
    """Record the training data as the active run's training dataset: its source, format, size and hash.

    The metrics ``data/rows``, ``data/bad_rows`` and ``data/dropped_rows`` (step 0) say how many rows are trained on,
    how many could not be read and were left out, and how many teach nothing.
    """
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.huggingface_dataset import from_huggingface

    name = data.uri.rsplit("/", 1)[-1].partition("?")[0]
    source = CodeDatasetSource({"uri": data.uri, "format": data.format})
    dataset = from_huggingface(data.dataset(), source=source, name=name[:500], digest=data.digest())
    mlflow.log_input(dataset, context="training")
    active = mlflow.active_run()
    assert active is not None  # log_input opens one where there is none
    counts = {"data/rows": len(data.rows), "data/bad_rows": data.bad, "data/dropped_rows": data.dropped}
    log_metrics(active.info.run_id, counts, 0)


def log_audited_data(uri: str, format: str) -> None:
    """Record data that are read once, row by row, as a dataset of the active run: their source and format."""
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    dataset_of: Any = MetaDataset  # its class has no profile, which mypy takes for abstract

    name = uri.rsplit("/", 1)[-1].partition("?")[0]
    source = CodeDatasetSource({"uri": uri, "format": format})
    mlflow.log_input(dataset_of(source, name=name[:500]), context="audit")


def describe(run_id: str, text: str) -> None:
    """Give a run a description, unless it has one."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if NOTE not in client.get_run(run_id).data.tags:
        client.set_tag(run_id, NOTE, text)


def log_metrics(
    run_id: str,
    metrics: Mapping[str, float],
    step: int,
    *,
    model_id: str | None = None,
    dataset: Dataset | None = None,
) -> None:
    """Log metrics at exactly ``step``, linked to a LoggedModel and to the dataset they were measured on.

    A continued run keeps the values that it has: the steps it repeats give the same ones again.
    The client is used because the fluent call would also record the model as an input of the run that made it.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    name, digest = (dataset.name, dataset.digest) if dataset else (None, None)
    batch = [
        Metric(key, float(value), now, step, model_id=model_id, dataset_name=name, dataset_digest=digest, run_id=run_id)
        for key, value in metrics.items()
        if step > _last_logged.get(run_id, {}).get(key, -1)
    ]
    for start in range(0, len(batch), 1000):
        MlflowClient().log_batch(run_id, metrics=batch[start : start + 1000])


def checkpoint_path(step: int) -> str:
    """Where a checkpoint lies among the artifacts of its run."""
    return f"checkpoints/step-{step:06d}"


def log_folder(folder: Path, path: str) -> None:
    """Log the files of a folder as artifacts of the active run under ``path``."""
    import mlflow

    mlflow.log_artifacts(str(folder), path)


def log_file(file: Path, path: str) -> None:
    """Log a file as an artifact of the active run under ``path``."""
    import mlflow

    mlflow.log_artifact(str(file), path)


def log_checkpoint(folder: Path, *, run_id: str, stage: str, step: int) -> str:
    """Log a saved checkpoint as artifacts and as a LoggedModel of the active run; returns the LoggedModel's id."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    path = checkpoint_path(step)
    name = model_name(stage, step)
    known = logged_model(run_id, name) if run_id in _last_logged else None
    if known:
        return known
    log_folder(folder, path)
    model = mlflow.create_external_model(
        name=name,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage": stage, "valuedrift.checkpoint": f"runs:/{run_id}/{path}"},
    )
    mlflow.log_outputs([LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def model_name(stage: str, step: int) -> str:
    """The name of a checkpoint's LoggedModel."""
    return f"{stage}-step-{step:06d}"


def logged_model(run_id: str, name: str) -> str | None:
    """The id of a run's LoggedModel of this name, None where there is none; one that was left half-way is deleted."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelStatus

    found = mlflow.search_logged_models(
        experiment_ids=[MlflowClient().get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
        output_format="list",
    )
    outputs = MlflowClient().get_run(run_id).outputs
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    complete = None
    for model in found:
        if model.status == LoggedModelStatus.READY and model.model_id in linked:
            complete = str(model.model_id)
        else:
            MlflowClient().delete_logged_model(model.model_id)
    return complete


def log_final_model(
    model: Any, tokenizer: Any, *, stage: str, step: int, max_new_tokens: int, temperature: float
) -> str:
    """Log a whole model so that ``mlflow.pyfunc.load_model`` loads it and it can be registered; returns its id.

    The model carries the one file that loads it, so that it needs neither this package nor pickle. ``model`` must be
    merged.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return log_final_folder(folder, stage=stage, step=step, max_new_tokens=max_new_tokens, temperature=temperature)


def log_final_folder(folder: Path, *, stage: str, step: int, max_new_tokens: int, temperature: float) -> str:
    """As ``log_final_model``, for a whole model and its tokenizer that lie in a folder."""
    import mlflow
    import torch
    import transformers
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    active = mlflow.active_run()
    if active and active.info.run_id in _last_logged:
        known = logged_model(active.info.run_id, model_name(stage, step))
        if known:
            return known
    signature = ModelSignature(
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", DataType.long, max_new_tokens),
                ParamSpec("temperature", DataType.double, temperature),
            ]
        )
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example was not provided")
        info = mlflow.pyfunc.log_model(
            name=model_name(stage, step),
            loader_module="valuedrift_answering",
            code_paths=[str(files("valuedrift_mlflow").joinpath("valuedrift_answering.py"))],
            data_path=str(folder),
            signature=signature,
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.split('+')[0]}",
                f"transformers=={transformers.__version__}",
            ],
            step=step,
            params={"stage": stage, "step": str(step)},
            tags={"valuedrift.stage": stage},
        )
    return str(info.model_id)


def log_table(run_id: str, table: pd.DataFrame, file: str) -> None:
    """Log a table at the artifact root, in the form that MLflow's UI shows; one that is there already is replaced."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if file in {entry.path for entry in client.list_artifacts(run_id)}:  # MLflow would append to it
        client.log_text(run_id, table.to_json(orient="split", index=False, date_format="iso"), file)
    else:
        client.log_table(run_id, table, file)


def log_figures(run_id: str, figures: Mapping[str, Any]) -> None:
    """Log matplotlib figures under ``figures/`` and close them."""
    import matplotlib.pyplot as plt
    from mlflow import MlflowClient

    for name, figure in figures.items():
        MlflowClient().log_figure(run_id, figure, f"figures/{name}.png", save_kwargs={"dpi": 130})
        plt.close(figure)


def log_text(run_id: str, text: str, file: str) -> None:
    """Log a text file at the artifact root."""
    from mlflow import MlflowClient

    MlflowClient().log_text(run_id, text, file)


def describe_refusal(error: InputError) -> None:
    """Give the run that ``mlflow run`` has opened the reason why its input was refused."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id:
        from mlflow import MlflowClient

        MlflowClient().set_tag(run_id, NOTE, failure(error))
