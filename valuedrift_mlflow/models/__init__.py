"""Language models: their URIs, how they are loaded, and how they answer prompts (in memory, or on a server)."""

from valuedrift_mlflow.models.loading import (
    Loaded,
    device,
    load,
    load_generator,
    load_tokenizer,
    pyfunc_generator,
    unwrap,
    whole_folder,
)
from valuedrift_mlflow.models.uris import EMBEDDED, SERVER_PREFIX, check, check_trainable, short_name

__all__ = [
    "EMBEDDED",
    "SERVER_PREFIX",
    "Loaded",
    "check",
    "check_trainable",
    "device",
    "load",
    "load_generator",
    "load_tokenizer",
    "pyfunc_generator",
    "short_name",
    "unwrap",
    "whole_folder",
]
