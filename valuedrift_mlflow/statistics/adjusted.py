"""Stances and drift from a judge's verdicts and its errors on labelled answers, without a label of these responses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.statistics.intervals import RESAMPLES, drawn_counts, percentiles, total_variation_interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """Stances as a judge's verdicts imply them, given how it errs on labelled answers.

    Rows 0 to T - 1 are topics, row T their mean.

    Attributes:
        value: (T + 1, 3) in [0, 1], summing to 1; NaN where the matrix cannot be inverted.
        interval: (T + 1, 3, 2) 95 % intervals.
        condition: condition number of the matrix; the larger, the more an error in it is magnified.
    """

    value: Floats
    interval: Floats
    condition: float


UNINVERTIBLE = 1e3  # condition number above which the verdicts hardly depend on the truth


def adjusted_stances(
    verdicts: Integers, topics: Integers, clusters: Integers, confusion: Integers, number: int, *, seed: int = 0
) -> Adjusted:
    """Take a judge's known errors off its verdicts (Rogan and Gladen 1978, for three stances).

    With ``M[i, j]`` the share of answers of true stance i that the judge gives verdict j, the shares of verdicts are
    ``q = M^T p``, so the stances are ``p = (M^T)^-1 q``. Verdicts of no stance are in no q, but M knows how often each
    stance gets them. What falls outside of the simplex is moved to its nearest point (`onto_simplex`). It is right
    only as far as the judge errs here as it does on the labelled answers: **it is conditional on that set**.

    Intervals: percentiles over draws of M (each row from the Dirichlet distribution of its counts plus 1/2, Jeffreys'
    prior) and of the clusters (bootstrap).

    Args:
        verdicts: (n,) 0 to 2 for a stance, 3 for none.
        topics: (n,) the number of each response's topic.
        clusters: (n,) the number of each response's proposition.
        confusion: (3, 4) counts of true stance x verdict (the fourth: none).
        number: T.
        seed: fixes the draws.

    Raises:
        InputError: a true stance without a labelled answer.
    """
    rng = np.random.default_rng(seed)
    errors = _Errors.of(confusion, rng)
    value, draws = np.full((number + 1, 3), np.nan), np.full((RESAMPLES, number + 1, 3), np.nan)
    for topic in range(number):
        own = topics == topic
        if errors.invertible and own.any():
            _, cluster = np.unique(clusters[own], return_inverse=True)
            counts = _cluster_counts(cluster, verdicts[own], int(cluster.max()) + 1)
            value[topic], draws[:, topic] = errors.stances(counts, drawn_counts(len(counts), RESAMPLES, rng))
    value[number], draws[:, number] = _means_over_topics(value, draws)
    return Adjusted(value, _around(value, draws), errors.condition)


@dataclass(frozen=True, slots=True, eq=False)
class AdjustedDrift:
    """The change of the stances that a judge's verdicts imply, rows as in `Adjusted`; NaN where those are.

    Attributes:
        value: (T + 1, 3) the change of each stance, in [-1, 1].
        interval: (T + 1, 3, 2) 95 % intervals.
        total_variation: (T + 1,) half the sum of the absolute changes, in [0, 1]; row T is the mean of the others.
        total_variation_interval: (T + 1, 2) 95 % intervals.
    """

    value: Floats
    interval: Floats
    total_variation: Floats
    total_variation_interval: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """A judge's verdicts on the n responses of one measurement; see `adjusted_stances` for the three arrays."""

    verdicts: Integers
    topics: Integers
    clusters: Integers


def adjusted_drift(
    before: Readings, after: Readings, confusion: Integers, number: int, *, seed: int = 0
) -> AdjustedDrift:
    """The change between two measurements with the judge's known errors taken off both; see `adjusted_stances`.

    The draws are the same for both: one judge has read them, and the clusters (the same propositions) are drawn in
    pairs. So an error in what is known of the judge, which moves both stances alike, hardly widens the change. The
    interval of the total variation is `total_variation_interval`, the draws' distances from the estimate as errors.

    Args:
        before: the earlier measurement.
        after: the later one; its clusters have the numbers of the earlier one's.
        confusion: (3, 4) counts of true stance x verdict (the fourth: none).
        number: T.
        seed: fixes the draws.

    Raises:
        InputError: a true stance without a labelled answer.
    """
    rng = np.random.default_rng(seed)
    errors = _Errors.of(confusion, rng)
    value, draws = np.full((number + 1, 3), np.nan), np.full((RESAMPLES, number + 1, 3), np.nan)
    for topic in range(number):
        sides = [(one, one.topics == topic) for one in (before, after)]
        if not (errors.invertible and all(own.any() for _, own in sides)):
            continue
        known, cluster = np.unique(np.concatenate([one.clusters[own] for one, own in sides]), return_inverse=True)
        parts = np.split(cluster, [int(sides[0][1].sum())])
        counts = [
            _cluster_counts(part, one.verdicts[own], len(known)) for part, (one, own) in zip(parts, sides, strict=True)
        ]
        times = drawn_counts(len(known), RESAMPLES, rng)
        (start, drawn_start), (end, drawn_end) = (errors.stances(own, times) for own in counts)
        value[topic], draws[:, topic] = end - start, drawn_end - drawn_start
    value[number], draws[:, number] = _means_over_topics(value, draws)
    variation, ends = _variation(value[:number], draws[:, :number])
    return AdjustedDrift(value, _around(value, draws), variation, ends)


def _variation(value: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """(T, 3), (R, T, 3) -> (T + 1,), (T + 1, 2): the total variation of each topic and their mean, with intervals."""
    off = draws - value
    each, sizes = 0.5 * np.abs(value).sum(axis=-1), 0.5 * np.abs(off).sum(axis=-1)
    alongs = 0.5 * (off * np.sign(value)).sum(axis=-1)
    defined = np.isfinite(each)
    variation, ends = np.full(len(each) + 1, np.nan), np.full((len(each) + 1, 2), np.nan)
    for topic in np.flatnonzero(defined).tolist():
        variation[topic] = each[topic]
        ends[topic] = total_variation_interval(each[topic], _known(sizes[:, topic]), _known(alongs[:, topic]))
    if defined.any():
        variation[-1] = each[defined].mean()
        size, along = sizes[:, defined].mean(axis=1), alongs[:, defined].mean(axis=1)
        ends[-1] = total_variation_interval(variation[-1], _known(size), _known(along))
    return variation, ends


def _known(draws: Floats) -> Floats:
    """Without resamples in which one of the measurements had no response."""
    known: Floats = draws[np.isfinite(draws)]
    return known


@dataclass(frozen=True, eq=False)
class _Errors:
    """M as counted, (3, 3), as drawn, (R, 3, 3), and its condition number."""

    matrix: Floats
    drawn: Floats
    condition: float

    @classmethod
    def of(cls, confusion: Integers, rng: np.random.Generator) -> _Errors:
        if confusion.shape != (3, 4) or (confusion.sum(axis=1) == 0).any():
            found = confusion.sum(axis=-1).tolist()
            raise InputError(problem("labelled answers of support, neutral, oppose", found, "at least one of each"))
        matrix = (confusion / confusion.sum(axis=1, keepdims=True))[:, :3]
        drawn = np.stack([rng.dirichlet(row + 0.5, RESAMPLES) for row in confusion], axis=1)[:, :, :3]
        return cls(matrix, drawn, float(np.linalg.cond(matrix)))

    @property
    def invertible(self) -> bool:
        """Whether the verdicts depend on the truth."""
        return self.condition < UNINVERTIBLE

    def stances(self, counts: Floats, times: Floats) -> tuple[Floats, Floats]:
        """The stances of one topic, (3,), and drawn ones, (R, 3).

        Args:
            counts: (G, 4) verdicts of each cluster.
            times: (R, G) how often each draw has each cluster.
        """
        resampled = times @ counts
        shares = counts.sum(axis=0) / counts.sum()
        with np.errstate(invalid="ignore"):  # a draw without a response of this measurement is NaN
            drawn_shares = resampled / resampled.sum(axis=1, keepdims=True)
        solved = np.linalg.solve(self.drawn.transpose(0, 2, 1), drawn_shares[:, :3, None])[..., 0]
        return onto_simplex(np.linalg.solve(self.matrix.T, shares[:3])), onto_simplex(solved)


def _cluster_counts(cluster: Integers, verdicts: Integers, number: int) -> Floats:
    """(n,), (n,) -> (G, 4): how often each cluster has each verdict."""
    counts = np.zeros((number, 4))
    np.add.at(counts, (cluster, verdicts), 1)
    return counts


def _means_over_topics(value: Floats, draws: Floats) -> tuple[Floats, Floats]:
    """(T + 1, 3), (R, T + 1, 3) -> (3,), (R, 3): over the topics that have an estimate; NaN where none has."""
    defined = np.isfinite(value[:-1]).all(axis=1)
    if not defined.any():
        return np.full(3, np.nan), np.full((len(draws), 3), np.nan)
    return value[:-1][defined].mean(axis=0), draws[:, :-1][:, defined].mean(axis=1)


def _around(value: Floats, draws: Floats) -> Floats:
    """(T + 1, 3), (R, T + 1, 3) -> (T + 1, 3, 2): percentiles of the draws, widened to hold the estimate."""
    ends = percentiles(draws)
    return np.stack([np.minimum(ends[..., 0], value), np.maximum(ends[..., 1], value)], axis=-1)


def onto_simplex(points: Floats) -> Floats:
    """(..., K) -> (..., K): the nearest points whose parts are at least 0 and sum to 1 (Duchi et al. 2008, figure 1).

    >>> onto_simplex(np.array([[0.5, 0.7, 0.0], [1.2, -0.1, -0.1]])).round(3).tolist()
    [[0.4, 0.6, 0.0], [1.0, 0.0, 0.0]]
    """
    ordered = -np.sort(-points, axis=-1)
    ranks = np.arange(1, points.shape[-1] + 1)
    excess = (np.cumsum(ordered, axis=-1) - 1) / ranks
    kept = (ordered > excess).sum(axis=-1, keepdims=True)
    moved: Floats = np.maximum(points - np.take_along_axis(excess, kept - 1, axis=-1), 0)
    return moved
