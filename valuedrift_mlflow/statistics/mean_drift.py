"""The interval of the mean drift over several runs: for other seeds and other propositions.

Drift is the total variation of a topic's mean stances, ``TV = sum(s d) / 2`` with s the signs of its changes d, and the
mean over topics and seeds. With signs given it is a mean of what propositions contribute, whose error is `crossed`. The
signs are not given, so there are two such means, and the truth lies between what they estimate:

- with the **run's own signs** noise only adds to it: it is the drift as it is measured, at least the truth on average.
  Its interval has the upper end.
- with the **signs that the other propositions show** (each left out in turn) noise only takes from it, as wrong signs
  do: at most the truth on average, and 0 where nothing moved. Its interval has the lower end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valuedrift_mlflow.statistics.crossed import crossed
from valuedrift_mlflow.statistics.intervals import ALPHA, Estimate
from valuedrift_mlflow.statistics.paired import LEAST, Changes

Floats = NDArray[np.float64]


def mean_drift(runs: Sequence[Changes], *, alpha: float = ALPHA) -> Estimate | None:
    """The mean over runs and topics of the total variation, with its interval.

    Args:
        runs: S at least 2, of one choice and one suite.
        alpha: the interval has level ``1 - alpha``.

    Returns:
        In [0, 1]; None where a topic has fewer than three propositions that all runs answered, or runs were asked
        different things.

    >>> change = np.array([[0.4, -0.4, 0.0], [0.2, -0.2, 0.0], [0.3, -0.3, 0.0]])
    >>> run = Changes(change, np.ones(3, dtype=int), np.zeros(3, dtype=int))
    >>> str(mean_drift([run, run]))  # t(2) = 4.303 times 0.1 / sqrt(3)
    '0.300 [0.052, 0.548]'
    """
    if len({(run.asked, len(run.change)) for run in runs}) > 1:
        return None
    change = np.array([run.change for run in runs])  # (S, P, 3)
    prompts = np.mean([run.prompts for run in runs], axis=0)
    topics = runs[0].topics
    known = ~np.isnan(change).any(axis=(0, 2))
    own, others, strata = [], [], []
    for topic in np.unique(topics):
        chosen = known & (topics == topic)
        if chosen.sum() < LEAST:
            return None
        weights = prompts[chosen] / prompts[chosen].mean()
        pulled = change[:, chosen] * weights[:, None]
        total = pulled.sum(axis=1, keepdims=True)
        own.append(_along(pulled, total))
        others.append(_along(pulled, total - pulled))
        strata.append(topics[chosen])
    measured, crossed_out = (crossed(np.concatenate(part, axis=1), np.concatenate(strata)) for part in (own, others))
    low = min(measured.mean, crossed_out.mean - crossed_out.half_width(alpha))
    high = measured.mean + measured.half_width(alpha)
    if math.isnan(low) or math.isnan(high):
        return None
    return Estimate(measured.mean, max(low, 0.0), min(high, 1.0))


def _along(changes: Floats, directions: Floats) -> Floats:
    """(S, n, 3), (S, 1 or n, 3) -> (S, n) half the sum of changes along signs; differences of rounding have none."""
    signs = np.where(np.abs(directions) < 1e-12, 0.0, np.sign(directions))
    along: Floats = 0.5 * (signs * changes).sum(axis=-1)
    return along
