"""Models in the tracking store: checkpoints and LoggedModels, and what ``models:/`` and ``runs:/`` URIs name."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack
from urllib.parse import urlsplit

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.tracking.write import OpenRun, log_folder

if TYPE_CHECKING:
    from mlflow.entities import FileInfo
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
MLFLOW_PREFIXES = ("models:/", "runs:/")
_CHECKPOINT = "valuedrift.checkpoint"  # the tag that names the artifacts of a LoggedModel's weights
TRUST = "trust_remote_code"  # what a packaged model is told when it is loaded
ANSWERING = "valuedrift_answering"  # the loader in every model that was logged so far: the file keeps its name

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
        # Said, as the thread that logs beside a training has no active run whose experiment it would be.
        experiment_id=MlflowClient().get_run(run.run_id).info.experiment_id,
        model_type="checkpoint",
        params={"stage": stage, "step": str(step)},
        tags={"valuedrift.stage_name": stage, _CHECKPOINT: f"runs:/{run.run_id}/{path}"},
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
    (folder / f"{ANSWERING}.json").write_text(json.dumps(told), encoding="utf-8")
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
            loader_module=ANSWERING,
            code_paths=[str(Path(__file__).with_name(f"{ANSWERING}.py"))],
            data_path=str(folder),
            # Only what is named here can be given when the model is loaded; that it runs code of its own must be.
            model_config={TRUST: False} if _own_code(folder) else None,
            signature=signature,
            pip_requirements=[  # given, as MLflow would load the model in another process to find them out
                f"mlflow=={mlflow.__version__}",
                f"torch=={torch.__version__.split('+')[0]}",  # 2.13.0+cpu is no version of the package index
                f"transformers=={transformers.__version__}",
            ],
            step=step,
            params={"stage": stage, "step": str(step)},
            tags={"valuedrift.stage_name": stage},
        )
    return str(info.model_id)


def _own_code(folder: Path) -> bool:
    """Whether a model in a folder has code of its own; what is missing of it is said.

    Transformers saves the files of such code beside the weights where it has loaded the model with it.
    """
    named: list[str] = []
    for file in (folder / "config.json", folder / "tokenizer_config.json"):
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for classes in told.get("auto_map", {}).values():
            named += [str(one) for one in (classes if isinstance(classes, list) else [classes]) if one]
    modules = {name.rpartition("--")[2].partition(".")[0] for name in named}
    missing = sorted(f"{module}.py" for module in modules if not (folder / f"{module}.py").is_file())
    if missing:
        logger.warning("%s is logged without its own code, which it needs to load: %s", folder.name, ", ".join(missing))
    return bool(named)


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


def checkpoint_folder(uri: str) -> Path | None:
    """The weights of a checkpoint that was logged as plain artifacts, None for a packaged model."""
    weights = weights_uri(uri)
    if not weights.startswith("runs:/"):
        return None
    folder = download(weights)
    # A runs:/ URI may name a packaged model too: its weights lie deeper, and MLflow knows where.
    return None if (folder / "MLmodel").is_file() else folder


def model_folder(uri: str) -> Path:
    """All files of a checkpoint or of a packaged model."""
    return checkpoint_folder(uri) or download(uri)


def files_folder(uri: str) -> Path | None:
    """A folder with copies of a model's files, without its weights; None where it has no configuration.

    It is there until the process ends.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model_id = logged_model_id(uri)  # an alias may name another model by tomorrow
    except (MlflowException, OSError):
        return None
    fetched = _fetched(f"models:/{model_id}" if model_id else uri, mlflow.get_tracking_uri())
    return None if fetched is None else fetched[1]


@lru_cache(maxsize=8)
def _fetched(uri: str, _store: str) -> tuple[tempfile.TemporaryDirectory[str], Path] | None:
    """The files of a model below a temporary folder, which goes with the first of the two."""
    from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR as BARS
    from mlflow.exceptions import MlflowException

    scratch = tempfile.TemporaryDirectory(prefix="valuedrift-")
    shown = BARS.get_raw()
    BARS.set(False)  # one for each small file
    try:
        root = _artifacts(weights_uri(uri))
        for place, names in _places(root):
            if _CONFIGS & names:
                folder = Path(scratch.name, "model")
                folder.mkdir()
                # MLflow's flavor of transformers keeps the tokenizer apart.
                apart = f"{root}/components/tokenizer"
                for whence, name in [*((place, name) for name in names), *((apart, name) for name in files_at(apart))]:
                    if not name.endswith(_HEAVY):
                        shutil.copy(download(f"{whence}/{name}", Path(scratch.name)), folder / name)
                return scratch, folder
    except (MlflowException, OSError):
        return None
    finally:
        BARS.unset() if shown is None else BARS.set(shown)
    return None


_CONFIGS = frozenset({"config.json", "adapter_config.json"})
_HEAVY = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz", ".h5", ".msgpack")  # weights, and what is as large


def _places(weights: str) -> Iterator[tuple[str, set[str]]]:
    """Where the files of a model may lie, with their names: a checkpoint, a model of ours, one of MLflow's flavor."""
    for place in (weights, *_folders(f"{weights}/data"), f"{weights}/model"):
        yield place, files_at(place)


def _artifacts(uri: str) -> str:
    """Where the files of a LoggedModel lie; MLflow has no URI for one of them by the model's id."""
    import mlflow

    if not uri.startswith("models:/m-"):
        return uri
    return str(mlflow.get_logged_model(uri.removeprefix("models:/")).artifact_location).rstrip("/")


def files_at(place: str) -> set[str]:
    """The names of the files at an artifact's URI; none where there is no such folder."""
    return {Path(entry.path).name for entry in _listed(place) if not entry.is_dir}


def _folders(place: str) -> list[str]:
    return [f"{place}/{Path(entry.path).name}" for entry in _listed(place) if entry.is_dir]


def _listed(place: str) -> Sequence[FileInfo]:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return list(mlflow.artifacts.list_artifacts(artifact_uri=place))
    except (MlflowException, OSError):  # some stores refuse a folder that is not there, others list nothing
        return []


def downloaded(uri: str, field: str, allowed: str) -> Path:
    """The file behind the URI of a run's artifact.

    Raises:
        InputError: it cannot be had; ``field`` and ``allowed`` say of what.
    """
    from mlflow.exceptions import MlflowException

    try:
        return download(uri)
    except (MlflowException, OSError) as error:
        reason = one_line(error)
        raise InputError(problem(field, uri, allowed, reason)) from None


def weights_uri(uri: str) -> str:
    """The URI of a model's files: the LoggedModel of a checkpoint names the artifacts of its run."""
    import mlflow

    if not uri.startswith("models:/m-"):
        return uri
    return str(mlflow.get_logged_model(uri.removeprefix("models:/")).tags.get(_CHECKPOINT, uri))


def download(uri: str, folder: Path | None = None) -> Path:
    """The files that a URI names, in a folder of this machine.

    Without ``folder`` they stay where they are, or are fetched to a folder that is there until the process ends.
    """
    import mlflow

    target = folder or (None if _lies_here(uri) else Path(_scratch().name) / hashlib.sha256(uri.encode()).hexdigest())
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=None if target is None else str(target)))


def _lies_here(uri: str) -> bool:
    """Whether MLflow gives files of this machine themselves: it copies those of a server into folders that stay."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if uri.startswith("models:/m-"):
            place = str(mlflow.get_logged_model(uri.removeprefix("models:/").partition("/")[0]).artifact_location)
        elif uri.startswith("runs:/"):
            place = str(mlflow.get_run(uri.removeprefix("runs:/").partition("/")[0]).info.artifact_uri)
        else:
            place = str(mlflow.get_tracking_uri()).removeprefix("sqlite:///")
    except MlflowException:  # whoever downloads says so
        return True
    return urlsplit(place).scheme in ("", "file")


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="valuedrift-")
