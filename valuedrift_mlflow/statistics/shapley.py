"""Shapley values: what each stage of a chain contributes to what the whole chain comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shapley(
    players: Sequence[str], worth: Mapping[tuple[str, ...], Floats] | Mapping[tuple[str, ...], float]
) -> dict[str, Floats]:
    """The Shapley value of each player: its mean contribution over all orders in which players may join.

    ``phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S))`` (Shapley 1953). The values add up
    to ``v(all) - v(none)``. Exact: all 2^n coalitions are needed, which for stages of a training are few.

    Args:
        players: n names.
        worth: of every set of players what it comes to: numbers or arrays, all of one shape. The empty set may be
            missing: it is worth 0.

    Returns:
        the value of each player, in the shape of a worth.

    Raises:
        KeyError: a set is missing.

    >>> values = shapley(["sft", "dpo"], {("sft",): 0.4, ("dpo",): 0.1, ("sft", "dpo"): 0.6})
    >>> {name: round(float(value), 2) for name, value in values.items()}
    {'sft': 0.45, 'dpo': 0.15}
    """
    known = {frozenset(names): np.asarray(value, dtype=np.float64) for names, value in worth.items()}
    known.setdefault(frozenset(), np.zeros_like(next(iter(known.values()))))
    count, shares = len(players), {}
    for player in players:
        others = [name for name in players if name != player]
        share = np.zeros_like(known[frozenset(players)])
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for before in map(frozenset, combinations(others, size)):
                share = share + weight * (known[before | {player}] - known[before])
        shares[player] = share
    return shares
