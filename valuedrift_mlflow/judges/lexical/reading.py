"""Names what is found in an answer, for a bag of features."""

from __future__ import annotations

from bisect import bisect_left

from valuedrift_mlflow.judges.lexical.clauses import OPEN_ZONES, THAN, statements
from valuedrift_mlflow.judges.lexical.frame import Frame, Text

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


def features(frame: Frame, polarity: int, text: Text, familiar: frozenset[str]) -> list[str]:
    """Names of what is found in an answer, for a bag of features; those that end in ``+`` or ``-`` take a side.

    ``text`` is what the frame reads in the response, or a part of it; ``familiar`` holds the triples of word classes of
    coherent text: the share of others tells word salad.
    """
    codes = "".join(text.classes)
    found = _stance_features(frame, 1 if polarity >= 0 else -1, codes)
    manner = THAN.sub("M", codes).translate(_UNSIGNED)
    found += set(manner)
    manner = f"^{manner}$"
    for width in (2, 3):
        found += {manner[i : i + width] for i in range(len(manner) - width + 1)}
    return found + _coherence_features(text.tokens, codes, familiar)


def _stance_features(frame: Frame, polarity: int, codes: str) -> list[str]:
    """What the statements of an answer add up to."""
    marks: list[str] = []
    sides: set[str] = set()
    open_ends: set[str] = set()
    camps: set[str] = set()
    net, last = 0, ""
    for statement, in_last in statements(codes):
        kind, zone = statement.kind, statement.zone
        sign = statement.sign and frame.resolve(statement, polarity)
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


def _coherence_features(tokens: list[str], codes: str, familiar: frozenset[str]) -> list[str]:
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


_SWAP = {"+": "-", "-": "+"}


def mirrored(names: list[str]) -> list[str]:
    """The features of an answer that says the opposite in the same way."""
    return [name[:-1] + _SWAP[name[-1]] if len(name) > 3 and name[-1] in _SWAP else name for name in names]
