"""What tells the model that a training starts from, from another one that has come to stand under its URI since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from valuedrift_mlflow import tracking
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.models.files import below, commit_of

# Weights, configuration, tokenizer and chat template; of a logged model not what MLflow adds, which has times and ids.
_READ = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".model")


def fingerprint(uri: str) -> str:
    """What a model is at this moment, without loading it; empty of what its URI alone decides or nothing here tells.

    A hash of the files of a folder (and of what adapters in it lie on), the commit of a model of the hub that is in
    the cache, the model that a name and an alias or a version stand for with the hash of its files where they lie here.
    """
    if uri.startswith(tracking.MLFLOW_PREFIXES):
        pinned = tracking.pinned(uri)
        named = [] if pinned == uri else [pinned]
        if tracking.lies_here(pinned):
            named.append(_of(tracking.model_folder(pinned).rglob("*")))
        return " ".join(named)
    folder = user_path(uri, "model")
    if not folder.is_dir():
        return commit_of(uri) or ""
    base = below(str(folder))
    return " ".join(filter(None, (_of(folder.iterdir()), fingerprint(base) if base else "")))


def _of(files: Iterable[Path]) -> str:
    """A hash of names and contents of what is read of a model; where it lies changes nothing."""
    digest = hashlib.sha256()
    for file in sorted((file for file in files if file.suffix in _READ and file.is_file()), key=lambda file: file.name):
        with file.open("rb") as opened:
            digest.update(f"{file.name}\x1f{hashlib.file_digest(opened, 'sha256').hexdigest()}\x1f".encode())
    return f"sha256:{digest.hexdigest()[:32]}"
