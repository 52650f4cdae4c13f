"""Tells which texts are like those the judge is fitted on, so that what is unlike them stays unscored, with a reason.

How a text is written (length, sentences, marks, names, pronouns, words of the proposition) is compared with the answers
the weighing is fitted on: the squared Mahalanobis distance. No text of another kind is needed to fit it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical.declared import content, parts
from valuedrift_mlflow.judges.lexical.polarity import known_propositions
from valuedrift_mlflow.judges.lexical.reader import Learnt, learnt
from valuedrift_mlflow.judges.lexical.tokens import class_of, normalise
from valuedrift_mlflow.stances import Answer

LONGEST = 90
# Below this probability of the best stance (given that there is one) the judge does not tell: the highest at which it
# still scores four in five of the written answers it is fitted on, each writer's read without them.
MINIMUM_PROBABILITY = 0.52
# The further a text is from the fitted ones the surer the weighing has to be: so much more for each unit of distance
# beyond the one within which four in five of them lie, up to the last number. A short answer of somebody who speaks
# ("Yes.") is unlike them only in being short.
_DOUBT, _SAME, _MOST = 0.01, 20.0, 0.93
# An answer of so few words may be a plain statement, which is read whatever its style.
_SHORT, _KNOWN = 45, 70
_NAMED = 0.8
_BRIEF, _OPENING = 8, 3
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

    Numbers for the distance, whether it may be a plain statement that is read whatever the distance, whether somebody
    speaks in it, and whether it is short enough to be read so where the proposition is one of the suite's.
    """

    style: NDArray[np.float64]
    plain: bool
    speaks: bool
    short: bool


_content = lru_cache(maxsize=4_096)(content)  # of propositions: they come again and again


def shape(answer: Answer) -> Shape:
    """The shape of a response; a text without words counts as one word."""
    response = answer.response
    text = normalise(response)
    words = _WORD.findall(text) or ["x"]
    count = len(words)
    sentences = parts(response)
    own, said = _content(answer.proposition), content(text)
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
    return Shape(np.array(numbers), stated and count <= _SHORT and not posted, speaks, count <= _KNOWN and not posted)


def distance(style: NDArray[np.float64], fitted: Learnt) -> float:
    """The squared distance of a style from those that the weighing is fitted on."""
    scaled = (style - fitted["near.mean"]) / fitted["near.spread"]
    return float(scaled @ fitted["near.inverse"] @ scaled)


def reach(answer: Answer) -> tuple[str, float]:
    """Why a response cannot be weighed (empty where it can), and how likely its best stance must be, in [0, 1]."""
    if not answer.proposition.strip():
        return NO_PROPOSITION, 1.0
    if len(answer.response.split()) > LONGEST:
        return LONG, 1.0
    found = shape(answer)
    known = found.short and answer.proposition in known_propositions()
    if known or (found.plain and found.speaks):
        return "", MINIMUM_PROBABILITY
    away = distance(found.style, learnt())
    if not found.plain and away > learnt()["near.furthest"][int(found.speaks)]:
        return UNLIKE, 1.0
    return "", min(_MOST, MINIMUM_PROBABILITY + _DOUBT * max(0.0, away - _SAME))


def limits() -> tuple[float, ...]:
    """The numbers that decide what is weighed."""
    return MINIMUM_PROBABILITY, _DOUBT, _SAME, _MOST, LONGEST, _SHORT, _KNOWN, _NAMED, _BRIEF, _OPENING
