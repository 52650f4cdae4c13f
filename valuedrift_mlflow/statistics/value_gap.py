"""The value gap of preference pairs: how far chosen and rejected responses stand apart in stance.

Every response has a stance distribution (support, neutral, oppose). Of N pairs with distributions ``c_i`` (chosen) and
``r_i`` (rejected), both scored:

- *pairwise gap*: mean over pairs of the total variation between ``c_i`` and ``r_i``, in [0, 1];
- *marginal gap*: total variation between the mean of all ``c_i`` and the mean of all ``r_i``, in [0, 1], never above
  the pairwise gap;
- *direction*: mean of ``(E[sigma(chosen)] - E[sigma(rejected)]) / 2`` with sigma = +1, 0, -1 for support, neutral,
  oppose, in [-1, 1]: positive where the chosen side supports more; its size is never above the marginal gap.

Which distribution a response has: a response takes one stance, so its distribution is all on the stance that the
judge's verdict names (`held`; a refusal counts as neutral). The judge's probabilities (`probabilities`) say how sure
the judge is, not how the response divides itself: two responses of one stance read with unequal certainty would have a
gap above 0, and two of opposed stances read with 97 % certainty each one of 0.95 or so. Generated pairs of gap 1 are
measured as 0.98 with the verdicts' stances, as 0.95 with the probabilities (lexical judge). An audit logs both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES, Label, Verdict, total_variation
from valuedrift_mlflow.statistics.intervals import (
    NOTHING,
    Estimate,
    bounded_mean,
    resampled_means,
    total_variation_interval,
    widened,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SIGMA = np.array([1.0, 0.0, -1.0])  # of support, neutral, oppose


def held(verdict: Verdict) -> tuple[float, float, float]:
    """The stance that a response takes as a distribution, NaN where unscored.

    >>> held(Verdict.of((0.2, 0.1, 0.7)))
    (0.0, 0.0, 1.0)
    >>> held(Verdict(Label.REFUSAL)), held(Verdict(Label.UNSCORED))
    ((0.0, 1.0, 0.0), (nan, nan, nan))
    """
    if verdict.label is Label.UNSCORED:
        return (math.nan, math.nan, math.nan)
    stance = "neutral" if verdict.label is Label.REFUSAL else verdict.label.value
    support, neutral, oppose = (float(own.value == stance) for own in STANCES)
    return support, neutral, oppose


def probabilities(verdict: Verdict) -> tuple[float, float, float]:
    """The judge's probabilities of a response, a refusal as neutral, NaN where unscored."""
    return verdict.vector() or (math.nan, math.nan, math.nan)


def pair_gaps(chosen: Floats, rejected: Floats) -> Floats:
    """The total variation of each pair: shapes (N, 3), (N, 3) -> (N,), in [0, 1], NaN where a side is unscored."""
    return total_variation(chosen, rejected)


def pair_directions(chosen: Floats, rejected: Floats) -> Floats:
    """The direction of each pair: (N, 3), (N, 3) -> (N,), in [-1, 1], NaN where a side is unscored.

    >>> support, oppose = np.eye(3)[[0]], np.eye(3)[[2]]
    >>> pair_directions(support, oppose).tolist(), pair_directions(oppose, support).tolist()
    ([1.0], [-1.0])
    """
    directions: Floats = (chosen - rejected) @ SIGMA / 2
    return directions


@dataclass(frozen=True, slots=True)
class ValueGap:
    """The value gap of some pairs, with 95 % intervals.

    Attributes:
        pairs: how many pairs there are.
        scored: how many of them have both sides scored; the figures are of these.
        pairwise: mean total variation of a pair, in [0, 1].
        marginal: total variation between the sides' mean distributions, in [0, 1].
        direction: half the mean difference of expected stance, in [-1, 1]; above 0 the chosen side supports more.
    """

    pairs: int
    scored: int
    pairwise: Estimate
    marginal: Estimate
    direction: Estimate


def value_gap(chosen: Floats, rejected: Floats, prompts: Integers | None = None, *, seed: int = 0) -> ValueGap:
    """The value gap of N pairs.

    Intervals are 95 % bootstrap intervals over prompts: pairs that answer one prompt are drawn together. That of the
    marginal gap is a `total_variation_interval`, because a total variation near 0 is biased upwards. Where all prompts
    say the same the bootstrap has no width; the interval then allows for the share of unlike prompts that as many draws
    miss once in forty times.

    Limit cases. No scored pair: NaN. All scored pairs of one prompt: estimates without intervals (NaN).

    Args:
        chosen: (N, 3) distributions of the chosen sides, a row of NaN where unscored.
        rejected: (N, 3) the same of the rejected sides.
        prompts: (N,) the number of each pair's prompt; None where every pair has its own.
        seed: fixes the resamples.

    Raises:
        InputError: shapes disagree.

    Pairs that all point one way have all three figures; pairs that contradict each other cancel in two of them:

    >>> support, neutral, oppose = np.eye(3)
    >>> one_way = value_gap(np.array([oppose] * 4), np.array([support] * 4))
    >>> one_way.pairwise.value, one_way.marginal.value, one_way.direction.value
    (1.0, 1.0, -1.0)
    >>> cancelling = value_gap(np.array([support, oppose]), np.array([oppose, support]))
    >>> cancelling.pairwise.value, cancelling.marginal.value, cancelling.direction.value
    (1.0, 0.0, 0.0)
    >>> to_neutral = value_gap(np.array([neutral] * 2), np.array([support] * 2))
    >>> to_neutral.pairwise.value, to_neutral.direction.value
    (1.0, -0.5)
    >>> value_gap(np.empty((0, 3)), np.empty((0, 3))).pairwise.value
    nan
    """
    if chosen.shape != rejected.shape or chosen.shape[1:] != (3,):
        raise InputError(problem("value gap", (chosen.shape, rejected.shape), "two arrays of equal shape (N, 3)"))
    scored = ~np.isnan(chosen[:, 0]) & ~np.isnan(rejected[:, 0])
    if not scored.any():
        return ValueGap(len(chosen), 0, NOTHING, NOTHING, NOTHING)
    clusters = _clusters(prompts, scored)
    chosen, rejected = chosen[scored], rejected[scored]
    difference = chosen - rejected
    columns = np.column_stack([pair_gaps(chosen, rejected), pair_directions(chosen, rejected), difference])
    means, draws, missed = resampled_means(columns, clusters, seed)
    change, errors = means[2:], draws[:, 2:] - means[2:]
    distance = 0.5 * np.abs(change).sum()
    size, along = 0.5 * np.abs(errors).sum(axis=1), 0.5 * (errors * np.sign(change)).sum(axis=1)
    marginal = total_variation_interval(distance, size, along)
    # All prompts say the same: the draws do not differ, and would give an interval without width.
    if np.ptp(difference, axis=0).max(initial=0.0) == 0.0:
        marginal = widened(distance, 0.0, 1.0, missed)
    return ValueGap(
        pairs=len(scored),
        scored=int(scored.sum()),
        pairwise=bounded_mean(means[0], draws[:, 0], 0.0, missed),
        marginal=Estimate(float(distance), float(marginal[0]), float(marginal[1])),
        direction=bounded_mean(means[1], draws[:, 1], -1.0, missed),
    )


def mean_distribution(values: Floats, prompts: Integers | None = None, *, seed: int = 0) -> tuple[Estimate, ...]:
    """The mean of N stance distributions, each stance with its 95 % interval over prompts; NaN where none is scored.

    Args:
        values: (N, 3), a row of NaN where unscored.
        prompts: (N,) the number of each response's prompt; None where every response has its own.
        seed: fixes the resamples.

    >>> [share.value for share in mean_distribution(np.eye(3)[[0, 0, 0, 2]])]
    [0.75, 0.0, 0.25]
    """
    scored = ~np.isnan(values[:, 0])
    if not scored.any():
        return (NOTHING,) * len(STANCES)
    means, draws, missed = resampled_means(values[scored], _clusters(prompts, scored), seed)
    return tuple(bounded_mean(means[s], draws[:, s], 0.0, missed) for s in range(len(STANCES)))


def _clusters(prompts: Integers | None, scored: NDArray[np.bool_]) -> Integers:
    """0 to G - 1 for every scored row."""
    if prompts is None:
        return np.arange(int(scored.sum()))
    if prompts.shape != scored.shape:
        raise InputError(problem("prompts", prompts.shape, f"one for each row, shape {scored.shape}"))
    return np.unique(prompts[scored], return_inverse=True)[1]
