"""Models in the tracking store: checkpoints and LoggedModels, and what ``models:/`` and ``runs:/`` URIs name."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.tracking.write import OpenRun, log_folder

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MLFLOW_PREFIXES = ("models:/", "runs:/")
_CHECKPOINT = "valuedrift.checkpoint"  # the tag that names the artifacts of a LoggedModel's weights
_ANSWERING = "valuedrift_answering"  # the loader in every model that was logged so far: the file keeps its name

# Logging -------------------------------------------------------------------------------------------------------------


def checkpoint_path(step: int) -> str:
    """Where a checkpoint lies among the artifacts of its run."""
    return f"checkpoints/step-{step:06d}"


def model_name(stage: str, step: int) -> str:
    """The name of a checkpoint's LoggedModel."""
    # MLflow allows none of / : . % and quotes in it; a stage's name has none of them (`Stage.name`).
    return f"{stage}-step-{step:06d}"


def log_checkpoint(run: OpenRun, folder: Path, *, stage: str, step: int) -> str:
    """Log a saved checkpoint as artifacts and as a LoggedModel of a run; returns the LoggedModel's id."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelOutput

    path = checkpoint_path(step)
    known = _logged_before(run, model_name(stage, step))
    if known:
        return known
    log_folder(run, folder, path)
    # External: the weights lie among the run's artifacts already, and are not stored a second time.
    model = mlflow.create_external_model(
        name=model_name(stage, step),
        source_run_id=run.run_id,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage": stage, _CHECKPOINT: f"runs:/{run.run_id}/{path}"},
    )
    # Last of all: a model without this link is one that was left half-way, see `logged_model`.
    MlflowClient().log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


class Answering(TypedDict):
    """How a logged model answers where its caller does not say.

    Attributes:
        max_new_tokens: longest response in tokens.
        temperature: of sampling; 0 is greedy.
        stop: texts that end an answer.
        template_kwargs: what its chat template is told.
    """

    max_new_tokens: int
    temperature: float
    stop: NotRequired[Sequence[str]]
    template_kwargs: NotRequired[Mapping[str, str | int | float | bool | None]]


def log_final_model(
    run: OpenRun,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    stage: str,
    step: int,
    **answering: Unpack[Answering],
) -> str:
    """Log a whole model so that ``mlflow.pyfunc.load_model`` loads it and it can be registered; returns its id.

    The model carries the one file that loads it, so that it needs neither this package nor pickle. ``model`` must be
    merged, ``run`` the active run.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # MLflow keeps the name: `config_folder` looks for `data/model`.
        folder = Path(scratch) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return log_final_folder(run, folder, stage=stage, step=step, **answering)


def log_final_folder(run: OpenRun, folder: Path, *, stage: str, step: int, **answering: Unpack[Answering]) -> str:
    """As ``log_final_model``, for a whole model and its tokenizer that lie in a folder."""
    import mlflow
    import torch
    import transformers
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    known = _logged_before(run, model_name(stage, step))
    if known:
        return known
    told = {"stop": list(answering.get("stop", ())), "template_kwargs": dict(answering.get("template_kwargs", {}))}
    # A file beside the weights, as `_load_pyfunc` is given nothing but their folder.
    (folder / f"{_ANSWERING}.json").write_text(json.dumps(told), encoding="utf-8")
    signature = ModelSignature(
        params=ParamSchema(
            [
                ParamSpec("max_new_tokens", DataType.long, answering["max_new_tokens"]),
                ParamSpec("temperature", DataType.double, answering["temperature"]),
            ]
        )
    )
    with warnings.catch_warnings():
        # An example would be answered while it is logged; the signature says what there is to say.
        warnings.filterwarnings("ignore", ".*input example was not provided")
        info = mlflow.pyfunc.log_model(
            name=model_name(stage, step),
            loader_module=_ANSWERING,
            code_paths=[str(Path(__file__).with_name(f"{_ANSWERING}.py"))],
            data_path=str(folder),
            signature=signature,
            pip_requirements=[  # given, as MLflow would load the model in another process to find them out
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.split('+')[0]}",  # 2.13.0+cpu is no version of the package index
                f"transformers=={transformers.__version__}",
            ],
            step=step,
            params={"stage": stage, "step": str(step)},
            tags={"valuedrift.stage": stage},
        )
    return str(info.model_id)


def log_classifier(run: OpenRun, folder: Path, register: str) -> str:
    """Log a sequence classifier that lies in a folder, register it where a name is given; returns its URI."""
    import mlflow
    import torch
    import transformers
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
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.split('+')[0]}",
                f"transformers=={transformers.__version__}",
            ],
        )
    return f"models:/{register}/{info.registered_model_version}" if register else f"models:/{info.model_id}"


def _logged_before(run: OpenRun, name: str) -> str | None:
    """The LoggedModel of this name that a continued run has; a new run has none."""
    return None if run.last_steps is None else logged_model(run.run_id, name)


def logged_model(run_id: str, name: str) -> str | None:
    """The id of a run's LoggedModel of this name, None where there is none; one that was left half-way is deleted."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModelStatus

    candidates = mlflow.search_logged_models(
        experiment_ids=[MlflowClient().get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = '{name}'",
        output_format="list",
    )
    outputs = MlflowClient().get_run(run_id).outputs
    linked = {output.model_id for output in outputs.model_outputs} if outputs else set()
    complete = None
    for model in candidates:
        # READY alone is not enough: a process may have been killed before the run named it as its output.
        if model.status == LoggedModelStatus.READY and model.model_id in linked:
            complete = str(model.model_id)
        else:
            # Deleted, so that a name has one model; the run that goes on logs it again.
            MlflowClient().delete_logged_model(model.model_id)
    return complete


# URIs ----------------------------------------------------------------------------------------------------------------


def check_model(uri: str, field: str) -> None:
    """Find the model or the run that a URI names.

    Raises:
        InputError: it is not in the tracking store, or the URI of a run names no artifact.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if uri.startswith("runs:/"):
            run_id, _, path = uri.removeprefix("runs:/").partition("/")
            if not path:
                raise InputError(problem(field, uri, "runs:/RUN_ID/PATH"))
            mlflow.get_run(run_id)
        elif uri.startswith("models:/m-"):
            mlflow.get_logged_model(uri.removeprefix("models:/"))
        else:
            mlflow.models.get_model_info(uri)
    except MlflowException as error:
        reason = str(error.message).splitlines()[0]
        raise InputError(problem(field, uri, "a model of the tracking store", reason)) from None


def logged_model_id(uri: str) -> str | None:
    """The id of the LoggedModel that a ``models:/`` URI names, None for any other URI."""
    import mlflow

    if not uri.startswith("models:/"):
        return None
    if uri.startswith("models:/m-"):
        return uri.removeprefix("models:/")
    model_id = mlflow.models.get_model_info(uri).model_id
    return str(model_id) if model_id else None


def load_pyfunc(uri: str) -> PyFuncModel:
    """A packaged model of any flavor."""
    import mlflow

    packaged: PyFuncModel = mlflow.pyfunc.load_model(uri)
    return packaged


def checkpoint_folder(uri: str) -> Path | None:
    """The weights of a checkpoint that was logged as plain artifacts, None for a packaged model."""
    weights = _weights(uri)
    if not weights.startswith("runs:/"):
        return None
    folder = _download(weights)
    # A runs:/ URI may name a packaged model too: its weights lie deeper, and MLflow knows where.
    return None if (folder / "MLmodel").is_file() else folder


def model_folder(uri: str) -> Path:
    """All files of a checkpoint or of a packaged model."""
    return checkpoint_folder(uri) or _download(uri)


def config_folder(uri: str) -> str:
    """A folder with the configuration of a model, of which nothing else is fetched; the URI where it has none."""
    from mlflow.exceptions import MlflowException

    weights = _weights(uri)
    # Of a checkpoint, of a model as log_final_folder packages it, of adapters.
    for inside in ("config.json", "data/model/config.json", "adapter_config.json"):
        try:
            return str(_download(f"{weights}/{inside}").parent)
        # Which of them a model has is not known before; a server answers what is missing with an exception.
        except (MlflowException, OSError):
            continue
    return weights


def downloaded(uri: str, field: str, allowed: str) -> Path:
    """The file behind the URI of a run's artifact.

    Raises:
        InputError: it cannot be had; ``field`` and ``allowed`` say of what.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _download(uri)
    except (MlflowException, OSError) as error:
        reason = one_line(error)
        raise InputError(problem(field, uri, allowed, reason)) from None


def _weights(uri: str) -> str:
    """The URI of a model's files: the LoggedModel of a checkpoint names the artifacts of its run."""
    import mlflow

    if not uri.startswith("models:/m-"):
        return uri
    return str(mlflow.get_logged_model(uri.removeprefix("models:/")).tags.get(_CHECKPOINT, uri))


def _download(uri: str) -> Path:
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(uri))
