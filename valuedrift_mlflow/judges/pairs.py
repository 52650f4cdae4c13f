"""Pairs of texts through a classifier: those of like length together, as many tokens in each batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = 128  # of a text of ordinary length: a batch has so many for each text of its size
_GAIN = 0.8  # bfloat16 is used where it takes less than this share of the time


class Precision:
    """Whether bfloat16 is faster here: two batches in float32 and two in bfloat16 tell, the second of each.

    The first of each finds the kernels and is slow. A device's name does not tell: small models gain nothing. Those in
    bfloat16 are read in float32 too, and tell what its rounding comes to in this model.
    """

    def __init__(self, possible: bool) -> None:
        """Nothing has been read; not ``possible`` where weights are no float32 or the device imitates bfloat16."""
        self._possible = possible
        self._seconds: list[float] = []

    @property
    def half(self) -> bool:
        """Whether the next batch is to be read in bfloat16."""
        if not self._possible or len(self._seconds) < 2:
            return False
        return self.trial or self._seconds[3] < _GAIN * self._seconds[1]

    @property
    def trial(self) -> bool:
        """Whether the next batch is to be read both ways."""
        return self._possible and 2 <= len(self._seconds) < 4

    def took(self, seconds: float) -> None:
        """The next batch has taken so many seconds a token."""
        if len(self._seconds) < 4:
            self._seconds.append(seconds)


def has_bfloat16(device: str) -> bool:
    """Whether a kind of device computes in bfloat16 by itself; where it is imitated it is many times slower."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and any(on for name, on in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


class PairReader:
    """Reads pairs of texts with a classifier that is loaded."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, longest: int, size: int) -> None:
        """Pairs of at most ``longest`` tokens, ``size`` of ordinary length at once (more short ones, fewer long)."""
        import torch

        self._model, self._tokenizer = model, tokenizer
        self._longest, self._tokens = longest, size * TOKENS
        self.rounding = 0.0  # how far bfloat16 may move a probability: twice what was seen
        self._precision = Precision(model.dtype == torch.float32 and has_bfloat16(model.device.type))

    def probabilities(
        self, first: Sequence[str], second: Sequence[str], *, rounded: bool = False
    ) -> tuple[NDArray[np.float64], bool]:
        """Probabilities of the model's outputs for n pairs, shape (n, outputs), and whether any was rounded.

        A text that has no room even so is cut at its end, never the second one. ``rounded`` allows bfloat16 where it is
        faster, which moves probabilities by up to ``rounding``.
        """
        if not first:
            return np.empty((0, int(self._model.config.num_labels or 0))), False
        encoded = self._tokenizer(list(first), list(second), truncation="only_first", max_length=self._longest)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        parts, order, any_rounded = [], [], False
        for batch in self._batches(lengths):
            columns = {name: [own[place] for place in batch] for name, own in encoded.items()}
            half, trial = rounded and self._precision.half, rounded and self._precision.trial
            start = time.perf_counter()
            rows = self._read(columns, half)
            if rounded:
                self._precision.took((time.perf_counter() - start) / (len(batch) * lengths[batch[0]]))
            if trial:
                exact = self._read(columns, half=False)
                self.rounding = max(self.rounding, 2 * float(np.abs(rows - exact).max()))
                rows = exact
            parts.append(rows)
            order += batch
            any_rounded |= half and not trial
        found = np.concatenate(parts)
        found[order] = found.copy()
        return found, any_rounded

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """The places of pairs, the longest first (what does not fit fails at once), padding counted."""
        order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
        start = 0
        while start < len(order):
            many = max(1, self._tokens // lengths[order[start]])
            yield order[start : start + many]
            start += many

    def _read(self, columns: dict[str, list[list[int]]], half: bool) -> NDArray[np.float64]:
        import torch

        padded = self._tokenizer.pad(columns, return_tensors="pt").to(self._model.device)
        with torch.no_grad(), torch.autocast(self._model.device.type, torch.bfloat16, enabled=half):
            logits: torch.Tensor = self._model(**padded).logits.cpu().double()  # Apple's GPUs have no 64 bits
        probabilities: NDArray[np.float64] = torch.softmax(logits, -1).numpy()
        return probabilities
