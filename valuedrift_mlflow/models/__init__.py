"""Language models: their URIs, how they are loaded, and how they answer prompts (in memory, or on a server)."""

from valuedrift_mlflow.models.how import How, check_how, device
from valuedrift_mlflow.models.loading import (
    Loaded,
    dequantized,
    in_memory,
    load_generator,
    load_model,
    load_tokenizer,
    unwrap,
    whole_folder,
)
from valuedrift_mlflow.models.own import is_own
from valuedrift_mlflow.models.packaged import pyfunc_generator
from valuedrift_mlflow.models.swapping import Swapping
from valuedrift_mlflow.models.uris import EMBEDDED, SERVER_PREFIX, check_model, check_trainable, short_name

__all__ = [
    "EMBEDDED",
    "SERVER_PREFIX",
    "How",
    "Loaded",
    "Swapping",
    "check_how",
    "check_model",
    "check_trainable",
    "dequantized",
    "device",
    "in_memory",
    "is_own",
    "load_generator",
    "load_model",
    "load_tokenizer",
    "pyfunc_generator",
    "short_name",
    "unwrap",
    "whole_folder",
]
