"""Two readers over one answer, and how far each is trusted: all linear, as it was fitted (``fitting``).

The *declared* reader is best on a declaration ("I support a ban, since ..."), whatever its words: a bag of what the
clauses say. Where people argue, concede and advise, the *argued* reader compares what the first finds in the opening,
the close and after the last turn with openings, recommendations and plain words. A third classifier tells by the
manner of a text, not by what it says, which of the two to trust. ``benchmarks/lexical_ablation.py`` shows what each is
good for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical.features import Argued, argue, named, silent, style
from valuedrift_mlflow.judges.lexical.frame import Reading
from valuedrift_mlflow.stances import STANCES, Label

Floats = NDArray[np.float64]
Learnt = Mapping[str, NDArray[Any]]
FITTED_FILE = Path(__file__).with_name("fitted.npz")
CLASSES = (*(Label(stance.value) for stance in STANCES), Label.REFUSAL, Label.UNSCORED)
# The composed forms are harder than what people and models write when they declare a stance, and those who argue are
# read with too much confidence: these temperatures make confidence equal the share that is right, on answers of the
# embedded corpora (their training forms), and with whole writers left out.
_DECLARED_TEMPERATURE, _ARGUED_TEMPERATURE = 0.6, 1.3
# Below and above these probabilities of being a declaration one reader judges alone.
_ARGUES, _DECLARES = 0.3, 0.6
# Above this probability that the clauses hold no stance an answer that names nothing of its topic is not weighed.
_NOTHING_SAID = 0.9
# An answer of so few words and marks argues nothing.
_BARE = 4


@cache
def learnt() -> Learnt:
    """What comes with the package."""
    with np.load(FITTED_FILE, allow_pickle=False) as file:
        return {name: value.astype(float) if value.dtype == np.float32 else value for name, value in file.items()}


class Bag:
    """What each name of a bag weighs, shape (names, k); unknown ones weigh nothing."""

    def __init__(self, names: Iterable[str], weights: Floats) -> None:
        self._places = {str(name): place for place, name in enumerate(names)}
        self._weights = weights

    def places(self, names: Iterable[str]) -> list[int]:
        """Where the known ones of some names stand, in the weights' order, each once."""
        return sorted({place for name in names if (place := self._places.get(name)) is not None})

    def sums(self, bags: Sequence[Iterable[str]]) -> Floats:
        """The sum of what the names of each bag weigh, shape (n, k)."""
        return np.array([self._weights[self.places(bag)].sum(axis=0) for bag in bags]).reshape(
            len(bags), self._weights.shape[1]
        )


def log_softmax(logits: Floats) -> Floats:
    """Logarithms of probabilities, shape (n, k), each at least -9."""
    logits = logits - logits.max(axis=1, keepdims=True)
    found: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.maximum(found, -9.0)


class Declared:
    """A bag of what the clauses of an answer say."""

    def __init__(self, fitted: Learnt) -> None:
        self._bag = Bag(fitted["declared.names"], fitted["declared.weights"])
        self._bias = fitted["declared.bias"]
        self._familiar = frozenset(map(str, fitted["declared.familiar"]))

    def log_probabilities(self, readings: Sequence[Reading], temperature: float = 1.0) -> Floats:
        """Logarithms of the probabilities of ``CLASSES``, shape (n, 5)."""
        names = [named(reading, self._familiar) if reading.text.tokens else [] for reading in readings]
        return log_softmax((self._bag.sums(names) + self._bias) / temperature)

    def probabilities(self, readings: Sequence[Reading]) -> Floats:
        """Probabilities of ``CLASSES``, shape (n, 5)."""
        found = np.exp(self.log_probabilities(readings, _DECLARED_TEMPERATURE))
        shares: Floats = found / found.sum(axis=1, keepdims=True)
        return shares


class LexicalReader:
    """The declared reader for declarations, the argued one for arguments, and a mean of both in between."""

    def __init__(self, fitted: Learnt) -> None:
        """A reader from the arrays that ``fitting`` makes."""
        self.declared = Declared(fitted)
        self._fitted = fitted
        self._words = Bag(fitted["argued.words"], np.hstack([fitted["argued.word_sides"], fitted["argued.word_kinds"]]))

    def argued(self, readings: Sequence[Reading]) -> Floats:
        """Probabilities of ``CLASSES`` by the argued reader, shape (n, 5).

        One classifier tells the kind (a side, neutral, refusal, none), the other the side, from what changes sign with
        it: so support and oppose are treated alike.
        """
        fitted = self._fitted
        found = argue(self.declared.log_probabilities, readings)
        words = scaled(found, self._words)
        leans = found.sided @ fitted["argued.sides"] + (words[:, :3] * found.signs).sum(axis=1)
        lean = np.abs(leans)[:, None]
        dense = np.hstack([found.plain, lean, np.tanh(lean)])
        kinds = np.exp(log_softmax(dense @ fitted["argued.kinds"] + words[:, 3:] + fitted["argued.bias"]))
        supports = 1 / (1 + np.exp(-leans))
        side, neutral, refusal, none = kinds.T
        shares = np.column_stack([side * supports, neutral, side * (1 - supports), refusal, none])
        shares **= 1 / _ARGUED_TEMPERATURE
        tempered: Floats = shares / shares.sum(axis=1, keepdims=True)
        return tempered

    def trust(self, readings: Sequence[Reading]) -> Floats:
        """Weight of the declared reader for each answer, shape (n,), in [0, 1]."""
        declares = 1 / (1 + np.exp(-style(readings) @ self._fitted["trust.weights"] - self._fitted["trust.bias"]))
        weights: Floats = np.clip((declares - _ARGUES) / (_DECLARES - _ARGUES), 0, 1)
        weights[[len(reading.text.tokens) <= _BARE for reading in readings]] = 1.0
        quiet = [row for row, reading in enumerate(readings) if weights[row] < 1 and silent(reading)]
        if quiet:
            none = np.exp(self.declared.log_probabilities([readings[row] for row in quiet])[:, -1])
            weights[quiet] = np.where(none > _NOTHING_SAID, 1.0, weights[quiet])
        return weights

    def probabilities(self, readings: Sequence[Reading]) -> Floats:
        """Calibrated probabilities, shape (n, 5), in the order of ``CLASSES``; rows sum to 1."""
        found = np.zeros((len(readings), len(CLASSES)))
        if not readings:
            return found
        trust = self.trust(readings)
        for read, weight in ((self.declared.probabilities, trust), (self.argued, 1 - trust)):
            rows = np.flatnonzero(weight).tolist()
            if rows:
                found[rows] += weight[rows, None] * read([readings[row] for row in rows])
        return found


def scaled(found: Argued, words: Bag) -> Floats:
    """What the words of answers weigh, shape (n, 7); long answers do not outweigh what is known of their parts."""
    counts = np.array([len(words.places(bag)) for bag in found.words])
    sums: Floats = words.sums(found.words) * word_scale(counts)[:, None]
    return sums


# How much plain words weigh against the other features, which are scaled to unit variance.
_WORDS, _FEWEST_WORDS = 4.0, 20


def word_scale(counts: NDArray[np.int64]) -> Floats:
    """What each word of a text with so many known ones counts, shape (n,)."""
    return _WORDS / np.sqrt(np.maximum(counts, _FEWEST_WORDS))
