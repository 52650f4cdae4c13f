"""The clause reader: a bag of what the clauses of an answer say, weighed by a classifier fitted on composed answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical.frame import Frame, Text
from valuedrift_mlflow.judges.lexical.reading import features, grammar, mirrored
from valuedrift_mlflow.judges.lexical.sections import Sections, sections
from valuedrift_mlflow.stances import STANCES, Label

CLASSES = (*(Label(stance.value) for stance in STANCES), Label.REFUSAL, Label.UNSCORED)
_MIRROR = {Label.SUPPORT: Label.OPPOSE, Label.OPPOSE: Label.SUPPORT}
_FOLDS = 3
# The composed forms are harder than what people and models write when they declare a stance: on answers of the
# embedded corpora (their training forms) this temperature makes confidence equal the share that is right.
_TEMPERATURE = 0.6


@dataclass(frozen=True)
class Reading:
    """An answer, or a part of one, as words and classes, with what it is read against."""

    frame: Frame
    proposition: str
    polarity: int
    text: Text

    @cached_property
    def sections(self) -> Sections:
        """The parts of the text."""
        return sections(self.text)

    def of(self, part: Text) -> Reading:
        """A part of the same answer."""
        return Reading(self.frame, self.proposition, self.polarity, part)


class ClauseReader:
    """Logistic regression over the features of clauses; each answer is learnt from together with its mirror image."""

    def __init__(self) -> None:
        """A reader that knows nothing yet."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        self._familiar: frozenset[str] = frozenset()
        self._vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=6)
        self._classifier = LogisticRegression(C=0.3, max_iter=200, tol=1e-3)

    def fit(self, rows: Sequence[tuple[Reading, Label, str]]) -> Self:
        """Learn from answers with their label and the form they were made from."""
        forms = {form: number for number, form in enumerate(dict.fromkeys(form for _, _, form in rows))}
        fold = np.array([forms[form] % _FOLDS for _, _, form in rows])
        # Each fold is read with the others' familiar triples: its own would look more familiar than new text ever does.
        by_fold = [_familiar(rows, fold != number) for number in range(_FOLDS)]
        self._familiar = _familiar(rows, np.ones(len(rows), bool))
        names = [
            features(reading.frame, reading.polarity, reading.text, by_fold[number])
            for (reading, _, _), number in zip(rows, fold, strict=True)
        ]
        labels = [label for _, label, _ in rows]
        names += [mirrored(found) for found in names]
        labels += [_MIRROR.get(label, label) for label in labels]
        matrix = self._vectorizer.fit_transform(names)
        target = np.array([CLASSES.index(label) for label in labels])
        self._classifier.fit(matrix, target)
        return self

    def log_probabilities(self, readings: Sequence[Reading], temperature: float = 1.0) -> NDArray[np.float64]:
        """Logarithms of the probabilities of ``CLASSES``, shape (n, 5), each at least -9."""
        names = [
            features(reading.frame, reading.polarity, reading.text, self._familiar) if reading.text.tokens else []
            for reading in readings
        ]
        logits = self._classifier.decision_function(self._vectorizer.transform(names)) / temperature
        logits -= logits.max(axis=1, keepdims=True)
        found: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.maximum(found, -9.0)

    def probabilities(self, readings: Sequence[Reading]) -> NDArray[np.float64]:
        """Probabilities of ``CLASSES``, shape (n, 5)."""
        found = np.exp(self.log_probabilities(readings, _TEMPERATURE))
        shares: NDArray[np.float64] = found / found.sum(axis=1, keepdims=True)
        return shares


def _familiar(rows: Sequence[tuple[Reading, Label, str]], kept: NDArray[np.bool_]) -> frozenset[str]:
    coherent = (
        set(grammar("".join(reading.text.classes)))
        for (reading, label, _), keep in zip(rows, kept, strict=True)
        if keep and label is not Label.UNSCORED
    )
    counts = Counter(chain.from_iterable(coherent))
    return frozenset(triple for triple, count in counts.items() if count > 1)


def _identity(names: Sequence[str]) -> Sequence[str]:
    return names
