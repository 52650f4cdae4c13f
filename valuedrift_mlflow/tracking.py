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

from valuedrift_mlflow.errors import InputError

if TYPE_CHECKING:
    import mlflow
    import pandas as pd
    from mlflow.data.dataset import Dataset

    from valuedrift_mlflow.datasets import TrainingData
    from valuedrift_mlflow.labelled import Labelled
    from valuedrift_mlflow.suite import Suite

Role = Literal["pipeline", "stage", "evaluation", "judge_check", "audit"]
NOTE = "mlflow.note.content"


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


@contextmanager
def run(
    role: Role,
    *,
    name: str | None = None,
    stage: str | None = None,
    recipe: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Iterator[mlflow.ActiveRun]:
    """Open a run, nested where one is active, or adopt the run of ``mlflow run``; an error leaves it FAILED.

    A run that is already active stays open, and it is FAILED too when the error passes through the block that opened
    it.
    """
    import mlflow

    adopted = mlflow.active_run() is None and "MLFLOW_RUN_ID" in os.environ  # start_run takes it out
    nested = mlflow.active_run() is not None
    with mlflow.start_run(run_name=None if adopted else name, nested=nested) as active:
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
    """Record the training data as the active run's training dataset: its source, format, size and hash."""
    import mlflow
    import pandas as pd
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    name = data.uri.rsplit("/", 1)[-1].partition("?")[0]
    source = CodeDatasetSource({"uri": data.uri, "format": data.format})
    dataset = from_pandas(pd.DataFrame(data.rows), source=source, name=name[:500], digest=data.digest())
    mlflow.log_input(dataset, context="training")


def log_metrics(
    run_id: str,
    metrics: Mapping[str, float],
    step: int,
    *,
    model_id: str | None = None,
    dataset: Dataset | None = None,
) -> None:
    """Log metrics at exactly ``step``, linked to a LoggedModel and to the dataset they were measured on.

    The client is used because the fluent call would also record the model as an input of the run that made it.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    name, digest = (dataset.name, dataset.digest) if dataset else (None, None)
    batch = [
        Metric(key, float(value), now, step, model_id=model_id, dataset_name=name, dataset_digest=digest, run_id=run_id)
        for key, value in metrics.items()
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


def log_checkpoint(folder: Path, *, run_id: str, stage: str, step: int) -> str:
    """Log a saved checkpoint as artifacts and as a LoggedModel of the active run; returns the LoggedModel's id."""
    import mlflow
    from mlflow.entities import LoggedModelOutput

    path = checkpoint_path(step)
    log_folder(folder, path)
    model = mlflow.create_external_model(
        name=f"{stage}-step-{step:06d}",
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage": stage, "valuedrift.checkpoint": f"runs:/{run_id}/{path}"},
    )
    mlflow.log_outputs([LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def log_final_model(
    model: Any, tokenizer: Any, *, stage: str, step: int, max_new_tokens: int, temperature: float
) -> str:
    """Log a whole model so that ``mlflow.pyfunc.load_model`` loads it and it can be registered; returns its id.

    The model carries the one file that loads it, so that it needs neither this package nor pickle. ``model`` must be
    merged.
    """
    import mlflow
    import torch
    import transformers
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    signature = ModelSignature(
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", DataType.long, max_new_tokens),
                ParamSpec("temperature", DataType.double, temperature),
            ]
        )
    )
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example was not provided")
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        info = mlflow.pyfunc.log_model(
            name=f"{stage}-step-{step:06d}",
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
    """Log a table at the artifact root, in the form that MLflow's UI shows."""
    from mlflow import MlflowClient

    MlflowClient().log_table(run_id, table, file)


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
