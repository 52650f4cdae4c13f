"""The style gap of preference pairs: what the two sides differ in besides stance.

Each figure is a mean over pairs of chosen against rejected, with a 95 % interval. The words are English.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.intervals import Estimate, mean_estimates

Floats = NDArray[np.float64]
# An apostrophe within a word is a part of it, straight or curled.
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_VARIETY_WORDS = 100  # more words repeat more: texts of any length are compared on their first hundred
_CHARACTERS = 4_000  # read of a response; its length is that of all of it
_MARKDOWN = re.compile(
    r"^ {0,3}(?:#{1,6} |[-*+] |\d{1,2}[.)] |> |```)"  # at the start of a line
    r"|\*\*\S[^*\n]*\*\*|`[^`\n]+`|\[[^\]\n]+\]\(",
    re.M,
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_HEDGES = _set(
    "about almost apparently appear appears arguably assume assuming believe can could doubt estimate estimated "
    "fairly feel generally guess hopefully imagine likely mainly may maybe might mostly normally often partly perhaps "
    "plausible possible possibly potentially presumably probable probably quite rather relatively roughly seem seemed "
    "seems sometimes somewhat suggest suggests suppose supposedly sure tend tends think typically uncertain unclear "
    "unlikely unsure usually would"
)
_POSITIVE = _set(
    "amazing appreciate awesome beautiful beneficial benefit best better brave bright caring comfortable "
    "congratulations delicious delight delightful easy effective encourage enjoy enjoyed excellent excited exciting "
    "fair fantastic favorite favourite free friendly fun generous gentle glad good grateful great happy healthy "
    "helpful honest hope hopeful important improve inspiring interesting joy kind kindness like love loved lovely "
    "lucky nice peace peaceful perfect pleasant pleased pleasure positive proud respect respectful safe smart strong "
    "success successful support thank thanks true trust useful valuable welcome well wise wonderful worthy"
)
_NEGATIVE = _set(
    "abuse afraid angry annoyed annoying anxious attack awful awkward bad bored boring break broken cheat concern "
    "concerned confused crime criminal cruel damage danger dangerous dead death depressed difficult dirty disagree "
    "disappointed disgusting dumb embarrassed evil fail failed failure fake fear fight fraud guilty hard harm harmful "
    "hate hated horrible hurt hurtful ignorant illegal immoral insult kill lazy lie lonely lose loss mad mean murder "
    "nasty negative offensive pain painful poison poor problem problems racist rude sad scared sick sorry stole "
    "stupid suffer terrible terrified threat toxic trouble ugly unethical unfair unfortunate unfortunately unhappy "
    "unhealthy unsafe upset violence violent weak worried worse worst wrong"
)
FIGURES = ("length_ratio", "type_token_ratio", "markdown", "hedging", "sentiment")
_LENGTH = 0  # its place among the figures


@dataclass(frozen=True, slots=True)
class StyleGap:
    """How chosen and rejected differ in style, with 95 % intervals; no difference is 1 for the first, 0 for the others.

    Attributes:
        pairs: how many pairs were read.
        length_ratio: words of chosen over words of rejected, geometric mean; above 0.
        type_token_ratio: difference of the share of different words among the first hundred, in [-1, 1].
        markdown: difference of the shares of responses with markdown, in [-1, 1].
        hedging: difference of hedging words a word, in [-1, 1].
        sentiment: difference of (positive - negative words) a word, in [-2, 2].
    """

    pairs: int
    length_ratio: Estimate
    type_token_ratio: Estimate
    markdown: Estimate
    hedging: Estimate
    sentiment: Estimate


def style(text: str) -> tuple[float, ...]:
    """Of one response, in the order of ``FIGURES``: log of its words, word variety, markdown, hedging, sentiment.

    A text without a word has the log length 0 and no variety (0).

    >>> [round(value, 2) for value in style("**Perhaps** this is a good, good idea.")]
    [1.95, 0.86, 1.0, 0.14, 0.29]
    """
    words = _WORD.findall(text[:_CHARACTERS].lower())
    if not words:
        return (0.0, 0.0, float(bool(_MARKDOWN.search(text[:_CHARACTERS]))), 0.0, 0.0)
    # Of a longer text the words are estimated from the part that was read.
    number = len(words) * max(1.0, len(text) / _CHARACTERS)
    opening = words[:_VARIETY_WORDS]
    hedges = positive = negative = 0
    for word in words:
        hedges += word in _HEDGES
        positive += word in _POSITIVE
        negative += word in _NEGATIVE
    return (
        math.log(number),
        len(set(opening)) / len(opening),
        float(bool(_MARKDOWN.search(text[:_CHARACTERS]))),
        hedges / len(words),
        (positive - negative) / len(words),
    )


def style_gap(chosen: Floats, rejected: Floats, *, seed: int = 0) -> StyleGap:
    """The style gap of N pairs from the styles of their sides, each (N, 5) as ``style`` gives them; NaN for no pair.

    >>> same = np.array([style("One two three.")])
    >>> style_gap(same, same).length_ratio.value
    1.0
    """
    estimates = mean_estimates((chosen - rejected).reshape(-1, len(FIGURES)), seed=seed)
    length = estimates[_LENGTH]
    # From differences of logarithms to a ratio; exp keeps the order, so the ends stay the ends.
    estimates[_LENGTH] = Estimate(*(math.exp(end) for end in (length.value, length.low, length.high)))
    return StyleGap(len(chosen), *estimates)
