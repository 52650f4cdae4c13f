"""Packaged models of MLflow: which need nothing but weights, and which run code when they are loaded.

An ``MLmodel`` file names the Python module that loads it, may carry modules of its own, and its files may be pickles.
So MLflow's loader is called where that is asked for by name alone. Models that this package or MLflow's flavor
`transformers` has logged have plain weights beside all that: these are read as those of any folder are, and neither the
loader nor the modules that come with such a model are looked at.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.scratch import temporary_folder
from valuedrift_mlflow.tracking.models import (
    MLFLOW_PREFIXES,
    download,
    files_at,
    holds_weights,
    lies_here,
    weights_uri,
)
from valuedrift_mlflow.tracking.packaging import LOADER, TRUST

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo
    from mlflow.pyfunc import PyFuncModel

logger = logging.getLogger(__name__)
_MEND = "to run it: --allow-pyfunc-code, or allow_pyfunc_code: true"


@dataclass(frozen=True)
class Weights:
    """Weights that lie in a packaged model.

    Attributes:
        folder: with ``config.json``.
        tokenizer: the folder with the tokenizer, which MLflow keeps apart.
    """

    folder: Path
    tokenizer: Path


def check_packaged(uri: str, field: str, *, pyfunc_code: bool) -> None:
    """Refuse a model that runs code when it is loaded, unless that is asked for; only its ``MLmodel`` file is read.

    Raises:
        InputError: with what it would run.
    """
    if not uri.startswith(MLFLOW_PREFIXES) or pyfunc_code:
        return
    place = weights_uri(uri)
    if place.startswith("runs:/") and holds_weights(files_at(place)):
        return  # a checkpoint: its weights are read, whatever else lies beside them
    runs = _runs(_info(place if uri.startswith("runs:/") else uri, field))
    if runs:
        raise InputError(problem(field, f"{uri}, which runs {runs}", "a model that is weights alone", _MEND))


def packaged_weights(uri: str) -> Weights | None:
    """The weights of a packaged model that needs no code to be loaded; None of any other.

    Raises:
        InputError: its ``MLmodel`` names files outside of it.
    """
    held = weights_uri(uri)
    place = _place(_info(held, "model"))
    if place is None:
        return None
    root = Path(download(held)).resolve()
    folder = (root / place).resolve()
    if not folder.is_relative_to(root):
        raise InputError(problem(f"model {uri} MLmodel", place, "a folder inside the model"))
    # A data path may be copied as a folder in a folder.
    folder = next((file.parent for file in sorted(folder.rglob("config.json"))), folder)
    apart = root / "components" / "tokenizer"
    return Weights(folder, apart if apart.is_dir() else folder)


def load_pyfunc(uri: str, own_code: bool = False) -> PyFuncModel:
    """A packaged model of any flavor, by MLflow's own loader, which runs whatever the model says.

    ``own_code``: that of one of ours may run too.
    """
    import mlflow

    info = _info(uri, "model")
    logger.warning("%s runs %s, as allow_pyfunc_code says", uri, _runs(info) or "MLflow's loader")
    config: dict[str, object] | None = None
    if own_code:  # MLflow warns of what a model does not take
        takes = info.flavors.get("python_function", {}).get("config") or {}
        config = {TRUST: True} if TRUST in takes else None
    if lies_here(uri):
        packaged: PyFuncModel = mlflow.pyfunc.load_model(uri, model_config=config)
        return packaged
    scratch = temporary_folder()
    packaged = mlflow.pyfunc.load_model(uri, model_config=config, dst_path=scratch.name)
    weakref.finalize(packaged, scratch.cleanup)  # some flavors read their files as they are asked
    return packaged


def _info(uri: str, field: str) -> ModelInfo:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.models.get_model_info(uri)
    except (MlflowException, OSError) as error:
        raise InputError(problem(field, uri, "a model of the tracking store", one_line(error))) from None
    except Exception as error:  # whatever a damaged MLmodel file makes of MLflow's reader
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(problem(field, uri, "a model with a readable MLmodel file", reason)) from None


def _place(info: ModelInfo) -> str | None:
    """Where in a packaged model plain weights lie; None where it has none that can be read without its loader."""
    ours = _flavor(info, "python_function")
    if ours.get("loader_module") == LOADER.stem and isinstance(ours.get("data"), str):
        return str(ours["data"])
    theirs = _flavor(info, "transformers")
    # Adapters and models of the hub are put together by MLflow's loader.
    if isinstance(theirs.get("model_binary"), str) and "peft_adaptor" not in theirs:
        return str(theirs["model_binary"])
    return None


def _runs(info: ModelInfo) -> str:
    """What is run when a packaged model is loaded, in words; empty where it has plain weights."""
    if _place(info) is not None:
        return ""
    flavor = _flavor(info, "python_function")
    said = (
        [f"its loader {flavor.get('loader_module')!r}"]
        if flavor
        else ["a loader of the flavors " + ", ".join(info.flavors)]
    )
    said += [f"the pickle {flavor['python_model']!r}"] if flavor.get("python_model") else []
    said += [f"the script {flavor['model_code_path']!r}"] if flavor.get("model_code_path") else []
    said += [f"code of its own in {flavor['code']!r}"] if flavor.get("code") else []
    return one_line(" and ".join(said), 200)


def _flavor(info: ModelInfo, name: str) -> Mapping[str, object]:
    flavor = info.flavors.get(name)
    return flavor if isinstance(flavor, Mapping) else {}
