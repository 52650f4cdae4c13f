"""The error of a mean over seeds and propositions at once: both could have been others.

All runs of an ablation answer the same prompts, and every proposition is answered by all runs. So neither is nested in
the other, and an error over one alone leaves the other out. With ``y(s, i)`` what proposition i contributes in the run
of seed s,

    y(s, i) = mean + seed(s) + proposition(i) + rest(s, i),

the variance of the mean over S seeds and n propositions is ``V(seeds) + V(propositions) - V(rest)``, each as if it were
the only source: the rest is in both, and counts once (analysis of variance of crossed random effects; the same sum as
that of two-way clusters, Cameron, Gelbach and Miller 2011, eq. 2.13). Propositions are strata of topics, which are the
same in every run.

What seeds show has few degrees of freedom, so it gets a t of its own: the half-widths of the two parts, ``t(S - 1)
sqrt(V(seeds))`` and ``t sqrt(V(propositions) - V(rest))``, add as squares (MOVER; Zou and Donner 2008). One t for their
sum, by Satterthwaite's freedom, missed in 10 to 18 of 100 cases with two or three seeds that differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.intervals import ALPHA, Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LEAST_P = 1e-30


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a variance, with its degrees of freedom."""

    variance: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Crossed:
    """A mean over seeds and propositions with its error.

    Attributes:
        mean: over seeds of the mean over topics of the mean over a topic's propositions.
        seeds: what of its variance seeds show; of one seed 0, and then all holds for that seed alone.
        propositions: what other propositions add to it; NaN where a topic has one alone.
    """

    mean: float
    seeds: Part
    propositions: Part

    @property
    def variance(self) -> float:
        """The variance of the mean, for other seeds and other propositions."""
        return self.seeds.variance + self.propositions.variance

    @property
    def p_value(self) -> float:
        """Of "the mean is 0", two-sided: the level at which the interval ends at 0; NaN where there is no error."""
        from scipy.optimize import brentq

        if not self.variance > 0:
            return 1.0 if self.variance == 0 and self.mean == 0 else math.nan
        size = abs(self.mean)
        if size >= self.half_width(_LEAST_P):
            return _LEAST_P
        found = brentq(lambda power: self.half_width(10.0**power) - size, math.log10(_LEAST_P), 0.0, xtol=1e-6)
        return float(10.0**found)

    def half_width(self, alpha: float = ALPHA) -> float:
        """Half the width of the interval of level ``1 - alpha``."""
        from scipy.special import stdtrit  # scipy.stats takes a second to import

        parts = [part for part in (self.seeds, self.propositions) if part.variance != 0]
        return math.sqrt(sum(float(stdtrit(part.freedom, alpha / 2)) ** 2 * part.variance for part in parts))

    def interval(self, alpha: float = ALPHA) -> Estimate:
        """The mean with its interval of level ``1 - alpha``."""
        half = self.half_width(alpha)
        return Estimate(self.mean, self.mean - half, self.mean + half)

    def detectable(self, alpha: float = ALPHA, power: float = 0.8) -> float:
        """The least mean that a test at ``alpha`` finds with this power, with the error that was found; NaN of none.

        By a noncentral t, with the freedom at which one t is as large as the two parts make it.
        """
        from scipy.special import nctdtrinc, stdtridf

        if not self.variance > 0:
            return math.nan
        error = math.sqrt(self.variance)
        critical = self.half_width(alpha) / error
        freedom = min(max(float(stdtridf(1 - alpha / 2, critical)), 1.0), 1e6)
        return float(nctdtrinc(freedom, 1 - power, critical)) * error


def crossed(values: Floats, strata: Integers, seeds_show: Part | None = None) -> Crossed:
    """The mean over seeds and strata of what propositions contribute, with its error.

    Args:
        values: (S, n), finite.
        strata: (n,) the topic of each proposition; every topic weighs the same.
        seeds_show: the variance by seeds, where more is known of it than these values show.

    >>> values = np.array([[0.1, 0.3, 0.2, 0.4], [0.3, 0.5, 0.4, 0.8]])
    >>> found = crossed(values, np.zeros(4, dtype=int))
    >>> round(found.mean, 3), round(found.seeds.variance, 6)  # seeds 0.25 and 0.5: 0.03125 / 2
    (0.375, 0.015625)
    >>> round(found.propositions.variance, 6)  # 0.2, 0.4, 0.3, 0.6: 0.0875 / 3 / 4, less 0.015 / 2 / 3 / 8 of the rest
    0.006667
    """
    topics = np.unique(strata)
    of_topics = np.stack([values[:, strata == topic].mean(axis=1) for topic in topics], axis=1)  # (S, T)
    own, freedom, rest = _within(values, strata, of_topics)
    by_seeds = Part(0.0, 1.0)
    if len(values) > 1:
        by_seeds = seeds_show or Part(float(of_topics.mean(axis=1).var(ddof=1)) / len(values), len(values) - 1.0)
    by_propositions = Part(max(own - rest, 0.0) if own == own else math.nan, freedom)
    return Crossed(float(of_topics.mean()), by_seeds, by_propositions)


def _within(values: Floats, strata: Integers, of_topics: Floats) -> tuple[float, float, float]:
    """The variance of the mean by propositions, its freedom (Satterthwaite 1946), and the variance by the rest."""
    own, rest = [], []
    for number, topic in enumerate(np.unique(strata)):
        part = values[:, strata == topic]
        seeds, count = part.shape
        mean = part.mean(axis=0)
        own.append((mean.var(ddof=1) / count if count > 1 else math.nan, count - 1))
        left = part - mean - of_topics[:, number, None] + of_topics[:, number].mean()
        rest.append(float((left**2).sum()) / max((seeds - 1) * (count - 1), 1) / part.size)
    variances, freedoms = np.array(own).T
    spent = (variances**2 / np.maximum(freedoms, 1)).sum()
    freedom = float(variances.sum() ** 2 / spent) if spent > 0 else 1.0
    return float(variances.sum()) / len(own) ** 2, freedom, sum(rest) / len(own) ** 2
