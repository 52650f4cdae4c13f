"""Whether drift rises or falls with a dose: each seed is a block of its own.

The runs of one seed share what the seed decides, so a dose is compared with the other doses of its seed alone. Two
tests of one null, that the dose changes nothing:

- **permutation**: the doses of each seed are shuffled, and ranks within seeds are compared with the order of the doses
  (Page 1963; exact by SciPy where no seed lacks a dose). It assumes nothing of the seeds, takes the prompts as they
  are, and has a least p that few runs cannot go below: 2 / 216 for three doses and three seeds, which is nothing among
  18 tests.
- **t** of the linear contrast over the doses' ranks, of the squares of drift above noise (`paired`), with the error of
  other seeds and other propositions (`crossed`). What seeds show is pooled over the doses, beside means of doses and
  seeds: with K doses and S seeds it has (K - 1)(S - 1) degrees of freedom.

What is claimed rests on t, which asks for both. One seed alone shows no error by seeds: then the larger p of the two
counts, as its trainings at different doses can be shuffled all the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.crossed import Crossed, Part, crossed
from valuedrift_mlflow.statistics.intervals import ALPHA
from valuedrift_mlflow.statistics.paired import (
    NOTHING_COMPARED,
    Changes,
    Comparison,
    Contributions,
    compare,
    contributions,
    root,
)

Floats = NDArray[np.float64]

SHUFFLES = 9999  # of the doses within seeds, where there are more ways than these
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The permutation test of a trend.

    Attributes:
        correlation: mean over seeds of Spearman's rank correlation of drift with dose, in [-1, 1].
        p_value: two-sided.
    """

    correlation: float
    p_value: float


NO_SHUFFLE = Shuffled(math.nan, math.nan)


def shuffled(drifts: Floats) -> Shuffled:
    """Page's trend test of S seeds and K doses in rising order, two-sided.

    Args:
        drifts: (S, K), NaN where a run failed. Seeds with fewer than two runs say nothing.

    Returns:
        NaN throughout where no seed has two runs that differ.

    >>> found = shuffled(np.array([[0.1, 0.3, 0.6], [0.2, 0.3, 0.5], [0.1, 0.4, 0.5]]))
    >>> found.correlation, round(found.p_value, 4)  # one of 6 ** 3 orders, and its mirror image
    (1.0, 0.0093)
    """
    from scipy.stats import page_trend_test, rankdata

    own = [(np.flatnonzero(~np.isnan(row)), row[~np.isnan(row)]) for row in np.asarray(drifts, dtype=np.float64)]
    blocks = [(rankdata(places), rankdata(row)) for places, row in own if len(row) > 1]
    blocks = [(x - x.mean(), y - y.mean()) for x, y in blocks]
    scale = math.sqrt(sum(float(x @ x) for x, _ in blocks) * sum(float(y @ y) for _, y in blocks))
    if scale == 0:
        return NO_SHUFFLE
    correlation = sum(float(x @ y) for x, y in blocks) / scale
    ties = any(len(np.unique(y)) < len(y) for _, y in blocks)
    complete = len({len(x) for x, _ in blocks}) == 1 and len(blocks) > 1 and len(blocks[0][0]) > 2
    if complete and not ties:
        ranks = np.array([y for _, y in blocks])
        ends = [page_trend_test(turned).pvalue for turned in (ranks, ranks[:, ::-1])]
        return Shuffled(correlation, min(1.0, 2 * float(min(ends))))
    return Shuffled(correlation, _permuted(blocks))


def _permuted(blocks: Sequence[tuple[Floats, Floats]]) -> float:
    """The two-sided share of orders within seeds that fit the doses at least as well: all orders, or some at random."""
    orders = math.prod(math.factorial(len(x)) for x, _ in blocks)
    observed = sum(float(x @ y) for x, y in blocks)
    if orders <= SHUFFLES:
        fits = np.zeros(1)
        for x, y in blocks:
            each = np.array([x @ np.array(order) for order in itertools.permutations(y)])
            fits = (fits[:, None] + each).ravel()
        return float((np.abs(fits) >= abs(observed) - ROUNDING).mean())
    rng = np.random.default_rng(0)  # the same cells always have the same p value
    fits = sum(rng.permuted(np.broadcast_to(y, (SHUFFLES, len(y))), axis=1) @ x for x, y in blocks) + np.zeros(SHUFFLES)
    return float((1 + (np.abs(fits) >= abs(observed) - ROUNDING).sum()) / (1 + SHUFFLES))


@dataclass(frozen=True, slots=True)
class Trend:
    """Drift over doses.

    Attributes:
        correlation: mean over seeds of Spearman's rank correlation of drift with dose.
        p_value: of "the dose changes nothing"; NaN where it cannot be tested.
        p_shuffled: of the permutation alone.
        rises: whether drift rises with the dose, as far as it can be told.
        ends: the cell of the largest dose compared with that of the smallest.
        detectable: the least difference of drift between those, rising evenly in squares from dose to dose, that is
            found with 80 % power at ``alpha / tests``; NaN where none is.
        seeds: how many have a run at every dose.
    """

    correlation: float
    p_value: float
    p_shuffled: float
    rises: bool
    ends: Comparison
    detectable: float
    seeds: int


def trend(cells: Sequence[Sequence[Changes]], drifts: Floats, *, alpha: float = ALPHA, tests: int = 1) -> Trend:
    """Test a trend over K doses.

    Args:
        cells: K doses in rising order, of the same seeds each: those that have a run at every dose.
        drifts: (S, K) drift of all runs, NaN where one failed, for the permutation.
        alpha: level of intervals.
        tests: how many tests share ``alpha``.
    """
    by_order = shuffled(drifts)
    both = contributions(cells)
    if both is None or len(cells) < 2:
        seeds = len(cells[0]) if cells else 0
        return Trend(by_order.correlation, math.nan, by_order.p_value, False, NOTHING_COMPARED, math.nan, seeds)
    contrast = linear(both)
    p_value = contrast.p_value if len(cells[0]) > 1 else max(contrast.p_value, by_order.p_value)
    least = max(float(both.squares[0].mean()), 0.0)
    score = _scores(len(cells))
    # A rise of x from the first dose to the last, in even steps, is a contrast of x |score|^2 / (K - 1).
    rise = contrast.detectable(alpha / tests) * (len(cells) - 1) / float(score @ score)
    detectable = root(least + rise) - root(least) if math.isfinite(rise) else math.nan
    ends = compare(cells[-1], cells[0], alpha=alpha, tests=tests)
    return Trend(
        by_order.correlation,
        p_value,
        by_order.p_value,
        contrast.mean > 0,
        ends,
        detectable if detectable <= 1 else math.nan,
        len(cells[0]),
    )


def _scores(doses: int) -> Floats:
    scores: Floats = np.arange(doses, dtype=np.float64) - (doses - 1) / 2
    return scores


def linear(both: Contributions) -> Crossed:
    """The contrast of K cells over the ranks of their doses, with what seeds show pooled over the doses."""
    squares = both.squares  # (K, S)
    doses, seeds = squares.shape
    score = _scores(doses)
    values = np.einsum("c,csn->sn", score, both.values)
    if seeds < 2 or doses < 3:
        return crossed(values, both.strata)
    rest = squares - squares.mean(axis=0) - squares.mean(axis=1, keepdims=True) + squares.mean()
    freedom = (doses - 1) * (seeds - 1)
    pooled = float((rest**2).sum()) / freedom * float(score @ score) / seeds
    return crossed(values, both.strata, Part(pooled, float(freedom)))
