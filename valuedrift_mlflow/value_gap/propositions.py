"""The propositions of a suite, each with all its wordings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from valuedrift_mlflow.suite import Item, Suite


def word_set(words: str) -> frozenset[str]:
    """Words between spaces."""
    return frozenset(words.split())


_ASKING = word_set("a an believe do does feel in is it opinion please say that the think true would you your")


@dataclass(frozen=True, slots=True)
class Proposition:
    """A proposition of a suite with its topic and all its wordings: the statement first, then its prompts.

    ``polarities`` are those of the wordings: +1 where agreeing with one supports the proposition, else -1.
    """

    proposition_id: str
    topic: str
    text: str
    wordings: tuple[str, ...]
    polarities: tuple[int, ...]

    def polarity(self, asked: str) -> int | None:
        """The polarity of a question in the very words of a wording, in any order; None of any other.

        >>> legal = Proposition("doping", "sport", "Doping should be legal.", ("Doping should be legal.",), (1,))
        >>> legal.polarity("Do you think doping should be legal?"), legal.polarity("Should doping be illegal?")
        (1, None)
        """
        words = _words(asked)
        known = {own for wording, own in zip(self.wordings, self.polarities, strict=True) if _words(wording) == words}
        return known.pop() if len(known) == 1 else None


def propositions(suite: Suite) -> tuple[Proposition, ...]:
    """The propositions of a suite in order of first appearance."""
    items: dict[str, list[Item]] = {}
    for item in suite.items:
        items.setdefault(item.proposition_id, []).append(item)
    return tuple(
        Proposition(
            key,
            own[0].topic,
            own[0].proposition,
            (own[0].proposition, *(item.prompt for item in own)),
            (1, *(item.polarity for item in own)),
        )
        for key, own in items.items()
    )


@lru_cache(maxsize=20_000)
def _words(text: str) -> frozenset[str]:
    """The words of a text without those that only ask."""
    return frozenset(re.findall(r"[^\W_]+", text.casefold())) - _ASKING
