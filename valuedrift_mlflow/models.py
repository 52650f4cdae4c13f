"""Model URIs to models: the embedded world, folders (adapters too), hub ids, MLflow models and run artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import tracking
from valuedrift_mlflow.embedded import world
from valuedrift_mlflow.generation import FunctionGenerator, Generator, TransformersGenerator
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.recipe import load as load_recipe
from valuedrift_mlflow.stages.stage import Stage
from valuedrift_mlflow.tracking import MLFLOW_PREFIXES

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

EMBEDDED = ("embedded:base", "embedded:random")
SERVER_PREFIX = "openai:/"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
BASE_THREADS = 2  # fixed, because sums in another order would give another model


@dataclass
class Loaded:
    """A model in memory."""

    uri: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def generator(self) -> TransformersGenerator:
        """What answers prompts with this model."""
        return TransformersGenerator(self.model, self.tokenizer)


def short_name(uri: str) -> str:
    """A model's name as run names show it."""
    if uri.startswith(("embedded:", *MLFLOW_PREFIXES)):
        return uri.removeprefix("models:/")
    return Path(uri.partition("?")[0]).name or uri


def check(uri: str, field: str = "model") -> None:
    """Everything that can be said of a model URI without loading the model.

    Raises:
        InputError: an unknown embedded model, a missing folder, a registered model or run that is not in the tracking
        store, a server without an address or key.
    """
    forms = "a folder", "a hub id", "models:/NAME/VERSION", "models:/NAME@ALIAS", "runs:/RUN_ID/PATH", "openai:/MODEL"
    allowed = ", ".join((*EMBEDDED, *forms))
    if uri.startswith(SERVER_PREFIX):
        from valuedrift_mlflow.chat import Server

        Server.from_uri(uri)
    elif uri.startswith("embedded:"):
        if uri not in EMBEDDED:
            raise InputError(problem(field, uri, ", ".join(EMBEDDED)))
    elif uri.startswith(MLFLOW_PREFIXES):
        tracking.check_model(uri, field)
    elif Path(uri).expanduser().is_dir():
        if not any((Path(uri).expanduser() / name).is_file() for name in ("config.json", "adapter_config.json")):
            raise InputError(problem(field, uri, "a folder that holds a model (config.json or adapter_config.json)"))
    elif uri.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(uri):
        raise InputError(problem(field, uri, allowed))


def check_trainable(uri: str, field: str) -> None:
    """As ``check``, for a model that is to be trained.

    Raises:
        InputError: as ``check``, and for a model on a server.
    """
    check(uri, field)
    if uri.startswith(SERVER_PREFIX):
        raise InputError(problem(field, uri, "a model whose weights can be loaded", "it can be evaluated only"))


def load(uri: str) -> Loaded:
    """Load a transformers model with its tokenizer; adapters are merged into their base.

    Raises:
        InputError: the URI names nothing that holds a transformers model.
    """
    check_trainable(uri, "model")
    if uri == "embedded:random":
        return Loaded(uri, *_random())
    if uri == "embedded:base":
        return _from_folder(uri, base_folder())
    if uri.startswith(MLFLOW_PREFIXES):
        raw = _raw_model(uri)
        if isinstance(raw, Loaded):
            return raw
        raise InputError(
            problem("model", uri, "a model whose weights are a transformers model", "it can be evaluated only")
        )
    path = Path(uri).expanduser()
    return _from_folder(uri, path if path.is_dir() else Path(uri))


def load_generator(uri: str) -> Generator:
    """What answers prompts for a URI: a transformers model in memory, a server, or any other MLflow pyfunc.

    Raises:
        InputError: the URI names no model.
    """
    check(uri)
    if uri.startswith(SERVER_PREFIX):
        from valuedrift_mlflow.chat import ChatClient, ChatGenerator, Server

        return ChatGenerator(ChatClient(Server.from_uri(uri)))
    if not uri.startswith(MLFLOW_PREFIXES):
        return load(uri).generator()
    raw = _raw_model(uri)
    return raw.generator() if isinstance(raw, Loaded) else pyfunc_generator(raw)


def _raw_model(uri: str) -> Any:
    """The transformers model of an MLflow URI where it has one, else its pyfunc."""
    folder = tracking.checkpoint_folder(uri)
    if folder is not None:
        return _from_folder(uri, folder)
    return unwrap(tracking.load_pyfunc(uri), uri)


def unwrap(pyfunc: Any, uri: str = "model") -> Any:
    """The transformers model inside an MLflow pyfunc as ``Loaded``; the pyfunc itself where there is none."""
    from transformers import Pipeline, PreTrainedModel

    try:
        raw = pyfunc.get_raw_model()
    except Exception:  # MLflow raises several kinds where a flavor has no raw model
        return pyfunc
    if isinstance(raw, Pipeline):
        raw = (raw.model, raw.tokenizer)
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], PreTrainedModel):
        return Loaded(uri, raw[0], raw[1])
    return pyfunc


def pyfunc_generator(pyfunc: Any) -> FunctionGenerator:
    """Asks any MLflow pyfunc or function on a table with one column ``prompt``; reads its first output column."""
    import pandas as pd

    predict = getattr(pyfunc, "predict", pyfunc)

    def answer(prompts: list[str]) -> Sequence[str]:
        output = predict(pd.DataFrame({"prompt": prompts}))
        if isinstance(output, pd.DataFrame):
            output = output.iloc[:, 0]
        return [str(text) for text in output]

    return FunctionGenerator(answer)


def whole_folder(uri: str) -> Path:
    """The folder (or the hub id) of the weights that a URI names, for trainings that read them in parts.

    Raises:
        InputError: the URI names adapters, or nothing that holds a transformers model.
    """
    check_trainable(uri, "model")
    if uri == "embedded:base":
        return base_folder()
    folder = Path(uri).expanduser()
    if uri.startswith(MLFLOW_PREFIXES):
        folder = tracking.model_folder(uri)
        folder = next((file.parent for file in folder.rglob("config.json")), folder)
        if not (folder / "config.json").is_file():
            raise InputError(problem("model", uri, "a whole model", "merge its adapters first"))
    elif not folder.is_dir():
        folder = Path(uri)
    if (folder / "adapter_config.json").is_file() or uri.startswith("embedded:"):
        raise InputError(problem("model", uri, "a whole model in a folder", "it has adapters or is made in memory"))
    return folder


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id, padding on the left as generation needs it."""
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _from_folder(uri: str, folder: Path) -> Loaded:
    from transformers import AutoModelForCausalLM

    auto_model: Any = AutoModelForCausalLM  # its methods carry no usable types
    try:
        adapter = folder / "adapter_config.json"
        if adapter.is_file():
            from peft import PeftModel

            base = load(str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]))
            with_adapter: Any = PeftModel.from_pretrained(base.model, str(folder))
            model = with_adapter.merge_and_unload()
        else:
            model = auto_model.from_pretrained(str(folder), dtype="auto")
        tokenizer = load_tokenizer(str(folder))
    except (OSError, ValueError) as error:
        allowed = "a folder or hub id that transformers can load"
        raise InputError(problem("model", uri, allowed, one_line(error))) from error
    return Loaded(uri, model.to(device()).eval(), tokenizer)


def device() -> str:
    """Where a model that answers or rates is put: the GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _random() -> tuple[Any, Any]:
    from valuedrift_mlflow.embedded import corpus

    texts = (message["content"] for row in corpus.rows(base_stage().data.uri) for message in row["messages"])
    tokenizer = world.train_tokenizer(texts)
    return world.random_model(tokenizer).eval(), tokenizer


def base_stage() -> Stage:
    """How the embedded base model is trained: the stage of the recipe ``pretrain``."""
    return load_recipe("pretrain").stages[0]


def base_folder(callbacks: Sequence[TrainerCallback] = ()) -> Path:
    """The folder of the trained embedded base model: from the user's cache, or trained now."""

    def build(folder: Path) -> None:
        import torch

        model, tokenizer = _random()
        threads = torch.get_num_threads()
        torch.set_num_threads(BASE_THREADS)
        try:
            pretrain(model, tokenizer, folder, callbacks)
        finally:
            torch.set_num_threads(threads)

    # Neither how many processes other stages have, nor what dry runs are told, nor how other data are read changes the
    # weights.
    unrelated: Any = {"launch": True, "data": {"rows", "subset", "on_bad_row"}}
    settings = base_stage().model_dump(mode="json", exclude=unrelated)
    return world.cached("base", settings, build)


def pretrain(model: Any, tokenizer: Any, folder: Path, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train the embedded base model on its corpus and save it to ``folder``."""
    from valuedrift_mlflow import datasets
    from valuedrift_mlflow.stages.job import Job, build_trainer

    stage = base_stage()
    data = datasets.load(stage.data, "sft")
    trainer = build_trainer(Job(stage, model, tokenizer, data, folder, world.SEED, callbacks))
    trainer.train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
