"""What the files of a model tell of it without its weights: its tokenizer, its configuration, what ends its answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.inputs.reading import json_object
from valuedrift_mlflow.models import own
from valuedrift_mlflow.models.auto import named, source
from valuedrift_mlflow.models.speech import Speech, check_arguments
from valuedrift_mlflow.models.uris import SERVER_PREFIX

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

_EMBEDDED = "embedded:"
_ADAPTERS = "adapter_config.json"


def files_of(uri: str) -> str:
    """A folder with a model's files, or its hub id. Of a model in the tracking store its weights are not fetched."""
    if not uri.startswith(tracking.MLFLOW_PREFIXES):
        return source(uri)
    folder = tracking.files_folder(uri)
    return uri if folder is None else str(folder)


def below(folder: str) -> str | None:
    """What the adapters in a folder lie on; None where there are none.

    Raises:
        InputError: they do not say.
    """
    adapters = Path(folder) / _ADAPTERS
    if not adapters.is_file():
        return None
    base = (json_object(adapters) or {}).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(problem(f"{adapters} base_model_name_or_path", base, "the model below the adapters"))
    return base


def config_of(uri: str) -> PreTrainedConfig | None:
    """The configuration in a model's own files; None where it has none or it cannot be had without the network."""
    from transformers import AutoConfig

    name, revision = named(files_of(uri))
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            name, local_files_only=True, trust_remote_code=False, **revision
        )
    except (OSError, ValueError):
        return None
    return config


def tokenizer_of(uri: str, *, local: bool = True) -> PreTrainedTokenizerBase | None:
    """A model's tokenizer, with ``local`` nothing is asked of the hub but its cache; None where it cannot be had."""
    from transformers import AutoTokenizer

    if uri.startswith((_EMBEDDED, SERVER_PREFIX)) or own.is_own(uri):
        return None
    folder = files_of(uri)
    base = below(folder)
    if base is not None and not (Path(folder) / "tokenizer_config.json").is_file():
        return tokenizer_of(base, local=local)
    auto_tokenizer: Any = AutoTokenizer
    name, revision = named(folder)
    try:
        loaded: PreTrainedTokenizerBase = auto_tokenizer.from_pretrained(
            name, local_files_only=local, trust_remote_code=False, **revision
        )
    except (OSError, ValueError):
        return None
    return loaded


def generation_config_of(uri: str) -> GenerationConfig | None:
    """By what settings a model samples where it is not told; None where it does not say, or it cannot be had here."""
    from transformers import GenerationConfig

    try:
        name, revision = named(files_of(uri))
        return GenerationConfig.from_pretrained(name, local_files_only=True, **revision)
    except (OSError, ValueError):
        return None


def commit_of(uri: str) -> str | None:
    """The commit of a model of the hub that is in the cache here; None of any other."""
    if uri.startswith((_EMBEDDED, SERVER_PREFIX)) or own.is_own(uri) or Path(files_of(uri)).is_dir():
        return None
    config = config_of(uri)
    commit = getattr(config, "_commit_hash", None)
    return str(commit) if commit else None


def check_template(uri: str, speech: Speech, *, local: bool = True) -> None:
    """Refuse arguments that a model's chat template does not read, as far as its files are at hand.

    Raises:
        InputError: with those that it reads.
    """
    if not speech.template:
        return
    if uri.startswith(_EMBEDDED):
        allowed = f"nothing for {uri}, whose chat template reads no arguments"
        raise InputError(problem("template_kwargs", ", ".join(speech.template), allowed))
    tokenizer = tokenizer_of(uri, local=local)
    if tokenizer is not None:
        check_arguments(speech.template, tokenizer)
