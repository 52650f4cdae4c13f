"""What a packaged model of ours is made of: the file that loads it, what it is told, its signature and requirements."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)
TRUST = "trust_remote_code"  # what a packaged model is told when it is loaded
# The loader in every model that was logged so far: the file keeps its name.
LOADER = Path(__file__).with_name("valuedrift_answering.py")


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


def tell(folder: Path, answering: Answering, weights: str = "") -> None:
    """Write what the loader reads of a model in its folder; ``weights`` are elsewhere where they are not in it."""
    told = {"stop": list(answering.get("stop", ())), "template_kwargs": dict(answering.get("template_kwargs", {}))}
    # A file, as `_load_pyfunc` is given nothing but a folder.
    text = json.dumps(told | ({"weights": weights} if weights else {}))
    (folder / f"{LOADER.stem}.json").write_text(text, encoding="utf-8")


def answering_signature(answering: Answering) -> ModelSignature:
    """The parameters of a model's answers, with their defaults; of its input, prompts or messages, nothing is said."""
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec

    parameters = [
        ParamSpec("max_new_tokens", DataType.long, answering["max_new_tokens"]),
        ParamSpec("temperature", DataType.double, answering["temperature"]),
    ]
    return ModelSignature(params=ParamSchema(parameters))


def requirements(*, adapted: bool = False) -> list[str]:
    """What a model needs to load. Given, as MLflow would load it in another process to find out."""
    import mlflow
    import torch
    import transformers

    needed = [
        f"mlflow=={mlflow.__version__}",
        f"torch=={torch.__version__.split('+')[0]}",  # 2.13.0+cpu is no version of the package index
        f"transformers=={transformers.__version__}",
    ]
    if adapted:
        import peft

        needed.append(f"peft=={peft.__version__}")
    return needed


def own_code_config(folder: Path) -> dict[str, bool] | None:
    """What can be told to a model when it is loaded: that it may run code of its own, where it has some."""
    # Only what is named here can be given then.
    return {TRUST: False} if _own_code(folder) else None


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
