"""Tells which texts are like those the judge is fitted on, so that what is unlike them stays unscored, with a reason.

How a text is written (length, sentences, marks, names, pronouns, words of the proposition) is compared with the answers
the weighing is fitted on: the squared Mahalanobis distance. No text of another kind is needed to fit it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical import kept
from valuedrift_mlflow.judges.lexical.answers import written_answers
from valuedrift_mlflow.judges.lexical.declared import content, parts
from valuedrift_mlflow.judges.lexical.tokens import class_of, normalise
from valuedrift_mlflow.stances import Answer, Label

LONGEST = 90
# Below this probability of the best stance (given that there is one) the judge does not tell: the highest at which it
# still scores four in five of the written answers it is fitted on, each writer's read without them.
MINIMUM_PROBABILITY = 0.52
# The further a text is from the fitted ones the surer the weighing has to be: so much more for each unit of distance
# beyond the one within which four in five of them lie, up to the last number. A short answer of somebody who speaks
# ("Yes.") is unlike them only in being short.
_DOUBT, _SAME, _MOST = 0.01, 20.0, 0.93
# The share of the fitted answers that is near, for who speaks as "I" or opens with a few words, and for others.
# Chosen on samples of nine train parts of sets that people labelled, so that less than a tenth of each is weighed that
# is read at chance; the coverage of the check set was looked at beside them.
_NEAR, _NEAR_OTHERS = 0.7, 0.5
# An answer of so few words may be a plain statement, which is read whatever its style.
_SHORT, _KNOWN = 45, 70
_NAMED = 0.8
_BRIEF, _OPENING = 8, 3
_SPREAD, _RIDGE = 0.003, 0.1
_WORD = re.compile(r"[^\W_]+")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]+")
_OWN = re.compile(r"\b(?:i|my|me|myself|mine)\b")
_POSTED = re.compile(r"[@#]\w|https?:|\[\w+\]")
_CODES = "IYVNRqS"

LONG = f"longer than {LONGEST} words, and no sentence agrees or disagrees with the proposition in its own words"
UNLIKE = "written unlike the answers that the judge is fitted on"
NO_PROPOSITION = "no proposition to take a stance on"
UNSURE = "no stance is likely enough"
EMPTY = "no words"
FOREIGN = "in {}, and this judge reads English"


class Shape(NamedTuple):
    """How a response is written.

    Numbers for the distance, whether it may be read whatever the distance, whether somebody speaks in it, and whether
    it is a short text on a proposition of the suite.
    """

    style: NDArray[np.float64]
    plain: bool
    speaks: bool
    known: bool


def shape(answer: Answer) -> Shape:
    """The shape of a response; a text without words counts as one word."""
    response = answer.response
    text = normalise(response)
    words = _WORD.findall(text) or ["x"]
    count = len(words)
    sentences = parts(response)
    own, said = content(answer.proposition), content(text)
    first = content(sentences[0]) if sentences else frozenset()
    codes = "".join(class_of(word)[0] for word in words)
    named = len(said & own) / max(1, len(own))
    posted = _POSTED.search(response) is not None
    numbers = [
        np.log(count),
        np.log(len(sentences) + 1),
        np.log(count / max(1, len(sentences))),
        len(set(words)) / count**0.8,
        response.count(",") / count,
        sum(map(response.count, '"\u201c\u201d')) / count,
        response.count("!") / count,
        response.count("?") / count,
        len(_NAME.findall(response)) / count,
        sum(word.isdigit() for word in words) / count,
        sum(map(len, words)) / count,
        named,
        len(first & own) / max(1, len(own)),
        float(posted),
        sum(word in ("the", "of") for word in words) / count,
        *(codes.count(code) / count for code in _CODES),
    ]
    opens = len(_WORD.findall(normalise(sentences[0]))) if sentences else 0
    speaks = opens <= _OPENING or _OWN.search(text) is not None
    stated = count <= _BRIEF or named >= _NAMED or speaks
    known = count <= _KNOWN and answer.proposition in _suite() and not posted
    return Shape(np.array(numbers), known or (stated and count <= _SHORT and not posted), speaks, known)


@lru_cache(maxsize=1)
def _suite() -> frozenset[str]:
    """The propositions whose own ways of being named the fitted questions and forms hold."""
    from valuedrift_mlflow.suite.questions import propositions

    return frozenset(proposition.text for proposition in propositions())


class Near:
    """How far texts are from those that the weighing is fitted on, by their style."""

    def __init__(self) -> None:
        """One that knows nothing yet."""
        self._mean = self._spread = self._inverse = np.ones(0)
        self._furthest = np.ones(2)

    def fit(self, styles: NDArray[np.float64]) -> Self:
        """Learn from styles, shape (n, s)."""
        self._mean, self._spread = styles.mean(axis=0), styles.std(axis=0) + _SPREAD
        scaled = (styles - self._mean) / self._spread
        self._inverse = np.linalg.inv(np.cov(scaled.T) + _RIDGE * np.eye(styles.shape[1])).astype(np.float64)
        self._furthest = np.quantile([self._distance(row) for row in scaled], (_NEAR_OTHERS, _NEAR))
        return self

    def distance(self, found: Shape) -> tuple[float, bool]:
        """The squared distance of a text, and whether that is near for one in which somebody speaks, or nobody."""
        distance = self._distance((found.style - self._mean) / self._spread)
        return distance, distance <= self._furthest[int(found.speaks)]

    def _distance(self, scaled: NDArray[np.float64]) -> float:
        return float(scaled @ self._inverse @ scaled)


def fitted_styles() -> NDArray[np.float64]:
    """The styles of the answers that the weighing is fitted on."""
    return np.array([shape(row.answer).style for row in written_answers() if row.label is not Label.UNSCORED])


@lru_cache(maxsize=1)
def _near() -> Near:
    return kept.load(Near(), "near")


def reach(answer: Answer) -> tuple[str, float]:
    """Why a response cannot be weighed (empty where it can), and how likely its best stance must be, in [0, 1]."""
    if not answer.proposition.strip():
        return NO_PROPOSITION, 1.0
    if len(answer.response.split()) > LONGEST:
        return LONG, 1.0
    found = shape(answer)
    if found.known or (found.plain and found.speaks):
        return "", MINIMUM_PROBABILITY
    distance, near = _near().distance(found)
    if not found.plain and not near:
        return UNLIKE, 1.0
    return "", min(_MOST, MINIMUM_PROBABILITY + _DOUBT * max(0.0, distance - _SAME))


def limits() -> tuple[float, ...]:
    """The numbers that decide what is weighed."""
    return (
        MINIMUM_PROBABILITY,
        _DOUBT,
        _SAME,
        _MOST,
        LONGEST,
        _NEAR,
        _NEAR_OTHERS,
        _SHORT,
        _KNOWN,
        _NAMED,
        _BRIEF,
        _OPENING,
        _SPREAD,
        _RIDGE,
    )
