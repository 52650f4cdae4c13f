"""Names and numbers for what is found in an answer, for the linear readers.

What ends in ``+`` or ``-``, or stands among the sided numbers, takes a side; the rest tells how something is said.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.judges.lexical import cues
from valuedrift_mlflow.judges.lexical.clauses import OPEN_ZONES, THAN, statements
from valuedrift_mlflow.judges.lexical.frame import Reading, Text
from valuedrift_mlflow.judges.lexical.tokens import stem

Floats = NDArray[np.float64]
# Sign-free classes for n-grams: how something is said, not which side it takes.
_UNSIGNED = str.maketrans("aegQv^-<Dx", "AEGPPP+>NX", "wothqu,")
# Classes by grammar alone, to tell sentences from word salad.
_GRAMMAR = str.maketrans(
    dict.fromkeys("XxaAgGPQ^v+-KBUfFnsHEeO<>p#jhZ", "w") | dict.fromkeys("bcCi~WM", "o") | dict.fromkeys("RYp", "I")
)
_EXPLICIT = frozenset({"attitude", "case", "agreement", "should", "evaluation", "answer", "echo"})
_TURNS = frozenset({"contrast", "conclusion"})


def grammar(codes: str) -> list[str]:
    """Triples of grammatical word classes."""
    plain = codes.translate(_GRAMMAR)
    return [plain[i : i + 3] for i in range(len(plain) - 2)]


def named(reading: Reading, familiar: frozenset[str]) -> list[str]:
    """Names of what is found in an answer or a part of it.

    ``familiar`` holds the triples of word classes of coherent text: the share of others tells word salad.
    """
    codes = "".join(reading.text.classes)
    found = _stated(reading, codes)
    manner = THAN.sub("M", codes).translate(_UNSIGNED)
    found += set(manner)
    manner = f"^{manner}$"
    for width in (2, 3):
        found += {manner[i : i + width] for i in range(len(manner) - width + 1)}
    return found + _coherent(reading.text.tokens, codes, familiar)


def _stated(reading: Reading, codes: str) -> list[str]:
    """What the statements of an answer add up to."""
    marks: list[str] = []
    sides: set[str] = set()
    open_ends: set[str] = set()
    camps: set[str] = set()
    net, last = 0, ""
    for statement, in_last in statements(codes):
        kind, zone = statement.kind, statement.zone
        sign = statement.sign and reading.frame.resolve(statement, reading.polarity)
        side = "+" if sign > 0 else "-" if sign < 0 else ""
        marks.append(f"{kind}/{zone}{side}")
        if zone == "attributed":
            camps.add(side)
        if not side:
            if zone in _TURNS:
                sides.clear()
            if zone not in ("concession", "reason"):
                open_ends.add(kind)
                last = f"last/{kind}"
        elif zone in OPEN_ZONES and kind not in ("mood", "elsewhere"):
            net += sign
            explicit = kind in _EXPLICIT and zone != "reason"
            if explicit:
                if zone in _TURNS:
                    # What follows "but" or "overall" replaces what came before.
                    sides.clear()
                    open_ends.discard("unsettled")
                sides.add(side)
                if not last:
                    marks.append(f"first/{kind}{side}")
                last = f"last/{kind}{side}"
            if in_last:
                marks.append(f"{'end' if explicit else 'weak end'}{side}")
    if (len(camps) > 1 or (camps and {"<", ">"} <= set(codes))) and not sides:
        # An overview of both camps has content, whatever view the speaker declines to give.
        open_ends, last = {"unsettled"}, "last/unsettled"
        marks.append("both camps")
    unsided = "/".join(sorted(open_ends))
    marks.append(f"only/{unsided}{sides.pop()}" if len(sides) == 1 else f"{'mixed' if sides else 'no'} sides/{unsided}")
    if last:
        marks.append(last)
    if codes.count("O") + codes.count("<") + codes.count(">") > 1:
        marks.append("several camps")
    if net:
        marks.append(f"net{min(abs(net), 3)}{'+' if net > 0 else '-'}")
    return marks


def _coherent(tokens: list[str], codes: str, familiar: frozenset[str]) -> list[str]:
    """Whether this is connected text, and whether it is about the proposition."""
    words = len(codes) - codes.count(",") - codes.count(".") or 1
    nonwords = codes.count("z")
    unlisted = (codes.count("w") + nonwords) / words
    triples = grammar(codes)
    unfamiliar = sum([triple not in familiar for triple in triples]) / (len(triples) or 1)
    runs = len(tokens) - 2
    repeated = 1 - len(set(zip(tokens, tokens[1:], tokens[2:], strict=False))) / runs if runs > 0 else 0.0
    return [
        f"repeated {bisect_left((0.05, 0.15, 0.3, 0.5), repeated)}",
        f"length {bisect_left((2, 8, 30, 80), words)}",
        f"overlap {bisect_left((0, 1, 3), codes.count('X') + codes.count('x') + 5 * codes.count('#'))}",
        f"unlisted {bisect_left((0.15, 0.3, 0.45, 0.6, 0.8), unlisted)}",
        f"no words {bisect_left((0.0, 0.15), nonwords / words)}",
        f"unfamiliar {bisect_left((0.0, 0.04, 0.08, 0.14, 0.22, 0.32), unfamiliar)}",
    ]


# Classes of words whose shares tell how a text is written.
_STYLE = "AaGgPQ^v+-NkESIYRTDUBKOHMCcZbiVt&WFfnsp#Xxwzo,.?"


def style(readings: Sequence[Reading]) -> Floats:
    """How texts are written, shape (n, s): the share of each class of words, their length, and how varied they are."""
    texts = ["".join(reading.text.classes) for reading in readings]
    tokens = [reading.text.tokens for reading in readings]
    counts = np.array([list(map(codes.count, _STYLE)) for codes in texts], dtype=np.float64)
    shares = np.minimum(counts / np.maximum([len(codes) for codes in texts], 1)[:, None], 0.3)
    sizes = np.array([len(own) for own in tokens])
    ends = np.array([1 + codes.count(".") + codes.count("?") for codes in texts])
    varied = np.array([len(set(own)) for own in tokens]) / np.maximum(sizes, 1)
    return np.column_stack([shares, np.log1p(sizes), np.log(ends), varied])


def manner(reading: Reading) -> list[float]:
    """How a text is written, whatever it says: its length, its words of the topic, its hedges, camps and turns."""
    text, parts = reading.text, reading.sections
    codes = "".join(text.classes)
    words = max(len(codes) - codes.count(",") - codes.count("."), 1)
    sentences = len(parts.sentences)
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
        float("I" in parts.sentences[-1].classes),
        float(bool(parts.turned.tokens)),
        len(set(text.tokens)) / max(len(text.tokens), 1),
    ]


def _clipped(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))


# The first of the leanings tell that somebody answers or advises.
_SPOKEN = 9


def leanings(reading: Reading) -> list[float]:
    """What speaks for (positive) or against the proposition beyond the clauses, see ``cues``."""
    parts = reading.sections.sentences
    direction, polarity = reading.frame.direction, reading.polarity
    said = [cues.spoken(part) for part in parts]
    opening = cues.opening(said[0])
    advice = [cues.closing(sentence) for sentence in said]
    sides = [cues.taken(sentence) for sentence in said]
    echoes = [cues.echoes(reading.proposition, part) for part in parts]
    worth = [_count(part, "+") - _count(part, "-") for part in parts]
    allowing = [_count(part, "P") - _count(part, "Q") for part in parts]
    first, last, total = _clipped(worth[0], 2), _clipped(worth[-1], 2), _clipped(sum(worth), 3)
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


def silent(reading: Reading) -> bool:
    """Whether an answer names nothing of its topic, speaks in nobody's name, and neither answers nor advises."""
    codes = "".join(reading.text.classes)
    return not any(code in codes for code in "Xx#I") and not any(leanings(reading)[:_SPOKEN])


class Argued(NamedTuple):
    """Features of n answers: those that take a side (n, a), those that take none (n, b), words, and signs (n, 3).

    The signs are those of a word said for or against the object, the prompt and the claim.
    """

    sided: Floats
    plain: Floats
    words: list[list[str]]
    signs: Floats


_FURTHEST = 5.0


def argue(log_probabilities: Callable[[Sequence[Reading]], Floats], readings: Sequence[Reading]) -> Argued:
    """The features of answers, whose parts an already fitted reader has read."""
    asked: list[Reading] = []
    sided, plain = [], []
    places = []
    for reading in readings:
        sections = reading.sections
        main = (reading.text, sections.sentences[0], sections.sentences[-1], sections.turned, sections.own)
        places.append((len(asked), len(main)))
        asked += [reading.of(part) for part in (*main, *sections.sentences)]
    log_odds = log_probabilities(asked) if asked else np.zeros((0, 5))
    bounds = [start for start, _ in places[1:]] + [len(asked)]
    for reading, (start, count), end in zip(readings, places, bounds, strict=True):
        there = [bool(part.text.tokens) for part in asked[start : start + count]]
        ours, none = _parts(log_odds[start : start + count], np.array(there), log_odds[start + count : end])
        hand = leanings(reading)
        sided.append(ours + hand)
        plain.append(none + manner(reading) + [abs(value) for value in hand])
    signs = [(reading.frame.direction, reading.polarity, 1) for reading in readings]
    return Argued(
        np.array(sided, dtype=np.float64),
        np.array(plain, dtype=np.float64),
        [words(reading.sections.sentences) for reading in readings],
        np.array(signs, dtype=np.float64),
    )


def _parts(main: Floats, there: NDArray[np.bool_], sentences: Floats) -> tuple[list[float], list[float]]:
    """What the main parts and the sentences of an answer lean to, with a sign and without."""
    ours: list[float] = []
    none: list[float] = []
    for logs, known in zip(main, there, strict=True):
        shares = np.exp(logs)
        lead, lean = _clipped(float(logs[0] - logs[2]), _FURTHEST), shares[0] - shares[2]
        ours += [lead, lean] if known else [0.0] * 2
        none += [abs(lead), abs(lean), *shares[[1, 3, 4]], 1.0] if known else [0.0] * 6
    kinds = np.exp(sentences)
    lean = kinds[:, 0] - kinds[:, 2]
    total = _clipped(float(lean.sum()), 3)
    ours += [total, lean[np.argmax(np.abs(lean))], np.tanh(2 * lean).mean()]
    ours.append(_clipped(float(lean @ np.linspace(0.5, 1, len(lean))), 3))
    none += [abs(total), np.abs(lean).max(), lean.max() - lean.min(), *kinds[:, [1, 3, 4]].max(axis=0)]
    none += [kinds[:, 1].mean(), kinds[:, 4].mean(), kinds[:, 4].min()]
    return ours, none


def words(sentences: list[Text]) -> list[str]:
    """Names of the words and pairs of words of a text, those of the topic as ``X``; first and last sentence apart."""
    names: set[str] = set()
    last = len(sentences) - 1
    for number, sentence in enumerate(sentences):
        said = ["^", *filter(None, map(_word, sentence.tokens, sentence.classes))]
        grams = said[1:] + [f"{a} {b}" for a, b in pairwise(said)]
        names.update(grams)
        if number == 0:
            names.update(["f:" + gram for gram in grams])
        if number == last:
            names.update(["l:" + gram for gram in grams])
    return list(names)


def _word(token: str, classes: str) -> str:
    if classes in ",.":
        return ""
    if classes in "Xx#":
        return "X"
    if token[0] == "\x00":
        return token.partition("\x01")[2]
    return stem(token) if classes == "w" else token
