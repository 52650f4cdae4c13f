"""Intervals of figures over clusters (propositions) whose members are alike: Student's t by leaving one cluster out.

A percentile bootstrap of few clusters is far too short, and one over single answers takes a proposition's answers for
independent: of five propositions it covered 50 %. Here the standard error is the jackknife's over clusters, on the
logit of the figure's place between its ends, so that no interval leaves them; the degrees of freedom are the clusters
that count (Carter, Schnepel and Steigerwald 2017, "Asymptotic behavior of a t-test robust to cluster heterogeneity"):
a few large ones stand for few. ``docs/judge_error.md`` shows what it covers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.intervals import ALPHA, NO_SPREAD, Estimate, widened

Floats = NDArray[np.float64]

FEWEST_CLUSTERS = 5  # below it there is no interval: four clusters say too little of how clusters vary


def clustered(value: float, without: Floats, sizes: Floats, ends: tuple[float, float]) -> Estimate:
    """A figure of G clusters with its 95 % interval; NaN ends below `FEWEST_CLUSTERS`.

    Where no cluster changes the figure, what G clusters that are all alike leave open.

    Args:
        value: the figure of all clusters.
        without: (G,) the figure without each cluster; those that are undefined are passed over.
        sizes: (G,) how much each cluster counts, such as its number of answers.
        ends: the least and the greatest value that the figure can have.

    >>> right, answers = np.array([9.0, 8, 7, 9, 8, 7]), np.full(6, 10.0)
    >>> without = (right.sum() - right) / (answers.sum() - answers)
    >>> str(clustered(0.8, without, answers, (0.0, 1.0)))
    '0.800 [0.690, 0.878]'
    """
    from scipy.special import expit, logit, stdtrit  # scipy.stats takes a second to import

    defined = np.isfinite(without)
    clusters, counted = int(defined.sum()), sizes[defined]
    if not math.isfinite(value) or clusters < FEWEST_CLUSTERS:
        return Estimate(value, math.nan, math.nan)
    off = without[defined] - without[defined].mean()
    error = math.sqrt((clusters - 1) / clusters * float(off @ off))
    low, high = ends
    if error < NO_SPREAD:
        edges = widened(value, low, high, 1 - (ALPHA / 2) ** (1 / clusters))
        return Estimate(value, float(edges[0]), float(edges[1]))
    # At either end the logit has no slope: the nearest place where it has one.
    place = float(np.clip((value - low) / (high - low), 1e-6, 1 - 1e-6))
    effective = float(counted.sum() ** 2 / (counted @ counted))
    half = stdtrit(max(effective - 1, 1.0), 1 - ALPHA / 2) * error / (high - low) / (place * (1 - place))
    edges = low + (high - low) * expit(logit(place) + np.array([-half, half]))
    return Estimate(value, min(float(edges[0]), value), max(float(edges[1]), value))
