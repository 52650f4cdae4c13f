"""What was found for a word once, so that a stream of texts costs no more than its new words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

MOST = 100_000  # words that are remembered before all are forgotten
LONGEST = 40  # letters of one: what is longer hardly comes again (addresses, sentences of scripts without blanks)

_Found = TypeVar("_Found")


class Remembered(dict[str, _Found]):
    """What a function gives for each word that was asked for; a known one costs a look into a dictionary.

    >>> sizes = Remembered(len)
    >>> sizes["law"], dict(sizes)
    (3, {'law': 3})
    """

    def __init__(self, find: Callable[[str], _Found]) -> None:
        """Of a function that gives the same whenever it is asked for the same."""
        super().__init__()
        self._find = find

    def __missing__(self, word: str) -> _Found:
        found = self._find(word)
        if len(word) <= LONGEST:
            if len(self) >= MOST:
                self.clear()
            self[word] = found
        return found
