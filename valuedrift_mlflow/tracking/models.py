"""What ``models:/`` and ``runs:/`` URIs name: models in the tracking store, and their files."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.away import patiently

if TYPE_CHECKING:
    from mlflow.entities import FileInfo

MLFLOW_PREFIXES = ("models:/", "runs:/")
_OF_A_RUN = re.compile(r"runs:/(?P<run>\w+)/checkpoints/step-(?P<step>\d+)/?")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>.+)")
CHECKPOINT = "valuedrift.checkpoint"  # the tag that names the artifacts of a LoggedModel's weights
HOLDS = "valuedrift.holds"  # the tag of a whole LoggedModel that has the weights of a run's checkpoint
WITHOUT = "valuedrift.without_weights"  # the tag of a LoggedModel that has measurements alone: the setting behind it


def check_model(uri: str, field: str) -> None:
    """Find the model or the run that a URI names.

    Raises:
        InputError: it is not in the tracking store, or the URI of a run names no artifact that it has.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        if uri.startswith("runs:/"):
            run_id, _, path = uri.removeprefix("runs:/").partition("/")
            if not path:
                raise InputError(problem(field, uri, "runs:/RUN_ID/PATH"))
            mlflow.get_run(run_id)
            check_has_weights(uri, field)
            if not _listed(uri):
                raise InputError(problem(field, uri, "a folder among the artifacts of the run"))
        elif uri.startswith("models:/m-"):
            check_has_weights(uri, field)
        else:
            mlflow.models.get_model_info(uri)
    except MlflowException as error:
        reason = str(error.message).splitlines()[0]
        raise InputError(problem(field, uri, "a model of the tracking store", reason)) from None


def without_weights(uri: str) -> str:
    """The setting for which a checkpoint was logged with its measurements alone; empty of any other model."""
    import mlflow

    by_id = uri.startswith("models:/m-") or _OF_A_RUN.fullmatch(uri)
    model_id = logged_model_id(uri) if by_id else None
    return str(mlflow.get_logged_model(model_id).tags.get(WITHOUT, "")) if model_id else ""


def measured_alone(uri: str) -> str | None:
    """The id of a checkpoint that was logged with its measurements alone; None of anything else, known or not."""
    from mlflow.exceptions import MlflowException

    try:
        return logged_model_id(uri) if without_weights(uri) else None
    except MlflowException:
        return None


def check_has_weights(uri: str, field: str) -> None:
    """Refuse a checkpoint that was logged without its weights.

    Raises:
        InputError: it is one.
    """
    setting = without_weights(uri)
    if setting:
        found = f"{uri}, logged without its weights ({setting})"
        raise InputError(problem(field, found, "a model with weights", "train it again with checkpoints.log: all"))


@patiently
def logged_model_id(uri: str) -> str | None:
    """The id of the LoggedModel that a ``models:/`` URI or that of a run's checkpoint names, None for any other."""
    import mlflow

    if uri.startswith("models:/m-"):
        return uri.removeprefix("models:/")
    if uri.startswith("models:/"):
        model_id = mlflow.models.get_model_info(uri).model_id
        return str(model_id) if model_id else None
    found = _OF_A_RUN.fullmatch(uri)
    return _output_at(found["run"], int(found["step"])) if found else None


@patiently
def _output_at(run_id: str, step: int) -> str | None:
    """The id of the LoggedModel that a run has logged at a step, None where it has none or several."""
    import mlflow

    outputs = mlflow.get_run(run_id).outputs
    ids = [output.model_id for output in (outputs.model_outputs if outputs else ()) if output.step == step]
    return str(ids[0]) if len(ids) == 1 else None


@patiently
def logged_name(model_id: str) -> str:
    """The name of a LoggedModel."""
    import mlflow

    return str(mlflow.get_logged_model(model_id).name)


def pinned(uri: str) -> str:
    """The same model by a URI that will not name another one, as an alias may: ``models:/m-...`` where it has an id."""
    from mlflow import MlflowClient

    model_id = logged_model_id(uri)
    if model_id is None and (alias := ALIAS.fullmatch(uri)) is not None:
        found = MlflowClient().get_model_version_by_alias(alias["name"], alias["alias"])
        return f"models:/{found.name}/{found.version}"
    return f"models:/{model_id}" if model_id else uri


@contextmanager
def checkpoint_files(uri: str) -> Iterator[Path | None]:
    """As ``checkpoint_folder``, for a moment: what has to be fetched for it is deleted afterwards."""
    weights = weights_uri(uri)
    if not weights.startswith("runs:/") or lies_here(weights):
        yield checkpoint_folder(uri)
        return
    with temporary_folder() as scratch:
        yield _checkpoint_in(download(weights, Path(scratch)))


def lies_here(uri: str) -> bool:
    """Whether the files behind a URI lie on a disk of this machine, where nothing has to be fetched."""
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    place = uri
    try:
        if (version := VERSION.fullmatch(uri)) is not None:
            place = MlflowClient().get_model_version_download_uri(version["name"], version["version"])
        elif (alias := ALIAS.fullmatch(uri)) is not None:
            found = MlflowClient().get_model_version_by_alias(alias["name"], alias["alias"])
            place = MlflowClient().get_model_version_download_uri(found.name, found.version)
        if place.startswith("models:/m-"):
            place = _artifacts(place)
        elif place.startswith("runs:/"):
            place = str(mlflow.get_run(place.removeprefix("runs:/").partition("/")[0]).info.artifact_uri)
    except MlflowException:  # whoever downloads says so
        return True
    return urlparse(place).scheme in ("", "file")


def checkpoint_folder(uri: str) -> Path | None:
    """The weights of a checkpoint that was logged as plain artifacts, None for a packaged model."""
    weights = weights_uri(uri)
    if not weights.startswith("runs:/"):
        return None
    return _checkpoint_in(download(weights))


def _checkpoint_in(folder: Path) -> Path | None:
    return folder if holds_weights({file.name for file in folder.iterdir()}) else None


def holds_weights(names: Set[str]) -> bool:
    """Whether files of these names are a checkpoint; of a packaged model the weights lie deeper: MLflow knows where."""
    return bool(_CONFIGS & names) or "MLmodel" not in names


def model_folder(uri: str) -> Path:
    """All files of a checkpoint or of a packaged model."""
    return checkpoint_folder(uri) or download(weights_uri(uri))


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

    scratch = temporary_folder()
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
    """The URI of a model's files.

    That of a checkpoint, registered or not, names the artifacts of its run; that of a stage's last one, where the whole
    model has its weights, the model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        model_id = logged_model_id(uri)
        tags = mlflow.get_logged_model(model_id).tags if model_id else {}
        if uri.startswith("runs:/"):
            return f"models:/{model_id}" if HOLDS in tags else uri
        return str(tags.get(CHECKPOINT, uri))
    except MlflowException:  # registered, and its LoggedModel is deleted or in another store
        return uri


@patiently
def download(uri: str, folder: Path | None = None) -> Path:
    """The files that a URI names, in a folder of this machine.

    Without ``folder`` they stay where they are, or are fetched to a folder that is there until the process ends.
    """
    import mlflow

    target = folder or (None if lies_here(uri) else Path(_scratch().name) / hashlib.sha256(uri.encode()).hexdigest())
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=None if target is None else str(target)))


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return temporary_folder()
