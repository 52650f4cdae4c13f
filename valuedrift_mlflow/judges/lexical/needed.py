"""What a text must have for a pattern to find anything in it: to look for words is a hundred times quicker."""

from __future__ import annotations

from collections.abc import Iterable
from re import _parser  # type: ignore[attr-defined]  # what `re` itself reads patterns with; it has no other name
from typing import Any

Words = frozenset[str]
_Piece = tuple[object, Any]  # its kind, and what is inside, whose type goes by the kind


def needed(pattern: str) -> tuple[tuple[str, ...], ...]:
    r"""Sets of strings: a text in which the pattern is found has at least one of each. The smallest set first.

    What cannot be told (a class of characters, what may be left out) asks for nothing, so that no text is missed.

    >>> needed(r"\bi (?:am )?(?:unable|not able) to")
    (('i ',), (' to',), ('not able', 'unable'))
    """
    return tuple(sorted((_shortest(words) for words in _sets(_parser.parse(pattern))), key=len))


def _shortest(words: Words) -> tuple[str, ...]:
    """The words without those that hold another one: a text that has these has that one too."""
    return tuple(sorted(word for word in words if not any(one in word for one in words - {word})))


def _sets(pieces: Iterable[_Piece]) -> list[Words]:
    """The sets of a pattern's pieces, which stand one after the other."""
    found: list[Words] = []
    letters = ""
    for name, inside in [*((str(kind), inside) for kind, inside in pieces), ("END", None)]:
        if name == "LITERAL":
            letters += chr(inside)
            continue
        if letters:
            found.append(frozenset([letters]))
            letters = ""
        match name, inside:
            case "SUBPATTERN", (_, 0, 0, group):  # without flags of its own
                found += _sets(group)
            case "BRANCH", (_, branches):
                # Of each branch the set that tells most; one that asks for nothing makes all of them so.
                best = [max(_sets(branch), key=_telling, default=frozenset()) for branch in branches]
                found += [frozenset().union(*best)] if all(best) else []
            case (("MAX_REPEAT" | "MIN_REPEAT"), (least, _, group)) if least > 0:
                found += _sets(group)
    return found


def _telling(words: Words) -> tuple[int, int]:
    return min(map(len, words)), -len(words)
