"""Model URIs to models: the embedded world, folders (adapters too), hub ids, MLflow models and run artifacts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.parts import import_object
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.models import auto, own
from valuedrift_mlflow.models.files import below
from valuedrift_mlflow.models.generation import Generator, TransformersGenerator
from valuedrift_mlflow.models.how import STORED, How, device
from valuedrift_mlflow.models.merging import merged
from valuedrift_mlflow.models.packaged import Packaged, pyfunc_generator
from valuedrift_mlflow.models.uris import EMBEDDED, SERVER_PREFIX, check_model, check_trainable
from valuedrift_mlflow.tracking import MLFLOW_PREFIXES

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Loaded:
    """A model in memory."""

    uri: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: Path | None = None  # that it was loaded from

    def generator(self) -> TransformersGenerator:
        """What answers prompts with this model."""
        return TransformersGenerator(self.model, self.tokenizer, self.folder)


def load_model(uri: str, how: How = STORED) -> Loaded:
    """Load a transformers model with its tokenizer; adapters are merged into their base.

    Raises:
        InputError: the URI names nothing that holds a transformers model.
    """
    check_trainable(uri, "model", how)
    if uri in EMBEDDED:
        made = cast(Loaded, _embedded("load_embedded")(uri))
        how.of_made(made.model)
        return made
    if uri.startswith(MLFLOW_PREFIXES):
        raw = _raw_model(uri, how)
        if isinstance(raw, Loaded):
            return raw
        raise InputError(
            problem("model", uri, "a model whose weights are a transformers model", "it can be evaluated only")
        )
    path = user_path(uri)
    return from_folder(uri, path if path.is_dir() else Path(uri), how)


def _embedded(name: str) -> Callable[..., object]:
    """A function of the module that trains the embedded base model.

    Training needs this room, so the module is found by name, as a part that a user brings.
    """
    return import_object(f"valuedrift_mlflow.stages.embedded_base:{name}", "model", "function")


def load_generator(uri: str, how: How = STORED) -> Generator:
    """What answers prompts for a URI: a transformers model in memory, a server, any other MLflow pyfunc, a user's own.

    ``how``: a model whose weights are loaded here.

    Raises:
        InputError: the URI names no model.
    """
    check_model(uri, how=how)
    if uri.startswith(SERVER_PREFIX):
        from valuedrift_mlflow.models.server import ChatClient, ChatGenerator, Server

        return ChatGenerator(ChatClient(Server.from_uri(uri)))
    if own.is_own(uri):
        return own.load_own(uri)
    if not uri.startswith(MLFLOW_PREFIXES):
        return load_model(uri, how).generator()
    raw = _raw_model(uri, how)
    return raw.generator() if isinstance(raw, Loaded) else pyfunc_generator(raw, uri)


def _raw_model(uri: str, how: How = STORED) -> Loaded | Packaged:
    """The transformers model of an MLflow URI where it has one, else its pyfunc."""
    with tracking.checkpoint_files(uri) as folder:
        if folder is not None:
            return from_folder(uri, folder, how)
    weights = tracking.packaged_weights(uri)
    if weights is not None:
        return from_folder(uri, weights.folder, how, tokenizer=weights.tokenizer)
    if not how.pyfunc_code:
        tracking.check_packaged(uri, "model", pyfunc_code=False)
    raw = unwrap(tracking.load_pyfunc(uri, how.own_code), uri)
    if isinstance(raw, Loaded):
        how.of_made(raw.model)
    return raw


def unwrap(pyfunc: Packaged, uri: str = "model") -> Loaded | Packaged:
    """The transformers model inside an MLflow pyfunc as ``Loaded``; the pyfunc itself where there is none.

    Raises:
        InputError: its transformers model writes no texts, such as a classifier.
    """
    try:
        raw = pyfunc.get_raw_model()
    except Exception:  # MLflow raises several kinds where a flavor has no raw model
        return pyfunc
    return in_memory(raw, uri) or pyfunc


def in_memory(raw: object, uri: str = "model") -> Loaded | None:
    """A pipeline of transformers, or a model with its tokenizer as a pair; None for anything else.

    Raises:
        InputError: a pipeline that writes no texts.
    """
    from peft import PeftModel
    from transformers import Pipeline, PreTrainedModel

    if isinstance(raw, Pipeline):
        if not raw.model.can_generate():
            found = f"{uri}: a {type(raw.model).__name__} for {raw.task}"
            raise InputError(problem("model", found, "a model that writes texts"))
        if raw.tokenizer is None or raw.model.config.is_encoder_decoder:
            return None  # it is asked as any other: here nothing is known of how it reads prompts
        raw = (raw.model, raw.tokenizer)
    # MLflow's flavor `transformers` gives a pipeline, our own packaged models a pair.
    if isinstance(raw, tuple) and len(raw) == 2 and isinstance(raw[0], PreTrainedModel | PeftModel):
        return Loaded(uri, auto.not_repacked(raw[0]), raw[1])
    return None


def whole_folder(uri: str, how: How = STORED) -> Path:
    """The folder (or the hub id) of the weights that a URI names, for trainings that read them in parts.

    Raises:
        InputError: the URI names adapters, or nothing that holds a transformers model.
    """
    check_trainable(uri, "model", how)
    if uri == "embedded:base":
        return cast(Path, _embedded("base_folder")())
    folder = user_path(uri)
    if uri.startswith(MLFLOW_PREFIXES):
        folder = tracking.model_folder(uri)
        # A packaged model has its weights deeper than a checkpoint.
        folder = next((file.parent for file in folder.rglob("config.json")), folder)
        if not (folder / "config.json").is_file():
            raise InputError(problem("model", uri, "a whole model", "merge its adapters first"))
    elif not folder.is_dir():
        folder = Path(uri)
    if (folder / "adapter_config.json").is_file() or uri.startswith("embedded:"):
        raise InputError(problem("model", uri, "a whole model in a folder", "it has adapters or is made in memory"))
    return folder


def load_tokenizer(folder: str, own_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or of a hub id, padding on the left as generation needs it."""
    from transformers import AutoTokenizer

    name, revision = auto.named(folder)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        name, padding_side="left", trust_remote_code=own_code, **revision
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """A model in 4 or 8 bits (bitsandbytes) as what these stand for; any other as it is."""
    if not (getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)):
        return model
    plain: Any = model  # transformers' method has no types
    plain = plain.dequantize()
    plain._weight_conversions = None  # how its few bits were read, which saving would try to turn round
    return cast("PreTrainedModel", plain)


def with_adapters(model: PreTrainedModel, folder: Path) -> PeftModel:
    """A model with the adapters in a folder.

    Raises:
        ValueError: the folder lacks weights of the adapters. PEFT begins those anew, at no change at all, with a mere
        warning: adapters that were saved under other names would be measured as the base below them.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        try:
            return PeftModel.from_pretrained(model, str(folder))
        except UserWarning as error:
            raise ValueError(one_line(error)) from None


def from_folder(uri: str, folder: Path, how: How = STORED, *, tokenizer: Path | None = None) -> Loaded:
    """The model in a folder (or of the hub id ``folder``), under the name ``uri``; adapters are merged.

    ``tokenizer``: its folder, where that is another one.

    Raises:
        InputError: transformers cannot load it.
    """
    import torch

    try:
        adapter = folder / "adapter_config.json"
        if adapter.is_file():
            # The URI that the stage has written there, so it may be one of MLflow too.
            base = load_model(str(below(str(folder))), how)
            # In few bits a merge would round the adapters away, unless that is what is asked for.
            plain = base.model if how.quantization else dequantized(base.model)
            model = merged(with_adapters(plain, folder))
            # PEFT froze the base below the adapter and leaves it so: a training that starts here would move nothing.
            model.requires_grad_(True)
        else:
            model = auto.causal_lm(str(folder), how)
        auto.check_finite(model)
        # Adapters saved by PEFT alone come without a tokenizer: they speak as their base does.
        without = adapter.is_file() and not (folder / "tokenizer_config.json").is_file()
        spoken = base.tokenizer if without else load_tokenizer(str(tokenizer or folder), how.own_code)
    except (torch.OutOfMemoryError, InputError):  # of the first nothing is wrong with the files
        raise
    except Exception as error:  # damaged files end in any of a dozen kinds, a pickle's among them
        own = "" if how.own_code else " (without code of its own: trust_remote_code is not true)"
        allowed = f"a folder or hub id of a causal language model that transformers can load{own}"
        raise InputError(problem("model", uri, allowed, one_line(error))) from error
    if not getattr(model, "is_quantized", False):  # which stays where it was loaded
        model = model.to(device())  # type: ignore[arg-type]  # of transformers' decorated method
    return Loaded(uri, model.eval(), spoken, folder)
