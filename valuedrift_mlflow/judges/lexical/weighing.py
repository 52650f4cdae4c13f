"""Weighs what was read in the parts of an answer, and what else speaks for a side, into probabilities.

Two readers share the work. The clause reader is best on a declaration ("I support a ban, since ..."), whatever its
words. Where people argue, concede and advise, the weighing reader compares what the clause reader finds in the
opening, the close and after the last turn with openings, recommendations and plain words, as it has learnt from
answers in the style of assistants. A third classifier tells by the manner of a text, not by what it says, which of
the two to trust. ``benchmarks/lexical_ablation.py`` shows what each is good for: without the openings and
recommendations the sets are read alike, and short answers ("Bad. One glitch and a family is gone.") turned round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical import cues
from valuedrift_mlflow.judges.lexical.clause_reader import CLASSES, ClauseReader, Reading
from valuedrift_mlflow.judges.lexical.frame import Text
from valuedrift_mlflow.judges.lexical.sections import Sections
from valuedrift_mlflow.stances import Label

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
# Below and above these probabilities of being a declaration one reader judges alone.
_ARGUED, _DECLARED = 0.3, 0.6
# Above this probability that the clauses hold no stance an answer that names nothing of its topic is not weighed.
_NOTHING_SAID = 0.9
# An answer of so few words and marks argues nothing.
_BARE = 4
_NONE = CLASSES.index(Label.UNSCORED)
# The first of the leanings tell that somebody answers or advises.
_SPOKEN = 9
_FOLDS = 3
# With whole writers left out of the fit, this temperature makes confidence equal the share that is right.
_TEMPERATURE = 1.3
_FURTHEST = 5.0
# How much plain words weigh against the other features, which are scaled to unit variance.
_WORDS = 4.0
# The kind of an answer shows in its words ("depends", "sorry") more than its side does.
_WORDS_OF_KIND = 2.0
_FEWEST_WORDS = 20


def manner(reading: Reading) -> list[float]:
    """How a text is written, whatever it says: its length, its words of the topic, its hedges, camps and turns."""
    text, parts = reading.text, reading.sections
    codes = "".join(text.classes)
    words = max(len(codes) - codes.count(",") - codes.count("."), 1)
    sentences = max(len(parts.sentences), 1)
    about = sum(any(topical in classes for classes in part.classes for topical in "Xx#") for part in parts.sentences)
    return [
        float(np.log(sentences)),
        float(np.log(words)),
        about / sentences,
        min(codes.count("X"), 6),
        min(10 * codes.count("X") / words, 4),
        sum(map(codes.count, "otquV&R")) / words,
        codes.count("w") / words,
        codes.count("z") / words,
        10 * codes.count("I") / words,
        min(codes.count("?"), 3),
        min(sum(map(codes.count, "UBK<>O")), 6),
        sum(map(codes.count, "Cc/")) / sentences,
        float(sum(map(codes.count, "<>O")) > 1),
        10 * sum(token.isdecimal() for token in text.tokens) / words,
        float(bool(parts.sentences) and "I" in parts.sentences[-1].classes),
        float(bool(parts.turned.tokens)),
        len(set(text.tokens)) / max(len(text.tokens), 1),
    ]


# Classes of words whose shares tell how a text is written.
_STYLE = np.frombuffer(b"AaGgPQ^v+-NkESIYRTDUBKOHMCcZbiVt&WFfnsp#Xxwzo,.?", dtype=np.uint8)
_ASCII = 128


def style(readings: Sequence[Reading]) -> Floats:
    """How texts are written, shape (n, s): the share of each class of words, their length, and how varied they are."""
    rows = []
    for reading in readings:
        codes = "".join(reading.text.classes).encode("ascii", "replace")
        tokens = reading.text.tokens
        counts = np.bincount(np.frombuffer(codes, dtype=np.uint8), minlength=_ASCII)[_STYLE]
        shares = np.minimum(counts / max(len(codes), 1), 0.3)
        ends = 1 + codes.count(b".") + codes.count(b"?")
        varied = len(set(tokens)) / max(len(tokens), 1)
        rows.append(np.append(shares, (np.log1p(len(tokens)), np.log(ends), varied)))
    return np.array(rows, dtype=np.float64)


def _clipped(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


def leanings(reading: Reading) -> list[float]:
    """What speaks for (positive) or against the proposition beyond the clauses, see ``lexical_cues``."""
    parts = reading.sections.sentences or [reading.text]
    direction, polarity = reading.frame.direction, reading.polarity
    said = [cues.spoken(part) for part in parts]
    opening = cues.opening(said[0])
    advice = [cues.closing(sentence) for sentence in said]
    sides = [cues.taken(sentence) for sentence in said]
    echoes = [cues.echoes(reading.proposition, part) for part in parts]
    worth = [_count(part, "+") - _count(part, "-") for part in parts]
    allowing = [_count(part, "P") - _count(part, "Q") for part in parts]
    first, last, total = (
        _clipped(worth[0], 2),
        _clipped(worth[-1], 2),
        _clipped(sum(worth), 3),
    )
    return [
        *(sign * polarity for sign in opening),
        advice[-1] * polarity,
        advice[-1],
        advice[-1] * direction,
        sum(advice[-2:]) * polarity,
        sum(sides[-2:]) * polarity,
        _clipped(sum(sides), 2) * polarity,
        echoes[0][0],
        echoes[-1][0],
        _clipped(sum(sign for sign, _ in echoes), 1),
        _clipped(echoes[-1][1], 2),
        _clipped(sum(named for _, named in echoes), 2),
        _clipped(echoes[0][1], 2),
        first * direction,
        first * polarity,
        last * direction,
        last,
        last * polarity,
        total * direction,
        total,
        total * polarity,
        _clipped(allowing[-1], 2) * direction,
        _clipped(sum(allowing), 3) * direction,
    ]


def _count(part: Text, code: str) -> int:
    return sum(code in classes for classes in part.classes)


class Weighed(NamedTuple):
    """Features of n answers: those that take a side (n, a), those that take none (n, b), words, and signs (n, 2).

    The signs are the direction of the proposition towards its object and the polarity of the prompt.
    """

    sided: Floats
    plain: Floats
    words: list[list[str]]
    signs: Floats


def weigh(reader: ClauseReader, readings: Sequence[Reading]) -> Weighed:
    """The features of answers, read by an already fitted clause reader."""
    asked: list[Reading] = []
    places: list[tuple[list[int], list[int]]] = []
    for reading in readings:
        parts = _parts(reading.sections, reading.text)
        at: dict[int, int] = {}
        for part in (*parts[0], *parts[1]):
            if part.tokens and id(part) not in at:
                at[id(part)] = len(asked)
                asked.append(reading.of(part))
        places.append(
            (
                [at.get(id(part), -1) for part in parts[0]],
                [at[id(part)] for part in parts[1] if part.tokens],
            )
        )
    log_odds = reader.log_probabilities(asked) if asked else np.zeros((0, len(CLASSES)))
    shares = np.exp(log_odds)
    leads = np.clip(log_odds[:, 0] - log_odds[:, 2], -_FURTHEST, _FURTHEST)
    leans = shares[:, 0] - shares[:, 2]
    sided, plain = [], []
    for reading, (main, sentences) in zip(readings, places, strict=True):
        hand = leanings(reading)
        ours: list[float] = []
        none: list[float] = []
        for place in main:
            if place < 0:
                ours += [0.0, 0.0]
                none += [0.0] * 6
            else:
                ours += [leads[place], leans[place]]
                none += [
                    abs(leads[place]),
                    abs(leans[place]),
                    *shares[place, [1, 3, 4]],
                    1.0,
                ]
        lean = leans[sentences] if sentences else np.zeros(1)
        kinds = shares[sentences] if sentences else np.zeros((1, len(CLASSES)))
        ours += [
            _clipped(lean.sum(), 3),
            lean[np.argmax(np.abs(lean))],
            np.tanh(2 * lean).mean(),
            _clipped(float(lean @ np.linspace(0.5, 1, len(lean))), 3),
        ]
        none += [
            abs(_clipped(lean.sum(), 3)),
            np.abs(lean).max(),
            lean.max() - lean.min(),
            *kinds[:, [1, 3, 4]].max(axis=0),
        ]
        none += [kinds[:, 1].mean(), kinds[:, 4].mean(), kinds[:, 4].min()]
        sided.append(ours + hand)
        plain.append(none + manner(reading) + [abs(value) for value in hand])
    return Weighed(
        np.array(sided, dtype=np.float64),
        np.array(plain, dtype=np.float64),
        [cues.words(reading.sections.sentences) for reading in readings],
        np.array(
            [(reading.frame.direction, reading.polarity) for reading in readings],
            dtype=np.float64,
        ),
    )


def _parts(sections: Sections, text: Text) -> tuple[tuple[Text, ...], list[Text]]:
    """Whole, first, last, what follows the last turn and the last of one's own; and all sentences."""
    sentences = sections.sentences or [text]
    whole = text if len(sentences) > 1 else sentences[0]
    return (
        whole,
        sentences[0],
        sentences[-1],
        sections.turned,
        sections.own,
    ), sentences


def _side_classifier() -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.3, fit_intercept=False, solver="liblinear", tol=1e-3)


class WeighingReader:
    """Two linear classifiers: which kind of answer (one that takes a side, neutral, refusal, none), and which side.

    The side is read from features that change sign with it, so that support and oppose are treated alike.
    """

    def __init__(self, clauses: ClauseReader) -> None:
        """A reader that knows nothing yet, over a clause reader."""
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        self._clauses = clauses
        self._vectorizer = CountVectorizer(analyzer=_identity, binary=True, min_df=3, dtype=np.float64)
        self._scale = self._mean = self._spread = np.ones(0)
        self.side = _side_classifier()
        self.kind = LogisticRegression(C=0.3, max_iter=300, tol=1e-3)

    def fit(self, readings: Sequence[Reading], labels: Sequence[Label]) -> Self:
        """Learn from answers with their labels, read by a clause reader that is already fitted."""
        weighed = weigh(self._clauses, readings)
        self._scale = weighed.sided.std(axis=0) + 1e-6
        self._mean, self._spread = (
            weighed.plain.mean(axis=0),
            weighed.plain.std(axis=0) + 1e-6,
        )
        words = _normalised(self._vectorizer.fit_transform(weighed.words))
        sides = self._sides(weighed, words)
        kind = np.array([_KINDS[label] for label in labels])
        supports = np.array([label is Label.SUPPORT for label in labels])
        taken = kind == 0

        # How far answers lean must be learnt from answers that the side classifier has not seen.
        fold = np.random.default_rng(0).integers(0, _FOLDS, len(kind))
        leans = np.zeros(len(kind))
        for number in range(_FOLDS):
            own = fold == number
            learnt = taken & ~own
            leans[own] = _side_classifier().fit(sides[learnt], supports[learnt]).decision_function(sides[own])
        self.side.fit(sides[taken], supports[taken])
        self.kind.fit(self._kinds(weighed, words, leans), kind)
        return self

    def probabilities(self, readings: Sequence[Reading]) -> Floats:
        """Probabilities, shape (n, 5), in the order of ``CLASSES``; rows sum to 1."""
        found = weigh(self._clauses, readings)
        words = _normalised(self._vectorizer.transform(found.words))
        leans = self.side.decision_function(self._sides(found, words))
        kinds = self.kind.predict_proba(self._kinds(found, words, leans))
        supports = 1 / (1 + np.exp(-leans))
        side, neutral, refusal, none = kinds.T
        shares = np.column_stack([side * supports, neutral, side * (1 - supports), refusal, none])
        shares **= 1 / _TEMPERATURE
        tempered: Floats = shares / shares.sum(axis=1, keepdims=True)
        return tempered

    def _sides(self, found: Weighed, words: csr_matrix) -> csr_matrix:
        """Words count as said for or against the object, the prompt and the claim: three signs, three blocks."""
        from scipy import sparse

        towards = [sparse.diags(sign) @ words for sign in found.signs.T]
        return sparse.hstack([sparse.csr_matrix(found.sided / self._scale), *towards, words]).tocsr()

    def _kinds(self, found: Weighed, words: csr_matrix, leans: Floats) -> csr_matrix:
        from scipy import sparse

        lean = np.abs(leans)[:, None]
        dense = np.hstack([(found.plain - self._mean) / self._spread, lean, np.tanh(lean)])
        return sparse.hstack([sparse.csr_matrix(dense), _WORDS_OF_KIND * words]).tocsr()


_KINDS = {
    Label.SUPPORT: 0,
    Label.OPPOSE: 0,
    Label.NEUTRAL: 1,
    Label.REFUSAL: 2,
    Label.UNSCORED: 3,
}


def _normalised(counts: csr_matrix) -> csr_matrix:
    """Words scaled so that long answers do not outweigh what is known of their parts."""
    from scipy import sparse

    length = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), _FEWEST_WORDS)
    return sparse.diags(_WORDS / np.sqrt(length)) @ counts


def _identity(names: list[str]) -> list[str]:
    return names


class LexicalReader:
    """The clause reader for declarations, the weighing reader for argued answers, and a mean of both in between."""

    def __init__(self) -> None:
        """A reader that knows nothing yet."""
        from sklearn.linear_model import LogisticRegression

        self._clauses = ClauseReader()
        self._weighing = WeighingReader(self._clauses)
        self._mean = self._spread = np.ones(0)
        self._manner = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")

    def fit(self, declared: Sequence[tuple[Reading, Label, str]], argued: Sequence[tuple[Reading, Label]]) -> Self:
        """Learn from declarations (each with the form it was made from) and from argued answers."""
        self._clauses.fit(declared)
        readings = [reading for reading, _ in argued]
        self._weighing.fit(readings, [label for _, label in argued])
        sample = [reading for reading, _, _ in declared[::4]]
        manners = style([*sample, *readings])
        self._mean, self._spread = manners.mean(axis=0), manners.std(axis=0) + 1e-6
        declares = np.repeat([True, False], [len(sample), len(readings)])
        self._manner.fit((manners - self._mean) / self._spread, declares)
        return self

    def trust(self, readings: Sequence[Reading]) -> Floats:
        """Weight of the clause reader for each answer, shape (n,), in [0, 1]."""
        manners = style(readings)
        declares = self._manner.predict_proba((manners - self._mean) / self._spread)[:, 1]
        weights: Floats = np.clip((declares - _ARGUED) / (_DECLARED - _ARGUED), 0, 1)
        weights[[len(reading.text.tokens) <= _BARE for reading in readings]] = 1.0
        silent = [row for row, reading in enumerate(readings) if weights[row] < 1 and _silent(reading)]
        if silent:
            none = np.exp(self._clauses.log_probabilities([readings[row] for row in silent])[:, _NONE])
            weights[silent] = np.where(none > _NOTHING_SAID, 1.0, weights[silent])
        return weights

    def probabilities(self, readings: Sequence[Reading]) -> Floats:
        """Calibrated probabilities, shape (n, 5), in the order of ``CLASSES``; rows sum to 1."""
        found = np.zeros((len(readings), len(CLASSES)))
        if not readings:
            return found
        trust = self.trust(readings)
        readers: tuple[tuple[ClauseReader | WeighingReader, Floats], ...] = (
            (self._clauses, trust),
            (self._weighing, 1 - trust),
        )
        for reader, weight in readers:
            rows = np.flatnonzero(weight).tolist()
            if rows:
                found[rows] += weight[rows, None] * reader.probabilities([readings[row] for row in rows])
        return found


def _silent(reading: Reading) -> bool:
    """Whether an answer names nothing of its topic, speaks in nobody's name, and neither answers nor advises."""
    codes = "".join(reading.text.classes)
    return not any(code in codes for code in "Xx#I") and not any(leanings(reading)[:_SPOKEN])
