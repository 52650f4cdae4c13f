"""Cells of an ablation compared with one another: their drift above noise, its difference and its ratio, by pairs.

Total variation is never negative, so noise adds to it, and it adds more to a small drift than to a large one: neither
differences nor ratios of it mean what they seem to. What is compared is *drift above noise*: of a topic's mean change
``d`` the square ``|d|^2 / 2`` is estimated without the noise, by products of the changes of different propositions (a
U-statistic: ``sum over i != j of d_i . d_j``), which have no noise in common. Its mean over topics and seeds may be
below 0, and is 0 on average where nothing moved. The root of it is a total variation where topics drift alike and
probability moves between two stances, and at least 0.87 of it where all three move.

Two cells have the same seeds and the same prompts, and start from the same model, measured once. So the units of a
comparison are the *differences* of seeds and of propositions (jackknife pseudo-values), and its error has both: see
`crossed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.crossed import Crossed, crossed
from valuedrift_mlflow.statistics.intervals import ALPHA, NOTHING, Estimate
from valuedrift_mlflow.statistics.units import members

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST = 3  # propositions of a topic: with two, nothing is left to compare when one is left out


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What one run changed: all that a comparison needs of a cell.

    Attributes:
        change: (P, 3) mean change of each proposition's stances over its prompts; NaN where none was scored twice.
        prompts: (P,) how many of its prompts were scored both times.
        topics: (P,) the number of its topic.
        asked: what names the propositions, such as the suite's hash: only runs of one name are compared.
    """

    change: Floats
    prompts: Integers
    topics: Integers
    asked: str = ""


def changes(before: Floats, after: Floats, propositions: Integers, topics: Integers, asked: str = "") -> Changes:
    """The changes of one run from its two measurements.

    Args:
        before: (N, 3) mean stance probabilities of N prompts at the start, NaN where none was scored.
        after: (N, 3) those at the end.
        propositions: (N,) the number of each prompt's proposition, 0 to P - 1.
        topics: (N,) the number of each prompt's topic.
        asked: what names the propositions.

    >>> both = changes(np.full((4, 3), 1 / 3), np.eye(3)[[0, 0, 1, 1]], np.array([0, 0, 1, 1]), np.zeros(4, dtype=int))
    >>> both.change.round(2).tolist(), both.prompts.tolist()
    ([[0.67, -0.33, -0.33], [-0.33, 0.67, -0.33]], [2, 2])
    """
    moved: Floats = after - before
    scored: NDArray[np.bool_] = ~np.isnan(moved[:, 0])
    member = members(propositions)  # (N, P)
    number = scored.astype(np.float64) @ member
    sums = np.einsum("ns,np->ps", np.where(scored[:, None], moved, 0.0), member)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN we want
        mean = sums / number[:, None]
    first = np.array([np.flatnonzero(propositions == p)[0] for p in np.unique(propositions)], dtype=np.int64)
    return Changes(mean, number.astype(np.int64), topics[first], asked)


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What propositions contribute to the squares of drift of several cells.

    Attributes:
        values: (C, S, n) pseudo-values; their mean over a topic's propositions is its square of drift.
        strata: (n,) the topic of each proposition.
    """

    values: Floats
    strata: Integers

    def combined(self, weights: Sequence[float]) -> Crossed:
        """The weighted sum over cells, with its error."""
        return crossed(np.einsum("c,csn->sn", np.asarray(weights, dtype=np.float64), self.values), self.strata)

    @property
    def squares(self) -> Floats:
        """(C, S) mean over topics of the square of drift, unbiased."""
        own = [self.values[..., self.strata == topic].mean(axis=-1) for topic in np.unique(self.strata)]
        squares: Floats = np.mean(own, axis=0)
        return squares


def contributions(cells: Sequence[Sequence[Changes]]) -> Contributions | None:
    """Pseudo-values of C cells of S seeds each; None where no topic has three propositions that all cells answered.

    A proposition that some cell did not answer counts in none: what is compared is then of the same propositions. None
    too where cells were asked different things, or there is no run.

    Raises:
        ValueError: cells have other numbers of seeds.
    """
    if len({len(cell) for cell in cells}) > 1:
        raise ValueError("cells are compared by the same seeds")
    if not cells or not cells[0] or len({(run.asked, len(run.change)) for cell in cells for run in cell}) > 1:
        return None
    change = np.array([[run.change for run in cell] for cell in cells])  # (C, S, P, 3)
    prompts = np.array([[run.prompts for run in cell] for cell in cells]).mean(axis=(0, 1))
    topics = cells[0][0].topics
    known = ~np.isnan(change).any(axis=(0, 1, 3))
    values, strata = [], []
    for topic in np.unique(topics):
        own = known & (topics == topic)
        if own.sum() >= LEAST:
            values.append(_pseudo_values(change[:, :, own], prompts[own] / prompts[own].sum()))
            strata.append(topics[own])
    return Contributions(np.concatenate(values, axis=-1), np.concatenate(strata)) if values else None


def _pseudo_values(change: Floats, weights: Floats) -> Floats:
    """(..., n, 3), (n,) -> (..., n): n times the square of a topic less n - 1 times that without each proposition."""
    pulled = change * weights[:, None]
    total, squares = pulled.sum(axis=-2, keepdims=True), (pulled**2).sum(axis=-1)
    whole = _square(total[..., 0, :], squares.sum(axis=-1), (weights**2).sum(), np.ones(()))
    left = 1 - weights
    without = _square(
        total - pulled, squares.sum(axis=-1, keepdims=True) - squares, (weights**2).sum() - weights**2, left
    )
    n = len(weights)
    values: Floats = n * whole[..., None] - (n - 1) * without
    # With unequal weights their mean is not quite the square itself; moved, it is.
    values += (whole - values.mean(axis=-1))[..., None]
    return values


def _square(total: Floats, own: Floats, weights: Floats, left: Floats) -> Floats:
    """Half the weighted mean of ``d_i . d_j`` over different propositions; ``left`` is the sum of their weights."""
    square: Floats = 0.5 * ((total**2).sum(axis=-1) - own) / (left**2 - weights)
    return square


def root(square: float) -> float:
    """The drift of a square; 0 where noise has made that negative."""
    return math.sqrt(max(square, 0.0))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two cells of the same seeds and prompts.

    Attributes:
        first: drift above noise of the first cell, mean over seeds, in [0, 1].
        second: that of the second cell.
        difference: first less second with its interval, in [-1, 1]; NaN where there is none.
        p_value: of "both drift alike"; NaN where it cannot be tested.
        detectable: the least difference that is found with 80 % power at ``alpha / tests``; NaN where none is.
        seeds: how many were paired. One seed says nothing of others.
    """

    first: float
    second: float
    difference: Estimate
    p_value: float
    detectable: float
    seeds: int


NOTHING_COMPARED = Comparison(math.nan, math.nan, NOTHING, math.nan, math.nan, 0)


def compare(first: Sequence[Changes], second: Sequence[Changes], *, alpha: float = ALPHA, tests: int = 1) -> Comparison:
    """Compare the drift of two cells, seed by seed and proposition by proposition.

    The test is that of the difference of squares, and the interval of the difference of drifts ends at 0 where its p is
    ``alpha``.

    Args:
        first: of each seed.
        second: of the same seeds, in the same order.
        alpha: the interval has level ``1 - alpha``.
        tests: over how many tests ``alpha`` is shared, for what is detectable.
    """
    both = contributions([first, second])
    if both is None:
        return Comparison(math.nan, math.nan, NOTHING, math.nan, math.nan, len(first))
    one, other, between = (both.combined(weights) for weights in ((1, 0), (0, 1), (1, -1)))
    a, b = root(one.mean), root(other.mean)
    least = min(a, b)
    detectable = root(least**2 + between.detectable(alpha / tests)) - least
    return Comparison(
        a,
        b,
        _difference(one, other, between, alpha),
        between.p_value,
        detectable if detectable <= 1 else math.nan,
        len(first),
    )


def _difference(one: Crossed, other: Crossed, between: Crossed, alpha: float) -> Estimate:
    """The difference of two drifts, from the interval of the difference of their squares.

    Either end is a pair of squares: the measured ones, moved apart or together along the regression of each on their
    difference. So it holds 0 where that interval does. Outwards, the smaller drift may be 0 where it is not shown to be
    above it: then the root of the whole end is taken, which no difference exceeds.
    """
    value = root(one.mean) - root(other.mean)
    if not between.variance > 0:
        return Estimate(value, value, value) if between.variance == 0 else Estimate(value, math.nan, math.nan)
    ends = between.interval(alpha)
    shared = (one.variance + other.variance - between.variance) / 2
    share = min(1.0, max(0.0, (one.variance - shared) / between.variance))

    def moved(end: float) -> float:
        smaller = other if end > 0 else one
        if abs(end) > abs(between.mean) and smaller.mean <= smaller.half_width(alpha):
            return math.copysign(root(abs(end)), end)
        first = one.mean + (end - between.mean) * share
        first = max(first, end, 0.0)
        return root(first) - root(first - end)

    return Estimate(value, max(-1.0, min(moved(ends.low), value)), min(1.0, max(moved(ends.high), value)))


@dataclass(frozen=True, slots=True)
class Ratio:
    """How small the drift of one cell is beside that of another.

    Attributes:
        share: drift above noise of the first as a share of the second's, with its interval; ``high`` is infinite where
            the second may not have drifted at all, NaN where there is none.
        p_value: of "the share is the threshold"; NaN where it cannot be tested.
        below: whether the estimate is below the threshold.
        told_below: the largest share that is found to lie below the threshold with 80 % power; NaN where none is.
        told_above: the least share that is found to lie above it.
        seeds: how many were paired.
    """

    share: Estimate
    p_value: float
    below: bool
    told_below: float
    told_above: float
    seeds: int


def ratio(
    first: Sequence[Changes], second: Sequence[Changes], threshold: float, *, alpha: float = ALPHA, tests: int = 1
) -> Ratio:
    """The share of the second cell's drift that the first one's is.

    A share r of drifts is a share ``r^2`` of squares. The test of r is t of ``square(first) - r^2 square(second)``, and
    the interval holds every r that is not rejected (Fieller 1954): it has no upper end where the second square is not
    shown to be above 0.

    Args:
        first: of each seed.
        second: of the same seeds, in the same order.
        threshold: the share that is tested.
        alpha: the interval has level ``1 - alpha``.
        tests: over how many tests ``alpha`` is shared, for what is detectable.
    """
    both = contributions([first, second])
    if both is None:
        return Ratio(NOTHING, math.nan, False, math.nan, math.nan, len(first))
    one, other = both.combined((1, 0)), both.combined((0, 1))
    at = both.combined((1, -(threshold**2)))
    value = root(one.mean) / root(other.mean) if other.mean > 0 else math.nan
    low, high = _fieller(both, one.mean / other.mean if other.mean > 0 else math.nan, alpha)
    far = at.detectable(alpha / tests) / other.mean if other.mean > 0 else math.nan
    below = threshold**2 - far
    return Ratio(
        Estimate(value, low, high),
        at.p_value,
        at.mean < 0,
        math.sqrt(below) if below > 0 else math.nan,
        math.sqrt(threshold**2 + far) if far < math.inf else math.nan,
        len(first),
    )


FARTHEST = 16.0  # a share beyond which the interval has no end: such a cell is not the smaller one
HALVINGS = 30


def _fieller(both: Contributions, estimate: float, alpha: float) -> tuple[float, float]:
    """The ends of the set of shares that are not rejected, found by halving from the estimate (of squares) outwards."""

    def kept(square: float) -> bool:
        found = both.combined((1, -square))
        return abs(found.mean) <= found.half_width(alpha)

    if math.isnan(both.combined((1, 0)).p_value):
        return math.nan, math.nan
    inside = max(estimate, 0.0)
    if math.isnan(inside) or not kept(inside):  # a negative square: 0 is the nearest share, and may be rejected itself
        return 0.0, math.inf if math.isnan(inside) else 0.0
    low, high = 0.0 if kept(0.0) else _end(kept, inside, 0.0), math.inf
    second = both.combined((0, 1))
    if not kept(FARTHEST**2) and second.mean > second.half_width(alpha):
        high = _end(kept, inside, FARTHEST**2)
    return math.sqrt(low), math.sqrt(high)


def _end(kept: Callable[[float], bool], inside: float, outside: float) -> float:
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return inside
