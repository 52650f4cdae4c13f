"""A sentence encoder for the similarity of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, one_line, problem
from valuedrift_mlflow.models import auto

Floats = NDArray[np.float64]


def check_embedder(name: str) -> None:
    """Refuse what is no transformers encoder, by its configuration.

    Raises:
        InputError: there is none of that name, or it cannot be read.
    """
    try:
        auto.config(_source(name))
    except (OSError, ValueError) as error:
        raise _unreadable(name, error) from None


def _source(name: str) -> str:
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def _unreadable(name: str, error: Exception) -> InputError:
    allowed = "a folder or hub id of a transformers encoder"
    return InputError(problem("suite prism: embedder", name, allowed, one_line(error)))


class Encoder:
    """A transformers encoder that stays loaded: texts to the mean of its last hidden states over their tokens."""

    def __init__(self, name: str) -> None:
        """Load it from a folder or a hub id.

        Raises:
            InputError: it cannot be loaded.
        """
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = auto.tokenizer(_source(name))
            self._model = auto.encoder(_source(name), self._device)
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from None
        # Encoders of BERT's kind read 512 tokens; a tokenizer that knows no limit says 10^30.
        self._longest = min(self._tokenizer.model_max_length, 512)

    def vectors(self, texts: Sequence[str], batch_size: int = 64) -> Floats:
        """One vector for each of N texts: shape (N, D)."""
        import torch

        means: list[Floats] = []
        with torch.no_grad():
            for start in range(0, len(texts), batch_size):
                batch = self._tokenizer(
                    list(texts[start : start + batch_size]),
                    padding=True,
                    truncation=True,
                    max_length=self._longest,
                    return_tensors="pt",
                ).to(self._device)
                states = self._model(**batch).last_hidden_state  # (B, L, D)
                mask = batch["attention_mask"].unsqueeze(-1)  # (B, L, 1)
                means.append(((states * mask).sum(1) / mask.sum(1)).double().cpu().numpy())
        return np.concatenate(means)
