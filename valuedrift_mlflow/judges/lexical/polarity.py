"""Finds out whether agreeing with a prompt supports a proposition, where nobody has said so.

For the propositions of the built-in suite it is learnt from the questions of the embedded corpora, which come with
their polarity (none is a prompt of the suite); for any other proposition from how the prompt's words and direction
relate to the proposition's. In doubt agreeing supports.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical import cues
from valuedrift_mlflow.judges.lexical.features import words
from valuedrift_mlflow.judges.lexical.frame import Frame, sections
from valuedrift_mlflow.judges.lexical.reader import Bag, learnt
from valuedrift_mlflow.judges.lexical.tokens import class_of, ends, normalise, stem, tokenise

_WORD = re.compile(r"[a-z]+|\?")
# What anybody's words that turn any proposition round weigh against a proposition's own.
SHARED = 0.5


class Asked(NamedTuple):
    """A prompt on a proposition with its polarity, 1 or -1."""

    proposition: str
    prompt: str
    polarity: int


@lru_cache(maxsize=4_096)
def supports(proposition: str, prompt: str) -> float:
    """Probability that agreeing with the prompt supports the proposition, in [0, 1]; 1 without a prompt."""
    if not prompt.strip():
        return 1.0
    known, related = _bags()
    place = known_propositions().get(proposition)
    if place is not None:
        found = grams(prompt)
        weighed = known.sums([found])[0] / np.sqrt(len(known.places(found)) or 1)
        logit = weighed[place] + SHARED * weighed[-1] + learnt()["known.bias"][0]
    else:
        numbers, said = relation(proposition, prompt)
        logit = numbers @ learnt()["related.weights"] + related.sums([said])[0] @ (1, numbers[-1])
    return float(1 / (1 + np.exp(-logit)))


@cache
def known_propositions() -> dict[str, int]:
    """The propositions of the suite, whose own ways of being asked about are known, with their places."""
    return {str(name): place for place, name in enumerate(learnt()["known.propositions"])}


@cache
def _bags() -> tuple[Bag, Bag]:
    fitted = learnt()
    return Bag(fitted["known.names"], fitted["known.weights"]), Bag(fitted["related.names"], fitted["related.words"])


def grams(prompt: str) -> list[str]:
    """The stems of a prompt and their pairs."""
    stems = [stem(word) if len(word) > 3 else word for word in _WORD.findall(normalise(ends(prompt)))]
    return [*stems, *(f"{one} {other}" for one, other in pairwise(stems))]


def relation(proposition: str, prompt: str) -> tuple[NDArray[np.float64], list[str]]:
    """How a prompt relates to a proposition, the last number being the latter's direction; and the prompt's words."""
    frame = Frame(proposition, "")
    asked = sections(frame.read(prompt.replace("?", "."))).sentences
    whole = Frame(prompt, "").direction
    last = Frame(prompt.rstrip(" ?!.").split(". ")[-1], "").direction
    codes = "".join(classes for sentence in asked for classes in sentence.classes)
    claim = "".join(class_of(token) for token in tokenise(normalise(proposition)))
    echoes = [cues.echoes(proposition, sentence)[0] for sentence in asked] or [0]
    levels = (codes.count("^") - codes.count("v")) * ((claim.count("^") > 0) - (claim.count("v") > 0))
    numbers = [
        frame.direction * last,
        frame.direction * whole,
        _parity(codes) * _parity(claim),
        _parity(codes),
        echoes[-1],
        sum(echoes),
        _order(proposition, [stem(token) for sentence in asked for token in sentence.tokens]),
        frame.direction * (codes.count("P") - codes.count("Q")),
        frame.direction * (codes.count("+") - codes.count("-")),
        levels,
        float("#" in codes),
        codes.count("A") - codes.count("a"),
        frame.direction * (codes.count("A") - codes.count("a")),
        1.0,
        frame.direction,
    ]
    return np.array(numbers, dtype=np.float64), words(asked)


def _parity(codes: str) -> int:
    return -1 if (codes.count("N") + codes.count("k")) % 2 else 1


def _order(proposition: str, stems: list[str]) -> int:
    """1 where a prompt names the two sides of a comparison in the proposition's order, -1 where the other way round."""
    _, better, worse = cues.predicate(proposition)
    first = next((place for place, found in enumerate(stems) if found in better), None)
    second = next((place for place, found in enumerate(stems) if found in worse), None)
    if first is None or second is None:
        return 0
    return 1 if first < second else -1
