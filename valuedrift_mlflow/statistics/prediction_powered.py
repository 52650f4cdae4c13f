"""Stances and drift from a judge's verdicts on all responses and people's labels of a few: unbiased whatever the judge.

Prediction-powered inference (Angelopoulos et al. 2023, "Prediction-powered inference", Science 382) takes the judge's
mean and adds the mean error that the labels show. PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453) uses a
share lambda of the judge, the one that makes the interval shortest: 0 is the labels alone, 1 the judge with its mean
error taken off. A judge that knows nothing gets a lambda near 0.

**The estimate.** In one topic of one measurement, response i has the share ``a_i`` (every prompt counts alike), the
label ``Y_i``, the verdict ``f_i``, and the weight ``w_i``: its share by the inverse of the probability with which it
was drawn for labelling. The weights of the labelled sum to 1. ``d_i`` says whether people could place it. The stance is
a mean over the responses that people can place::

    theta = (sum_labelled w_i d_i Y_i + lambda (sum_all a_i f_i - sum_labelled w_i f_i)) / sum_labelled w_i d_i

A response that the judge leaves unscored has the mean verdict of the others for its ``f_i``: so it is no evidence for
any stance. Whatever ``f`` is, its two sums have the same expectation, and the estimate does not depend on it but for
the length of its interval.

**Intervals** are those of Student's t with a variance over clusters (propositions; Liang and Zeger 1986): the answers
to one proposition are alike. Each cluster's part of the error is its sum of the terms above over the sum that belongs
to ``theta``; G clusters with labels give the factor G / (G - 1) and G - 1 degrees of freedom. Over several topics, or
two measurements, the degrees are those of Satterthwaite (1946).

**Lambda** is chosen for each stance over all topics together, because a topic alone has too few labels to choose it
well; a topic where it would make the interval longer than the labels alone do takes its own, lower one. So no interval
of a stance or of its change is ever longer than the one of the labels alone, before both are cut off at the ends of
the scale. Each stance has a lambda of its own, so three stances sum to 1 only nearly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.inputs.errors import InputError, problem
from valuedrift_mlflow.stances import STANCES
from valuedrift_mlflow.statistics.distance import allowance, least_favourable, mean_interval
from valuedrift_mlflow.statistics.intervals import (
    ALPHA,
    NO_SPREAD,
    RESAMPLES,
    widened,
)
from valuedrift_mlflow.statistics.units import Error

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sample:
    """The n responses of one measurement, some of them labelled by people.

    Attributes:
        verdicts: (n, 3) the judge's stance probabilities; NaN where it left the response unscored.
        labels: (n, 3) people's labels, 1 at the stance; NaN where there is none or people could not place the response.
        weights: (n,) the inverse of the probability with which a response was drawn; 0 where it has no label. Only
            their ratios within a topic count.
        topics: (n,) the number of each response's topic.
        clusters: (n,) the number of each response's proposition, the same in all measurements that are compared.
        prompts: (n,) the number of each response's prompt.
    """

    verdicts: Floats
    labels: Floats
    weights: Floats
    topics: Integers
    clusters: Integers
    prompts: Integers

    def __post_init__(self) -> None:
        n = len(self.verdicts)
        for name in ("verdicts", "labels"):
            if getattr(self, name).shape != (n, len(STANCES)):
                raise InputError(problem(name, getattr(self, name).shape, f"shape ({n}, {len(STANCES)})"))
        for name in ("weights", "topics", "clusters", "prompts"):
            if getattr(self, name).shape != (n,):
                raise InputError(problem(name, getattr(self, name).shape, f"shape ({n},)"))
        if not (np.isfinite(self.weights).all() and (self.weights >= 0).all()):
            raise InputError(problem("weights", "a negative or undefined one", "numbers of at least 0"))


@dataclass(frozen=True, slots=True, eq=False)
class Powered:
    """Stances, or their changes, of T topics (rows 0 to T - 1) and of all topics together (row T, their mean).

    NaN where a topic has labels in fewer than two clusters; row T takes the others. ``total_variation`` is None for
    stances.

    Attributes:
        value: (T + 1, 3) the estimates.
        interval: (T + 1, 3, 2) their 95 % intervals.
        labels_alone: (T + 1, 3) what the labels alone say.
        labels_alone_interval: (T + 1, 3, 2) their intervals.
        judge_alone: (T + 1, 3) what the judge alone says.
        power: (T + 1, 3) lambda, in [0, 1].
        labels: (T + 1,) number of labels.
        clusters: (T + 1,) number of clusters with labels.
        p_value: (T + 1, 3) of t tests that an estimate is 0; NaN where no cluster differs from the others.
        total_variation: (T + 1,) half the sum of the absolute changes, in [0, 1]; row T is the mean of the others.
        total_variation_interval: (T + 1, 2) its intervals.
    """

    value: Floats
    interval: Floats
    labels_alone: Floats
    labels_alone_interval: Floats
    judge_alone: Floats
    power: Floats
    labels: Integers
    clusters: Integers
    p_value: Floats
    total_variation: Floats | None = None
    total_variation_interval: Floats | None = None

    @property
    def moved(self) -> Floats:
        """(T + 1,) how far the labels moved the estimate from what the judge alone says, half the sum over stances."""
        moved: Floats = 0.5 * np.abs(self.value - self.judge_alone).sum(axis=-1)
        return moved

    @property
    def width_ratio(self) -> Floats:
        """(T + 1, 3) width of the interval by that of the labels alone; at most 1 where neither is cut off."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Floats = np.diff(self.interval)[..., 0] / np.diff(self.labels_alone_interval)[..., 0]
        return ratio


def powered_stances(sample: Sample, topics: int, *, power: float | None = None) -> Powered:
    """The stances of each topic and their mean over topics.

    Args:
        sample: the measurement.
        topics: T.
        power: lambda; chosen as described above where it is not given.
    """
    return _powered([(1.0, sample)], topics, power, (0.0, 1.0))


def powered_drift(before: Sample, after: Sample, topics: int, *, power: float | None = None, seed: int = 0) -> Powered:
    """The change of the stances of each topic from one measurement to another, and its mean over topics.

    Both have labels of their own. Lambda is chosen for the change, which is paired by cluster, so a change is only
    nearly the difference of two `powered_stances`. The total variation's interval inverts a test, as that of a drift
    without labels does (`distance.mean_interval`), with errors drawn from the t distribution of the three changes.

    Args:
        before: the earlier measurement.
        after: the later one.
        topics: T.
        power: lambda; chosen as described above where it is not given.
        seed: fixes the draws behind the total variation's interval.
    """
    return _powered([(-1.0, before), (1.0, after)], topics, power, (-1.0, 1.0), seed=seed, varied=True)


# The estimate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Cell:
    """One topic of one measurement. ``sign`` is -1 for the measurement that a change starts from.

    Of the n responses: shares and weights (n,), judge (n, 3) with its mean where it has read nothing, people (n, 3)
    with zeros where they have placed nothing, placed (n, 1) as 0 and 1, clusters (n,). ``judge_alone`` (3,) is NaN
    where the judge has read nothing of the topic. ``number`` is that of all clusters, C.
    """

    sign: float
    shares: Floats
    weights: Floats
    judge: Floats
    people: Floats
    placed: Floats
    clusters: Integers
    judge_alone: Floats
    number: int

    @classmethod
    def of(cls, sign: float, sample: Sample, topic: int, number: int) -> _Cell:
        """The responses of one topic; all weights 0 where nobody could place one of them."""
        own = sample.topics == topic
        _, prompt, sizes = np.unique(sample.prompts[own], return_inverse=True, return_counts=True)
        shares = 1 / sizes[prompt]
        weights = shares * sample.weights[own]
        verdicts, labels = sample.verdicts[own], sample.labels[own]
        placed = np.isfinite(labels).all(axis=1, keepdims=True)
        read = np.isfinite(verdicts).all(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            judge_alone = shares[read] @ verdicts[read] / shares[read].sum()
        # Divided by infinity all weights are 0, as those of a topic without labels.
        total = weights.sum() if (weights[placed[:, 0]] > 0).any() else math.inf
        return cls(
            sign=sign,
            # A topic without responses has no shares, and no NaN that would spread.
            shares=shares / max(shares.sum(), 1e-300),
            weights=weights / total,
            judge=np.where(read[:, None], verdicts, np.nan_to_num(judge_alone)),
            people=np.nan_to_num(labels),
            placed=placed.astype(float),
            clusters=sample.clusters[own],
            judge_alone=judge_alone,
            number=number,
        )

    @cached_property
    def labelled(self) -> int:
        """How many labels there are."""
        return int((self.weights > 0).sum())

    @cached_property
    def label_clusters(self) -> int:
        """G, the clusters with labels."""
        return len(np.unique(self.clusters[self.weights > 0]))

    @cached_property
    def placed_weight(self) -> float:
        """The weight of the labelled responses that people could place, in [0, 1]."""
        return float(self.weights @ self.placed[:, 0])

    def theta(self, power: Floats) -> Floats:
        """(3,) -> (3,): the estimate."""
        judged = (self.shares - self.weights) @ self.judge
        estimate: Floats = ((self.weights[:, None] * self.placed * self.people).sum(axis=0) + power * judged) / (
            self.placed_weight
        )
        return estimate

    def errors(self, theta: Floats) -> tuple[Floats, Floats]:
        """(C, 3) each cluster's part of the error of the labels alone, and of what lambda times is added to it.

        Both hold the factor of G / (G - 1), so that the sum of squares is the variance. They are what the estimate
        changes by when a cluster gets a little more weight: the shares and weights of a topic still sum to 1.
        """
        share, weight, found = self.shares[:, None], self.weights[:, None], self.placed * (self.people - theta)
        of_labels = weight * (found - self.weights @ found)
        of_judge = share * (self.judge - self.shares @ self.judge) - weight * (self.judge - self.weights @ self.judge)
        scale = self.sign * math.sqrt(self.label_clusters / (self.label_clusters - 1)) / self.placed_weight
        return self._by_cluster(of_labels) * scale, self._by_cluster(of_judge) * scale

    def _by_cluster(self, terms: Floats) -> Floats:
        sums: Floats = np.stack([np.bincount(self.clusters, term, self.number) for term in terms.T], axis=1)
        return sums


@dataclass(frozen=True, eq=False)
class _Figure:
    """An estimate (3,), its error by clusters (C, 3), and the degrees of freedom of its variance (3,)."""

    value: Floats
    errors: Floats
    degrees: Floats

    @cached_property
    def variance(self) -> Floats:
        """(3,)."""
        variance: Floats = (self.errors**2).sum(axis=0)
        return variance

    def p_value(self, degrees: Floats) -> Floats:
        """(3,): two-sided, of Student's t; NaN where no cluster differs from the others."""
        from scipy.stats import t

        with np.errstate(invalid="ignore", divide="ignore"):
            size = np.abs(self.value) / np.sqrt(self.variance)
        p_value: Floats = np.where(self.variance < NO_SPREAD**2, np.nan, 2 * t.sf(size, degrees))
        return p_value

    def interval(self, degrees: Floats, ends: tuple[float, float], clusters: int) -> Floats:
        """(3, 2): Student's t; where no cluster differs from the others, what G clusters all alike leave open."""
        from scipy.stats import t

        half = t.ppf(1 - ALPHA / 2, degrees) * np.sqrt(self.variance)
        interval = np.stack([self.value - half, self.value + half], axis=-1)
        alike = self.variance < NO_SPREAD**2
        # The share of unlike clusters that G of them would all miss once in forty times: (1 - share)^G = ALPHA / 2.
        missed = 1 - (ALPHA / 2) ** (1 / max(clusters, 1))
        for stance in np.flatnonzero(alike):
            interval[stance] = widened(float(self.value[stance]), *ends, missed)
        clipped: Floats = np.clip(interval, *ends)
        return clipped


def _figure(cells: Sequence[_Cell], power: Floats) -> _Figure:
    """The signed sum of the cells of one topic."""
    value, errors, parts = np.zeros(3), np.zeros((cells[0].number, 3)), []
    for cell in cells:
        theta = cell.theta(power)
        of_labels, of_judge = cell.errors(theta)
        own = of_labels + power * of_judge
        value, errors = value + cell.sign * theta, errors + own
        parts.append(((own**2).sum(axis=0), cell.label_clusters - 1))
    return _Figure(value, errors, _satterthwaite(parts))


def _mean(figures: Sequence[_Figure], parts: Sequence[tuple[Floats, int]]) -> _Figure:
    """The mean over topics, whose clusters are not the same."""
    errors: Floats = np.add.reduce([figure.errors for figure in figures]) / len(figures)
    return _Figure(np.mean([figure.value for figure in figures], axis=0), errors, _satterthwaite(parts))


def _satterthwaite(parts: Sequence[tuple[Floats, int]]) -> Floats:
    """Degrees of freedom of a sum of variances (3,), each with its own (Satterthwaite 1946), as Welch estimates them.

    The square of an estimated variance with d degrees is too large by (d + 2) / d, so that Satterthwaite's formula
    finds 4 where 11 topics of one degree each have 11 together. Welch (1947, Biometrika 34, p. 33) divides by d + 2 and
    takes 2 off. At least the fewest degrees of a part, at most all of them.
    """
    total = np.add.reduce([variance for variance, _ in parts])
    below = np.add.reduce([variance**2 / (degrees + 2) for variance, degrees in parts])
    fewest, most = min(degrees for _, degrees in parts), sum(degrees for _, degrees in parts)
    degrees: Floats = np.divide(total**2, below, out=np.full(3, most + 2.0), where=below > 0) - 2
    return np.clip(degrees, fewest, most)


# Lambda ---------------------------------------------------------------------------------------------------------------


def _slopes(cells: Sequence[_Cell]) -> tuple[Floats, Floats]:
    """(3,), (3,): with what a topic's variance falls and rises in lambda: v(l) = v(0) - 2 l fall + l^2 rise."""
    number = cells[0].number
    labels, judge, none = np.zeros((number, 3)), np.zeros((number, 3)), np.zeros(3)
    for cell in cells:
        of_labels, of_judge = cell.errors(cell.theta(none))
        labels, judge = labels + of_labels, judge + of_judge
    return -(labels * judge).sum(axis=0), (judge**2).sum(axis=0)


def _best(fall: Floats, rise: Floats) -> Floats:
    """The lambda at which the variance is least."""
    best: Floats = np.divide(fall, rise, out=np.zeros(3), where=rise > NO_SPREAD**2)
    return best


def _never_worse(cells: Sequence[_Cell], power: Floats) -> Floats:
    """Lambda for one topic: the given one, or the topic's own where the interval would be longer than by labels alone.

    The variance is a parabola in lambda, so it is back at its start at twice the lambda where it is least.
    """
    own = np.clip(_best(*_slopes(cells)), 0, 1)
    lowered = np.where(power > 2 * own, own, power)
    alone, none = _figure(cells, np.zeros(3)).variance, np.zeros(3)
    # Looked at once more: the estimate moves with lambda, and its errors with it, so that it is a parabola only nearly.
    return np.where(_figure(cells, lowered).variance <= alone, lowered, none)


def _powered(
    sides: Sequence[tuple[float, Sample]],
    topics: int,
    given: float | None,
    ends: tuple[float, float],
    *,
    seed: int = 0,
    varied: bool = False,
) -> Powered:
    # Over both measurements: a change is paired by cluster, so that they share their numbers.
    number = 1 + max(int(sample.clusters.max(initial=0)) for _, sample in sides)
    cells = [[_Cell.of(sign, sample, topic, number) for sign, sample in sides] for topic in range(topics)]
    # G - 1 degrees of freedom: one cluster alone has no variance.
    usable = [t for t, own in enumerate(cells) if all(cell.label_clusters > 1 for cell in own)]
    table = _Table(topics, cells)
    if not usable:
        return table.result(None)
    slopes = [_slopes(cells[t]) for t in usable]
    falls, rises = (np.add.reduce([slope[k] for slope in slopes]) for k in (0, 1))
    common = np.clip(_best(falls, rises), 0, 1) if given is None else np.full(3, given)
    nothing = np.zeros(3)
    # With a lambda of 0 it is the labels alone, by which every interval is measured.
    alone = {t: _figure(cells[t], nothing) for t in usable}
    # For the mean over topics the common lambda alone, which was chosen for it; rows of topics may have lower ones.
    together = {t: _figure(cells[t], common) for t in usable}
    for t in usable:
        power = common if given is not None else _never_worse(cells[t], common)
        table.fill(t, _figure(cells[t], power), alone[t], power, ends, min(c.label_clusters for c in cells[t]))
    parts = [
        ((cell.errors(cell.theta(nothing))[0] ** 2).sum(axis=0), cell.label_clusters - 1)
        for t in usable
        for cell in cells[t]
    ]
    overall, overall_alone = _mean(list(together.values()), parts), _mean(list(alone.values()), parts)
    # A lambda that somebody has given is kept, whatever it does.
    worse = (overall.variance > overall_alone.variance) & (given is None)
    overall = _Figure(
        np.where(worse, overall_alone.value, overall.value),
        np.where(worse, overall_alone.errors, overall.errors),
        overall.degrees,
    )
    clusters = sum(min(cell.label_clusters for cell in cells[t]) for t in usable)
    table.fill(topics, overall, overall_alone, np.where(worse, 0, common), ends, clusters)
    return table.result(_varied(table, usable, topics, seed) if varied else None)


class _Table:
    """The rows of a `Powered` as they are filled."""

    def __init__(self, topics: int, cells: Sequence[Sequence[_Cell]]) -> None:
        """All undefined, but for what the judge alone says and how many labels there are."""
        rows = topics + 1
        self.value, self.alone, self.power, self.p_value = (np.full((rows, 3), np.nan) for _ in range(4))
        self.interval, self.alone_interval = (np.full((rows, 3, 2), np.nan) for _ in range(2))
        self.judge = np.array([sum((cell.sign * cell.judge_alone for cell in own), np.zeros(3)) for own in cells])
        self.labels = np.array([sum(cell.labelled for cell in own) for own in cells])
        self.clusters = np.array([min(cell.label_clusters for cell in own) for own in cells])
        self.figures: dict[int, _Figure] = {}

    def fill(
        self, row: int, figure: _Figure, alone: _Figure, power: Floats, ends: tuple[float, float], clusters: int
    ) -> None:
        """One row. The degrees of freedom are those of the labels alone, so that lambda changes the variance only."""
        self.figures[row], self.power[row] = _Figure(figure.value, figure.errors, alone.degrees), power
        self.value[row], self.alone[row] = np.clip(figure.value, *ends), np.clip(alone.value, *ends)
        self.interval[row] = figure.interval(alone.degrees, ends, clusters)
        self.p_value[row] = figure.p_value(alone.degrees)
        self.alone_interval[row] = alone.interval(alone.degrees, ends, clusters)

    def result(self, variation: tuple[Floats, Floats] | None) -> Powered:
        """The finished rows; the judge alone is over the topics that have an estimate, so that both can be compared."""
        with np.errstate(invalid="ignore"):
            defined = np.isfinite(self.value[:-1]).all(axis=1)
            judge = self.judge[defined].mean(axis=0) if defined.any() else np.full(3, np.nan)
        return Powered(
            value=self.value,
            interval=self.interval,
            labels_alone=self.alone,
            labels_alone_interval=self.alone_interval,
            judge_alone=np.vstack([self.judge, judge]),
            power=self.power,
            labels=np.append(self.labels, self.labels.sum()),
            clusters=np.append(self.clusters, self.clusters.sum()),
            p_value=self.p_value,
            total_variation=None if variation is None else variation[0],
            total_variation_interval=None if variation is None else variation[1],
        )


def _varied(table: _Table, usable: Sequence[int], topics: int, seed: int) -> tuple[Floats, Floats]:
    """(T + 1,), (T + 1, 2): the total variation of each topic and their mean, with intervals; see `distance`."""
    rng = np.random.default_rng(seed)
    value, interval = np.full(topics + 1, np.nan), np.full((topics + 1, 2), np.nan)
    errors, drawn = [], []
    for t in usable:
        figure = table.figures[t]
        # The fewest of the three stances: one draw has all of them, and the wide side is the safe one.
        degrees = float(np.min(figure.degrees))
        covariance = figure.errors.T @ figure.errors + _alike(figure, int(table.clusters[t]))
        errors.append(Error(covariance[None], np.array([degrees]), np.array([int(table.clusters[t])])))
        values, vectors = np.linalg.eigh(covariance)  # of rank two or so: three changes sum nearly to 0
        normal = rng.standard_normal((RESAMPLES, 3)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        drawn.append(normal / np.sqrt(rng.chisquare(degrees, (RESAMPLES, 1)) / degrees))
    changes, draws = table.value[usable][None], np.stack(drawn, axis=1)[:, None]  # (1, T, 3), (R, 1, T, 3)
    for place, t in enumerate(usable):
        value[t] = 0.5 * np.abs(table.value[t]).sum()
        interval[t] = _distance_interval(changes[:, [place]], draws[:, :, [place]], errors[place : place + 1])
    value[topics] = np.mean(value[usable])
    interval[topics] = _distance_interval(changes, draws, errors)
    return np.clip(value, 0, 1), interval


def _distance_interval(changes: Floats, draws: Floats, errors: Sequence[Error]) -> Floats:
    """(1, T, 3), (R, 1, T, 3) -> (2,)."""
    hardest = least_favourable(changes, errors, ALPHA)
    ends: Floats = mean_interval(hardest, draws, allowance(changes, errors, ALPHA), ALPHA)[0]
    return ends


def _alike(figure: _Figure, clusters: int) -> Floats:
    """(3, 3) what is believed of clusters that do not differ: a share of them may, as Jeffreys' prior expects."""
    share = 0.5 / (clusters + 1)
    alike = np.where(figure.variance < NO_SPREAD**2, share * (1 - share) / max(clusters, 1), 0.0)
    return np.diag(alike)
