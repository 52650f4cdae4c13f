"""Things drawn at random from all that pass, in parts that anybody may look at."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

_Thing = TypeVar("_Thing")
_Kept = TypeVar("_Kept")


class Drawn(Generic[_Kept]):
    """At most ``size`` of all things that have passed, every one equally likely.

    Each thing gets a number at random, and those with the smallest are kept (a bottom-k sample: Cohen and Kaplan 2007,
    Summarizing Data Using Bottom-k Sketches). So the sample of the whole is found from the samples of its parts.
    """

    def __init__(self, size: int, seed: Sequence[int], limit: float = 1.0) -> None:
        """Nothing yet. What gets a number from ``limit`` on is known not to be kept in the end."""
        self.size, self.passed, self._seed, self._limit = size, 0, tuple(seed), limit
        self._rng = np.random.default_rng(self._seed)
        # (- number, place, what is kept), the largest number first. No two places are equal, so what is kept is never
        # compared.
        self._heap: list[tuple[float, int, _Kept]] = []

    def part(self, number: int) -> Drawn[_Kept]:
        """An empty sample for a part of later things, which keeps nothing that would be given up here."""
        return Drawn(self.size, (*self._seed, number), self.limit)

    @property
    def limit(self) -> float:
        """From which number on nothing is kept any more."""
        return -self._heap[0][0] if len(self._heap) == self.size else self._limit

    def take(self, things: Sequence[_Thing], made: Callable[[_Thing], _Kept]) -> None:
        """Let things pass, and keep what is ``made`` of some."""
        numbers = self._rng.random(len(things))
        for at in np.flatnonzero(numbers < self.limit).tolist():
            if numbers[at] < self.limit:  # which gets smaller
                self._keep(-float(numbers[at]), self.passed + at, made(things[at]))
        self.passed += len(things)

    def add(self, later: Drawn[_Kept]) -> None:
        """Take in a part of what has passed after this."""
        for number, place, kept in later._heap:
            if -number < self.limit:
                self._keep(number, self.passed + place, kept)
        self.passed += later.passed

    def _keep(self, number: float, place: int, kept: _Kept) -> None:
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (number, place, kept))
        else:
            heapq.heapreplace(self._heap, (number, place, kept))

    def kept(self) -> list[_Kept]:
        """What has been kept, in the order in which it passed."""
        return [kept for _, _, kept in sorted(self._heap, key=lambda entry: entry[1])]
